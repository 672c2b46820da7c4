"""What an exported file says about itself, as plain values: labels, thresholds, calibration, fingerprints, limits."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from melanoma_dist.artifacts.decision_rules import LabelRules
from melanoma_dist.artifacts.run_record import current_environment, read_run_record
from melanoma_dist.data.manifest import SYNTHETIC
from melanoma_dist.data.metadata import describe_field
from melanoma_dist.inference.ensemble import Ensemble
from melanoma_dist.inference.trained_run import TrainedRun
from melanoma_dist.train.fold_data import input_format_of

SCHEMA = 1
USE = "For research only. Not a medical device; not for the diagnosis of patients."
INPUT_RULE = (
    "RGB bytes of any height and width, upright. First reduce the shorter side to `shorter_side` pixels (Pillow's "
    "Lanczos with a reducing gap of 2, never enlarge) and store as JPEG of quality 92, as predict.py does: the models "
    "were trained on such images. Without this step probabilities differ by some hundredths."
)
METADATA_RULE = (
    "float32 [batch, fields], a column for each field of `metadata` in its order: age in years, of sex and site the "
    "position of the word, from 0. NaN is unknown. The model scales them itself."
)
LESION_RULE = (
    "The models see lesions: `images` are not photographs, but what `see` of lesion.py cuts out of them and adds, by "
    "the answers of the file `segmenter` to the whole image."
)
Description = dict[str, Any]
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def describe(
    run: TrainedRun, ensemble: Ensemble, tta: int, licence: str, lesion: Description | None = None
) -> Description:
    """Describe the export of a run with ``tta`` orientations of each image.

    ``lesion``: how its models see an image, see `first_stage.lesion_rule`; None for models that see whole images.
    """
    image_format = input_format_of(ensemble.units[0])
    rules = run.decision_rules
    return {
        "schema": SCHEMA,
        "use": USE,
        "data": SYNTHETIC if run.synthetic else f"collections {', '.join(run.summary.data.years)}",
        "licence": licence,
        "run": run.folder.path.resolve().name,
        "backbone": run.config.model.backbone,
        "labels": list(run.labels),
        "headline": run.labels.headline,
        "input": INPUT_RULE,
        **_metadata(ensemble.metadata_fields),
        "lesion": lesion,
        **({"lesion_rule": LESION_RULE} if lesion else {}),
        "shorter_side": run.image_size,
        "image_size": image_format.size,
        "mean": list(image_format.mean),
        "std": list(image_format.std),
        "tta": tta,
        "tta_of_rules": run.config.input.tta,
        "folds": len(ensemble.units),
        "calibration": {label: _calibration(run, label) for label in run.labels},
        "thresholds": dict(zip(run.labels, rules.thresholds(run.labels, run.config.threshold), strict=True)),
        "operating_points": {
            label: [{"name": point.name, **asdict(point)} for point in rules.points(label)] for label in run.labels
        },
        "data_fingerprint": run.fingerprint,
        "weights_sha256": {str(fold): digest for fold, digest in ensemble.weights_sha256.items()},
        "trained_with": _program(run),
        "exported_with": _own_program(),
    }


def _metadata(fields: tuple[str, ...]) -> Description:
    about: Description = {"metadata": {field: describe_field(field) for field in fields}}
    return {**about, "metadata_rule": METADATA_RULE} if fields else about


def _calibration(run: TrainedRun, label: str) -> dict[str, Any] | None:
    rules = run.decision_rules.labels.get(label)
    return asdict(rules.calibrator) if isinstance(rules, LabelRules) else None


def _program(run: TrainedRun) -> dict[str, Any]:
    environment = read_run_record(run.folder.record).environment
    return {"version": environment.version, "commit": environment.commit, "code": environment.code}


def _own_program() -> dict[str, Any]:
    environment = current_environment()
    installed = {name: version(name) for name in _PACKAGES if find_spec(name)}
    return {
        "version": environment.version,
        "commit": environment.commit,
        "code": environment.code,
        "python": environment.python,
        "libraries": environment.libraries | installed,
    }


def as_texts(description: Description) -> dict[str, str]:
    """The description as texts by name, as files of ONNX keep them: everything that is no text as JSON."""
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in description.items()}
