"""Predict images with an exported run. Needs torch, numpy and Pillow.

python predict.py ensemble.pt2 IMAGE ...

Loading a .pt2 file runs code in it: open your own files only.
"""

import io
import json
import sys

import numpy as np
import torch
from PIL import Image, ImageOps

files = {"export.json": ""}
program = torch.export.load(sys.argv[1], extra_files=files).module()
about = json.loads(files["export.json"])
size, labels = about["shorter_side"], about["labels"]
for path in sys.argv[2:]:
    image = ImageOps.exif_transpose(Image.open(path))
    if image.mode.startswith(("I", "F")):
        raise SystemExit(f"{path}: has more than 8 bits per colour. Save it with 8 bits.")
    image = image.convert("RGB")
    if min(image.size) > size:
        image = image.resize([round(n * size / min(image.size)) for n in image.size], Image.LANCZOS, reducing_gap=2)
    image.save(stored := io.BytesIO(), "JPEG", quality=92, subsampling="4:2:0")
    pixels = torch.from_numpy(np.array(Image.open(stored)))[None]
    with torch.no_grad():
        probability, folds, called = (rows[0].tolist() for rows in program(pixels))
    probability, called = (dict(zip(labels, values)) for values in (probability, called))
    print(json.dumps({"image": path, "probability": probability, "called": called}))
