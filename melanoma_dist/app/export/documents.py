"""What people read beside exported files: README.md (how to use them, and the model card), the licence, examples."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from melanoma_dist.app.export import standalone
from melanoma_dist.app.export.description import Description
from melanoma_dist.app.export.licence import ModelLicence
from melanoma_dist.app.export.parity import Reference
from melanoma_dist.artifacts.summary import REFINALIZE
from melanoma_dist.config.export import Format
from melanoma_dist.config.label_sets import label_name
from melanoma_dist.errors import DataError
from melanoma_dist.inference.trained_run import TrainedRun, other_orientations
from melanoma_dist.storage.untrusted import read_text

EXAMPLES = "example"
_SCRIPTS = {"onnx": "predict_onnx.py", "torch": "predict_torch.py"}
_LONG_SCRIPT = "predict_long.py"  # of both formats, for models that take metadata or see lesions
_LESION = "lesion.py"
_USE = {
    "onnx": """`ensemble.onnx` has all folds, `fold-<i>.onnx` one of them.
`predict.py` needs onnxruntime, numpy and Pillow:

```
python predict.py ensemble.onnx IMAGE ...
python verify.py
```
""",
    "torch": """`ensemble.pt2` has all folds, `fold-<i>.pt2` one of them.
`predict.py` needs torch, numpy and Pillow. Loading a `.pt2` file can run code: open your own files only.

```
python predict.py ensemble.pt2 IMAGE ...
python verify.py
```
""",
    "hub": """melanoma-dist loads the ensemble with calibration and operating points:

```python
import melanoma_dist

print(melanoma_dist.load_hub("FOLDER").predict(["photograph.jpg"]).table())
```

timm loads the trunk of a fold. It gives features and no probabilities: pooling has no weights, or has them with the
classifier in `head.safetensors`.

```python
import timm

trunk = timm.create_model("local-dir:FOLDER/fold-0", pretrained=True)
```
""",
}
_METADATA = "The models take metadata of the patient beside the image: {fields}. What is not given is unknown.\n"
_USE_OF_METADATA = """
```
python predict.py {file} IMAGE {example}
```

A file takes them as its second input, `metadata`: {rule}
"""
_EXAMPLES = {"age": "age=55", "sex": "sex=female", "site": 'site="lower extremity"'}


def card_of(run: TrainedRun) -> str:
    """The model card of a run. Raises DataError if it is not there."""
    path = run.folder.path / "model" / "README.md"
    try:
        return read_text(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: the model card cannot be read ({error}). {REFINALIZE}") from error


def write_readme(folder: Path, card: str, chosen: Format, about: Description, licence: ModelLicence) -> None:
    """Write README.md: the model card, with the use of the files behind its first lines; for Hugging Face a header."""
    start, mark, rest = card.partition("\n## ")
    pixels = "" if chosen == "hub" else f"Input: {about['input']}\n\n"
    inputs = pixels + _lesion_note(about) + _metadata_note(chosen, about)
    notes = f"{inputs}Licence: {licence.short}, see `LICENSE.txt`. {about['use']}\n\n{tta_note(about)}"
    text = f"{start}\n## Use of these files\n\n{_USE[chosen]}\n{notes}\n{mark}{rest}"
    (folder / "README.md").write_text((_header(about, licence) if chosen == "hub" else "") + text, encoding="utf-8")


def _lesion_note(about: Description) -> str:
    """Say that models see lesions; empty for models of whole images."""
    if not about["lesion"]:
        return ""
    return f"{about['lesion_rule']} `predict.py` runs both stages: keep its files in one folder.\n\n"


def _metadata_note(chosen: Format, about: Description) -> str:
    """Say how to tell the models of the patient; empty for models of the image alone."""
    fields = about["metadata"]
    if not fields:
        return ""
    note = _METADATA.format(fields=", ".join(fields))
    if chosen == "hub":
        return f'{note}`predict` takes them as `about=[{{"age": 55, "sex": "female"}}]`, one for each image.\n\n'
    example = " ".join(_EXAMPLES[field] for field in fields)
    file = "ensemble.onnx" if chosen == "onnx" else "ensemble.pt2"
    return note + _USE_OF_METADATA.format(file=file, example=example, rule=about["metadata_rule"]) + "\n"


def tta_note(about: Description) -> str:
    """Say how many orientations an export averages, and whether calibration was fixed for as many."""
    count, fixed = about["tta"], about["tta_of_rules"]
    averaged = f"Each image is predicted in {count} orientation{'s' * (count > 1)}."
    if count == fixed:
        return f"{averaged} Calibration and operating points were fixed for that number."
    return f"{averaged} {other_orientations(fixed)}"


def _header(about: Description, licence: ModelLicence) -> str:
    topics = ("dermoscopy", label_name(about["headline"]), "medical", "timm", about["backbone"])
    tags = "".join(f"- {tag}\n" for tag in topics)
    return (
        f"---\nlicense: {licence.identifier}\nlibrary_name: melanoma-dist\npipeline_tag: image-classification\n"
        f"tags:\n{tags}---\n\n"
    )


def write_examples(folder: Path, reference: Reference, synthetic: bool) -> None:
    """Write example/expected.jsonl: what `predict` answers; and the images that the program drew.

    Images of a data set belong to others: of them the folder has names and probabilities alone, unless ``synthetic``.
    """
    place = folder / EXAMPLES
    place.mkdir()
    lines, expected = [], reference.expected
    for row, image in enumerate(reference.images):
        probability = dict(zip(expected.labels, map(float, expected.probability[row]), strict=True))
        called = dict(zip(expected.labels, map(bool, expected.positive[row]), strict=True))
        known = {"metadata": dict(image.about)} if reference.fields else {}
        name = f"{EXAMPLES}/{image.name}"
        lines.append(json.dumps({"image": name, **known, "probability": probability, "called": called}))
        if image.drawn or synthetic:
            (place / image.name).write_bytes(image.data)
    (place / "expected.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def copy_scripts(folder: Path, chosen: Format, about: Description) -> None:
    """Copy the scripts that predict and verify without this package, where the format has them."""
    if script := _SCRIPTS.get(chosen):
        own = Path(standalone.__file__).parent
        long = about["metadata"] or about["lesion"]
        shutil.copyfile(own / (_LONG_SCRIPT if long else script), folder / "predict.py")
        if about["lesion"]:
            shutil.copyfile(own / _LESION, folder / _LESION)
        shutil.copyfile(own / "verify.py", folder / "verify.py")
