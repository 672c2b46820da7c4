"""Predict images with an exported run. Needs onnxruntime, numpy and Pillow.

python predict.py ensemble.onnx IMAGE ...
"""

import io
import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(sys.argv[1])
about = session.get_modelmeta().custom_metadata_map
size, labels = int(about["shorter_side"]), json.loads(about["labels"])
for path in sys.argv[2:]:
    image = ImageOps.exif_transpose(Image.open(path))
    if image.mode.startswith(("I", "F")):
        raise SystemExit(f"{path}: has more than 8 bits per colour. Save it with 8 bits.")
    image = image.convert("RGB")
    if min(image.size) > size:
        image = image.resize([round(n * size / min(image.size)) for n in image.size], Image.LANCZOS, reducing_gap=2)
    image.save(stored := io.BytesIO(), "JPEG", quality=92, subsampling="4:2:0")
    pixels = np.asarray(Image.open(stored))[None]
    answers = session.run(["probability", "positive"], {"images": pixels})
    probability, called = (dict(zip(labels, rows[0].tolist())) for rows in answers)
    print(json.dumps({"image": path, "probability": probability, "called": called}))
