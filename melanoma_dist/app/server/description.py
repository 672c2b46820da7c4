"""What clients are told about the model: its labels and decision rules, what it was trained on, and how good it is."""

from __future__ import annotations

import melanoma_dist
from melanoma_dist.app.predictor import Predictor
from melanoma_dist.config.places import DECISION_RULES
from melanoma_dist.config.serve import ServeConfig
from melanoma_dist.data.metadata import describe_field
from melanoma_dist.evaluate.report.run_results import headline
from melanoma_dist.inference.segmenter import fingerprint
from melanoma_dist.storage.images import FORMATS, SUFFIXES

PURPOSE = "For research, not a diagnosis."

Description = dict[str, object]


def identify_model(predictor: Predictor) -> Description:
    """What every answer says of its model and rules."""
    run = predictor.run
    return {
        "run": run.folder.path.resolve().name,
        "fingerprint": predictor.fingerprint,
        "decision_rules": run.summary.files[DECISION_RULES],
        "backbone": run.config.model.backbone,
        "folds": run.config.data.folds,
        "orientations": predictor.tta,
        "synthetic": run.synthetic,
        "version": melanoma_dist.__version__,
    }


def describe_model(predictor: Predictor) -> Description:
    """The answer of ``/v1/model``."""
    run = predictor.run
    data = run.summary.data
    return {
        "purpose": PURPOSE,
        "model": identify_model(predictor),
        "headline": run.labels.headline,
        "labels": {label: _describe_label(predictor, at, label) for at, label in enumerate(run.labels)},
        "calibration": run.decision_rules.calibration,
        "data": {
            "name": data.folder,
            "fingerprint": data.fingerprint,
            "images": data.images,
            "lesions": data.lesions,
            "years": list(data.years),
        },
        "metadata": {field: describe_field(field) for field in predictor.limits.metadata},
        "region": _describe_region(predictor),
        "input_side": predictor.limits.side,
        "seen_in_training_is_checked": predictor.checked,
        "out_of_distribution_is_checked": predictor.ensemble.run_features is not None,
        "finished": run.summary.finished,
    }


def _describe_region(predictor: Predictor) -> Description:
    """What the models see of an image."""
    region, segmenter = predictor.run.config.region, predictor.ensemble.segmenter
    if segmenter is None:
        return {"region": "whole", "mask": "none"}
    about = {"encoder": segmenter.config.model.backbone, "fingerprint": fingerprint(segmenter)}
    margin = {"margin": region.region_margin} if region.region == "lesion" else {}
    return {"region": region.region, "mask": region.mask, **margin, "segmenter": about}


def describe_limits(settings: ServeConfig) -> Description:
    """What the server accepts."""
    return {
        "formats": FORMATS,
        "suffixes": list(SUFFIXES),
        "max_files": settings.max_files,
        "max_megabytes": settings.max_megabytes,
        "max_megapixels": settings.max_megapixels,
    }


def _describe_label(predictor: Predictor, at: int, label: str) -> Description:
    points = predictor.run.decision_rules.points(label)
    return {
        "threshold": predictor.limits.thresholds[at],
        "auc": _auc(predictor, label),
        "operating_points": [
            {
                "rule": point.rule.kind,
                "value": point.rule.value,
                "name": point.name,
                "threshold": point.threshold,
                "sensitivity": point.sensitivity,
                "specificity": point.specificity,
                "positives": point.positives,
                "negatives": point.negatives,
            }
            for point in points
        ],
    }


def _auc(predictor: Predictor, label: str) -> Description | None:
    """Out of fold, per image as in the report, with its interval; None where the data does not define it."""
    auc = headline(predictor.run.summary.out_of_fold, label)
    return None if auc is None else {"estimate": auc.estimate, "low": auc.low, "high": auc.high}
