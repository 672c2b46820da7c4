"""Predict images with an exported run that takes metadata. Needs numpy, Pillow, and onnxruntime or torch.

python predict.py ensemble.onnx IMAGE age=55 sex=female IMAGE site="lower extremity" IMAGE ...

Words behind an image say what is known of its patient. What is not said, or is `unknown`, is unknown.
onnxruntime runs .onnx files, torch runs .pt2 files. Loading a .pt2 file runs code in it: open your own files only.
"""

import io
import json
import math
import sys

import numpy as np
from PIL import Image, ImageOps

UNKNOWN = ("", "unknown", "nan", "na", "n/a")


def load(path):
    """Return what a file says about itself, and a function from its inputs to probabilities and calls."""
    if path.endswith(".pt2"):
        import torch

        files = {"export.json": ""}
        program = torch.export.load(path, extra_files=files).module()

        def run(pixels, codes):
            with torch.no_grad():
                probability, _, positive = program(torch.from_numpy(pixels), torch.from_numpy(codes))
            return probability, positive

        return json.loads(files["export.json"]), run
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    texts = session.get_modelmeta().custom_metadata_map
    about = {name: json.loads(texts[name]) for name in ("shorter_side", "labels", "metadata")}
    return about, lambda *inputs: session.run(["probability", "positive"], dict(zip(("images", "metadata"), inputs)))


def read_pixels(path, size):
    """Read an image as [1, height, width, 3] bytes, as the models were trained on: stored as JPEG."""
    image = ImageOps.exif_transpose(Image.open(path))
    if image.mode.startswith(("I", "F")):
        raise SystemExit(f"{path}: has more than 8 bits per colour. Save it with 8 bits.")
    image = image.convert("RGB")
    if min(image.size) > size:
        image = image.resize([round(side * size / min(image.size)) for side in image.size], Image.Resampling.LANCZOS)
    image.save(stored := io.BytesIO(), "JPEG", quality=92, subsampling="4:2:0")
    return np.array(Image.open(stored))[None]


def encode(field, rule, text):
    """Return the number of a value: years, or the position of a word. NaN is unknown."""
    value, words = text.strip().casefold(), rule.get("words")
    if value in UNKNOWN:
        return math.nan
    if words and value in words:
        return float(words.index(value))
    allowed = f"one of {', '.join(words)}" if words else f"an age of {rule['low']} to {rule['high']} years"
    try:
        if not words and rule["low"] <= float(value) <= rule["high"]:
            return float(value)
    except ValueError:
        pass
    raise SystemExit(f"{field}={text}: must be {allowed}, or unknown.")


about, run = load(sys.argv[1])
fields, images = about["metadata"], []
for word in sys.argv[2:]:
    field, mark, text = word.partition("=")
    if images and mark and field in fields:
        images[-1][1][field] = text
    else:
        images.append((word, {}))
for path, known in images:
    codes = [[encode(field, rule, known.get(field, "")) for field, rule in fields.items()]]
    answers = run(read_pixels(path, about["shorter_side"]), np.array(codes, dtype=np.float32))
    probability, called = (dict(zip(about["labels"], rows[0].tolist())) for rows in answers)
    print(json.dumps({"image": path, "metadata": known, "probability": probability, "called": called}))
