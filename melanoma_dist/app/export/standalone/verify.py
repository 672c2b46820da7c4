"""Compare the answers of predict.py for the example images with those of melanoma-dist.

python verify.py
"""

import contextlib
import io
import json
import os
import runpy
import sys

os.chdir(os.path.dirname(os.path.abspath(__file__)))
with open("example/expected.jsonl", encoding="utf-8") as file:
    rows = [row for row in map(json.loads, file) if os.path.exists(row["image"])]
expected = {row["image"]: row["probability"] for row in rows}
model = next(name for name in ("ensemble.onnx", "ensemble.pt2") if os.path.exists(name))
sys.argv = ["predict.py", model]
for row in rows:
    sys.argv += [row["image"], *(f"{field}={value}" for field, value in row.get("metadata", {}).items())]
with contextlib.redirect_stdout(io.StringIO()) as output:
    runpy.run_path("predict.py")
answers = {row["image"]: row["probability"] for row in map(json.loads, output.getvalue().splitlines())}
differences = [abs(answers[image][label] - row[label]) for image, row in expected.items() for label in row]
print(f"{len(expected)} images, largest difference of a probability: {max(differences):.1e}")
sys.exit(not max(differences) <= 1e-3)
