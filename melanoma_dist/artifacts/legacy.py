"""A bridge for readers that still take dictionaries of the former layout. It goes with the last of them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from melanoma_dist.artifacts.assessment import AssessedMetrics, Assessment
from melanoma_dist.artifacts.evaluation import EvaluationRecord, read_evaluation
from melanoma_dist.artifacts.summary import RunSummary, read_summary
from melanoma_dist.metrics.bootstrap import BootstrapIntervals
from melanoma_dist.metrics.classification import Metrics
from melanoma_dist.metrics.intervals import MetricInterval


def former(path: Path, content: Any) -> Any:
    """The content of a JSON file in the former layout."""
    if not isinstance(content, dict):
        return content
    if path.name == "record.json":
        names = {"environment": "made_with", "started": "begun", "resumed_with": "gone_on_with"}
        return {names.get(name, name): value for name, value in content.items()}
    if content.get("schema") != 3:
        return content
    if path.name == "summary.json":
        return former_summary(read_summary(path.parent))
    return former_evaluation(read_evaluation(path.parent)) if path.name == "evaluation.json" else content


def former_summary(summary: RunSummary) -> dict[str, Any]:
    """The former ``summary.json``."""
    tree: dict[str, Any] = plain(summary)
    tree["made_with"] = tree.pop("environment")
    tree["repeats_of"] = repeats = tree.pop("seed_repeats")
    if repeats is not None and summary.seed_repeats is not None:
        for label, parts in summary.seed_repeats.components.items():
            if hasattr(parts, "within_fold"):
                repeats["components"][label]["within_fold"] = parts.within_fold
    tree["out_of_fold"] = former_assessment(summary.out_of_fold)
    tree["folds"] = {str(fold): former_metrics(metrics) for fold, metrics in summary.folds.items()}
    tree["training"] = {str(fold): value for fold, value in tree["training"].items()}
    tree["operating_points"] = {label: _points(points) for label, points in summary.operating_points.items()}
    for label, each in tree["calibration"]["labels"].items():
        if "not_defined" in each:
            tree["calibration"]["labels"][label] = {"not_fitted": each["not_defined"]}
    return tree


def former_evaluation(record: EvaluationRecord) -> dict[str, Any]:
    """The former ``evaluation.json``."""
    tree: dict[str, Any] = plain(record)
    tree["what"], tree["begun"] = tree.pop("name"), tree.pop("started")
    tree["models"] = {str(fold): value for fold, value in tree["models"].items()}
    tree["earlier"] = [{**each, "begun": each["started"]} for each in tree["earlier"]]
    results = record.results
    found = tree.pop("results")
    if results is None:
        return tree
    tree |= found
    tree["made_with"] = tree.pop("environment")
    tree["ensemble"] = former_assessment(results.ensemble)
    tree["folds"] = {str(fold): former_metrics(metrics) for fold, metrics in results.folds.items()}
    tree["operating_points"] = {label: _points(points) for label, points in results.operating_points.items()}
    return tree


def former_assessment(assessment: Assessment) -> dict[str, Any]:
    """The former dictionary of an assessment."""
    units: dict[str, AssessedMetrics] = {"by_image": assessment.by_image, "by_lesion": assessment.by_lesion}
    return {
        "images": assessment.images,
        "lesions": assessment.lesions,
        "contradictory": assessment.contradictory,
        **{name: former_metrics(unit) for name, unit in units.items()},
        "intervals": {
            name: former_intervals(BootstrapIntervals(unit.intervals, unit.isic_score_intervals))
            for name, unit in units.items()
        },
        "delong": {name: plain(unit.delong) for name, unit in units.items()},
        "bootstrap": asdict(assessment.bootstrap),
        "settings": {"thresholds": dict(assessment.thresholds)},
    }


def former_intervals(intervals: BootstrapIntervals) -> dict[str, Any]:
    """The former dictionary of a bootstrap's intervals."""

    def ends(interval: MetricInterval) -> dict[str, Any]:
        names = {"undefined_resamples": "undefined"}
        return {names.get(name, name): value for name, value in vars(interval).items()}

    rows = {row: {name: ends(each) for name, each in vars(metrics).items()} for row, metrics in intervals.rows.items()}
    scores = {name: ends(each) for name, each in intervals.isic_scores.items()}
    return rows | ({"official": scores} if scores else {})


def former_metrics(metrics: Metrics) -> dict[str, Any]:
    """The former dictionary of metrics."""
    counts = {f"{name}_labels": count for name, count in vars(metrics.macro.label_counts).items()}
    macro = {name: value for name, value in vars(metrics.macro).items() if name != "label_counts"}
    return {
        "images": metrics.images,
        "labels": {label: asdict(entry) for label, entry in metrics.labels.items()},
        "macro": macro | counts,
        "micro": asdict(metrics.micro),
        "official": dict(metrics.isic_scores),
    }


def _points(points: Any) -> Any:
    if not isinstance(points, tuple):
        return {"not_chosen": points.reason}
    found = []
    for point in points:
        tree = {"name": point.name, **plain(point)}
        if "counts" in tree:
            tree["judged"] = tree.pop("counts")
        found.append(tree)
    return found


def plain(value: Any) -> Any:
    """Records as dictionaries and lists; undefined numbers in the former way."""
    if hasattr(value, "__dataclass_fields__"):
        tree = {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
        return {"not_defined": tree["reason"]} if set(tree) == {"reason"} else tree
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, tuple | list) else value
