"""How numbers are written in a report: three decimals, intervals beneath, and never a blank without its reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

NOT_DEFINED = "not defined"
EARLIER = "computed by an earlier version"
"""Why a share of 0 or 1 with no width is not shown: resamples repeat it, which makes it no more certain."""
Kind = Literal["", "undefined", "text", "flag", "good", "bad"]

NAMES = {
    "auc": "AUC",
    "average_precision": "average precision",
    "partial_auc_80": "partial AUC above sensitivity 0.80 (0 to 0.2)",
    "precision": "precision",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "f1": "F1",
    "balanced_accuracy": "balanced accuracy",
    "ppv": "PPV",
    "npv": "NPV",
    "brier": "Brier score",
    "calibration_error": "calibration error",
    "specificity_at_80": "specificity at sensitivity 0.80",
    "specificity_at_82": "specificity at sensitivity 0.82",
    "specificity_at_89": "specificity at sensitivity 0.89",
    "specificity_at_90": "specificity at sensitivity 0.90",
    "specificity_at_95": "specificity at sensitivity 0.95",
}
"""The figures of ``statistics.figures`` that a report shows, by the names the field uses."""
_NEEDS = {"average_precision": "p", "sensitivity": "p", "specificity": "n", "precision": "c", "f1": "e"}
_NEEDS |= {"brier": "k", "calibration_error": "k"}  # all others need positives and negatives


class Cell(NamedTuple):
    """What stands in one place of a table."""

    text: str
    note: str = ""
    """Smaller, beneath: an interval, or why there is no number."""
    kind: Kind = ""


class Table(NamedTuple):
    """Rows under a header; the first cell of a row names it."""

    caption: str
    header: list[str]
    rows: list[list[Cell]]


def number(value: float | None, digits: int = 3) -> str:
    """A figure as text."""
    return NOT_DEFINED if value is None else f"{value:.{digits}f}"


def span(low: float | None, high: float | None, digits: int = 3) -> str:
    """An interval as text; empty where there is none."""
    return "" if low is None or high is None else f"{low:.{digits}f} to {high:.{digits}f}"


def told(found: Mapping[str, Any] | None) -> str:
    """An estimate with its interval in a sentence."""
    if found is None:
        return NOT_DEFINED
    if "not_defined" in found:
        return f"{NOT_DEFINED} ({found['not_defined']})"
    interval = span(found["low"], found["high"])
    return number(found["estimate"]) + (f" (95 % interval {interval})" if interval else "")


def plain(value: object, kind: Kind = "") -> Cell:
    """Text or a count."""
    return Cell(f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value), "", kind)


def undefined(why: str) -> Cell:
    """A figure that the data does not define."""
    return Cell(NOT_DEFINED, why, "undefined")


def figure(value: float | None, why: str, low: float | None = None, high: float | None = None) -> Cell:
    """A figure with its interval, or why it is not defined."""
    return undefined(why) if value is None else Cell(number(value), span(low, high))


def certain(value: float | None, low: float | None, high: float | None) -> bool:
    """Whether a share of images is told as sure: 0 or 1, with an interval of the same ends."""
    return value in (0, 1) and low == high == value


def estimate(found: Mapping[str, Any]) -> Cell:
    """``{"estimate", "low", "high"}`` or ``{"not_defined": why}``."""
    if "not_defined" in found:
        return undefined(str(found["not_defined"]))
    return figure(found["estimate"], "these images do not define it", found.get("low"), found.get("high"))


def why_undefined(name: str, entry: Mapping[str, Any]) -> str:
    """Why a figure of an entry of ``statistics.figures`` is None, from its counts."""
    if "positives" not in entry:
        return "no label defines it"
    if name in ("ppv", "npv"):
        return "no prevalence is stated"
    positives, negatives, called = entry["positives"], entry["negatives"], entry["called_positive"]
    if not positives + negatives:
        return "no truth is known"
    needs = _NEEDS.get(name, "pn")
    if "p" in needs and not positives:
        return "none has it"
    if "n" in needs and not negatives:
        return "all have it"
    if "c" in needs and not called:
        return "none is called"
    if "e" in needs and not (positives or called):
        return "none has it and none is called"
    return "these images do not define it"
