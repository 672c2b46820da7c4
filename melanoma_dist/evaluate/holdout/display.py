"""What a person sees of a look: figures per label with intervals, and what the frozen operating points did."""

from __future__ import annotations

from typing import Any

from melanoma_dist import console
from melanoma_dist.data.folds import HEADLINE
from melanoma_dist.data.manifest import SYNTHETIC
from melanoma_dist.evaluate.summary import SHOWN, with_interval


def show(record: dict[str, Any]) -> None:
    """Print the tables of a finished look."""
    mark = f" — {SYNTHETIC}" if record["synthetic"] else ""
    title = f"{record['what']}: folds together{mark}"
    names = ["AUC (95 % interval)", "AP", "precision", "recall", "specificity", "threshold", "positives", "negatives"]
    console.table(title, ["calibrated, per image", *names], _by_label(record))
    for label, why in record["labels_absent"].items():
        console.info(f"{label}: not judged, for {why}.")
    points = record["operating_points"][HEADLINE]
    if isinstance(points, dict):
        console.info(f"No operating points of {HEADLINE}: {points['not_chosen']}")
        return
    header = [f"{HEADLINE}, chosen out of fold", "threshold", "sensitivity", "specificity", "precision"]
    console.table(f"Operating points, frozen before this look{mark}", header, [_point(point) for point in points])


def _by_label(record: dict[str, Any]) -> list[list[str]]:
    found, intervals = record["ensemble"]["by_image"], record["ensemble"]["intervals"]["by_image"]
    thresholds = record["ensemble"]["settings"]["thresholds"]
    rows = []
    for label in record["labels"]:
        entry = found["labels"][label]
        cells = [with_interval(intervals[label]["auc"]), *(_number(entry[figure]) for figure in SHOWN[1:])]
        rows.append([label, *cells, f"{thresholds[label]:.4f}", str(entry["positives"]), str(entry["negatives"])])
    if len(rows) > 1:
        macro = [with_interval(intervals["macro"]["auc"]), *(_number(found["macro"][figure]) for figure in SHOWN[1:])]
        rows.append(["macro", *macro, "", "", ""])
    for fold, entry in record["folds"].items():
        alone = entry["labels"][HEADLINE]
        rows.append([f"{HEADLINE}, fold {fold} alone", *(_number(alone[figure]) for figure in SHOWN), "", "", ""])
    return rows


def _point(point: dict[str, Any]) -> list[str]:
    cells = [_share(point["judged"][figure]) for figure in ("sensitivity", "specificity", "precision")]
    return [point["name"], f"{point['threshold']:.4f}", *cells]


def _share(found: dict[str, Any]) -> str:
    return "–" if "not_defined" in found else with_interval(found)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
