"""Predict images with an exported run that takes metadata or sees lesions. Needs numpy, Pillow, and onnxruntime or torch.

python predict.py ensemble.onnx IMAGE IMAGE ...
python predict.py ensemble.onnx IMAGE age=55 sex=female IMAGE site="lower extremity" IMAGE ...

Words behind an image say what is known of its patient, for models that take metadata. What is not said, or is
`unknown`, is unknown. For models that see lesions, the segmenter beside the file finds them first.
onnxruntime runs .onnx files, torch runs .pt2 files. Loading a .pt2 file runs code in it: open your own files only.
"""

import io
import json
import math
import os
import sys

import numpy as np
from PIL import Image, ImageOps

UNKNOWN = ("", "unknown", "nan", "na", "n/a")


def load(path):
    """Return what a file says about itself, and a function from its inputs to its outputs."""
    if path.endswith(".pt2"):
        import torch

        files = {"export.json": ""}
        program = torch.export.load(path, extra_files=files).module()

        def run(*inputs):
            with torch.no_grad():
                outputs = program(*map(torch.from_numpy, inputs))
            return [each.numpy() for each in (outputs if isinstance(outputs, tuple) else (outputs,))]

        return json.loads(files["export.json"]), run
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    texts = session.get_modelmeta().custom_metadata_map
    about = {
        name: json.loads(texts[name]) for name in ("shorter_side", "labels", "metadata", "lesion") if name in texts
    }
    return about, lambda *inputs: session.run(None, dict(zip(("images", "metadata"), inputs)))


def read_pixels(path, size):
    """Read an image as [1, height, width, 3] bytes, as the models were trained on: stored as JPEG."""
    image = ImageOps.exif_transpose(Image.open(path))
    if image.mode.startswith(("I", "F")):
        raise SystemExit(f"{path}: has more than 8 bits per colour. Save it with 8 bits.")
    image = image.convert("RGB")
    if min(image.size) > size:
        image = image.resize([round(n * size / min(image.size)) for n in image.size], Image.LANCZOS, reducing_gap=2)
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
fields, rule, images = about["metadata"], about["lesion"], []
if rule:
    folder, suffix = os.path.dirname(os.path.abspath(sys.argv[1])), os.path.splitext(sys.argv[1])[1]
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    from lesion import find_lesion, see

    _, segment = load(os.path.join(folder, rule["file"] + suffix))
for word in sys.argv[2:]:
    field, mark, text = word.partition("=")
    if images and mark and field in fields:
        images[-1][1][field] = text
    else:
        images.append((word, {}))
for path, known in images:
    pixels, facts = read_pixels(path, about["shorter_side"]), {"metadata": known} if fields else {}
    if rule:
        lesion = find_lesion(segment(pixels)[0][0], pixels.shape[2], pixels.shape[1], rule)
        pixels = see(pixels[0], lesion, rule)[None]
        facts["lesion"] = {name: lesion[name] for name in ("trusted", "quality")} | {
            name: None if lesion[name] is None else lesion[name].tolist() for name in ("box", "window")
        }
    codes = [[encode(field, values, known.get(field, "")) for field, values in fields.items()]]
    outputs = run(pixels, *([np.array(codes, dtype=np.float32)] if fields else []))
    probability, called = (dict(zip(about["labels"], outputs[at][0].tolist())) for at in (0, 2))
    print(json.dumps({"image": path, **facts, "probability": probability, "called": called}))
