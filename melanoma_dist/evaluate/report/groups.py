"""What a report says of subgroups in words: which there are, which are flagged, and where their images were called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from melanoma_dist.artifacts.decision_rules import YOUDEN
from melanoma_dist.data.folds import HEADLINE
from melanoma_dist.evaluate.report.cells import number

ATTRIBUTES = ("sex", "age", "site", "year", "image size", "metadata")
"""What ``statistics.subgroups`` looks at; one that all images share makes no subgroups."""


def attributes(subgroups: Sequence[Mapping[str, Any]]) -> str:
    """The attributes that made subgroups, and those that made none."""
    found = {each["attribute"] for each in subgroups}
    made, lacking = ([name for name in ATTRIBUTES if (name in found) == there] for there in (True, False))
    said = ", ".join(made) or "no attribute"
    return said + (f" (the same or unknown for all images, so without subgroups: {', '.join(lacking)})" * bool(lacking))


def flagged(subgroups: Sequence[Mapping[str, Any]]) -> str:
    """The subgroups whose gap holds after Holm's correction, as a sentence."""
    if not any("flagged" in each["gap"] for each in subgroups):
        return "No subgroup could be tested: each, or the rest, has too few lesions."
    names = [f"{each['attribute']} {each['value']}" for each in subgroups if each["gap"].get("flagged")]
    if names:
        return f"Flagged after Holm's correction: {', '.join(names)}."
    return "No subgroup is flagged after Holm's correction; that does not show them equal."


def threshold(summary: Mapping[str, Any]) -> tuple[float, str]:
    """Where subgroups were called positive, of a run's summary: the probability, and what it is."""
    points = summary["operating_points"].get(HEADLINE)
    for point in points if isinstance(points, list) else []:
        if point["name"] == YOUDEN:
            value = float(point["threshold"])
            return value, f"the frozen point of {YOUDEN}, a calibrated probability of {number(value, 4)}"
    value = float(summary["threshold"])
    return value, f"a raw probability of {number(value, 4)}, as no operating point could be chosen"
