"""State in words what a report claims: leakage, repeated evaluations, subgroups, limits of use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from melanoma_dist.artifacts.decision_rules import WHY_USED
from melanoma_dist.artifacts.evaluation import EarlierEvaluation
from melanoma_dist.artifacts.summary import LabelCalibration, RunSummary
from melanoma_dist.config.label_sets import label_name
from melanoma_dist.data.manifest import SYNTHETIC
from melanoma_dist.evaluate.report import provenance
from melanoma_dist.evaluate.report.run_results import Evaluation, RunResults
from melanoma_dist.metrics.operating_points import YOUDEN
from melanoma_dist.metrics.subgroups import Gap, Subgroup
from melanoma_dist.pages.numbers import number

OPTIMISTIC = "slightly optimistic, because each fold chose its epoch on the images that measure it"
POINTS = (
    "Predictions of single folds chose them; they apply to the mean of all folds, whose probabilities spread less. The "
    "sensitivity that a point reaches may therefore differ from the one in its name. The thresholds belong to the "
    "calibration in decision_rules.json. They do not apply to the calibrated columns of predictions.csv, which are "
    "calibrated fold by fold (cross-fitted)."
)
"""A caution about operating points."""
ATTRIBUTES = ("sex", "age", "site", "year", "image size", "metadata")
"""The attributes of ``metrics.subgroups``; an attribute that all images share makes no subgroups."""
_RARE = 100  # positives below which an interval is wide whatever the model
_SEARCH = (
    "The search for copies finds re-encoded and resized images. It does not find copies that were rotated, mirrored, "
    "cropped, framed or much brightened. An image without a lesion id counts as a lesion of its own: two photographs "
    "of one such lesion may be on both sides of a split, unless a known patient joins them."
)


class Statement(NamedTuple):
    """A statement about leakage, whether it holds, and how that was checked."""

    text: str
    holds: bool
    check: str


def leakage(results: RunResults) -> list[Statement]:
    """State whether images or lesions are on both sides of a split."""
    table, summary = results.table, results.summary
    complete = bool(table["image_id"].is_unique) and len(table) == summary.data.images
    folds = len(summary.folds)
    disjoint = bool((table.groupby("group")["fold"].nunique() == 1).all())
    unit = "lesion" if summary.data.patients is None else "lesion and no patient"
    recounted = "counted in the predictions for this page, and checked before the training"
    statements = [
        Statement(f"The {folds} folds are complete: they predict each of {len(table):,} images exactly once.",
                  complete, recounted),
        Statement(f"The folds share no {unit}: no known {unit} and no copy that the search finds is in two of them.",
                  disjoint, recounted),
        Statement("No fold has an image of a holdout, a known lesion of one or a copy that the search finds.", True,
                  "checked by `data audit` before every training, which stops if it fails"),
    ]  # fmt: skip
    return statements + [_unseen(each, results) for each in results.evaluations]


def _unseen(evaluation: Evaluation, results: RunResults) -> Statement:
    trained, evaluated = results.table, evaluation.table
    shared = bool(set(trained["image_id"]) & set(evaluated["image_id"]))
    if evaluation.record.kind == "holdout":  # of the same manifest: groups have the same names
        shared = shared or bool(set(trained["group"]) & set(evaluated["group"]))
    return Statement(
        f"{evaluation.title}: the training used none of its images, no known lesion of them and no copy that the "
        "search finds.",
        not shared,
        "checked when the evaluation started, which stops if it fails; ids compared again for this page",
    )


def history(evaluation: Evaluation) -> str:
    """State how often these images were evaluated before."""
    record = evaluation.record
    if not record.earlier:
        return (
            "First evaluation, as far as is known: no record in the same folder of runs names an earlier evaluation of "
            "any of these images."
        )
    names = ", ".join(f"{each.run} #{each.number} ({_date(each)})" for each in record.earlier)
    return (
        f"EVALUATION NUMBER {record.ordinal} of these images; earlier ones: {names}. Images evaluated before, by "
        f"the remaining records: {record.seen_before:,} of {record.data.images:,}. Any "
        "choice made after an earlier evaluation makes these metrics optimistic."
    )


def _date(earlier: EarlierEvaluation) -> str:
    """Return the day of an earlier evaluation, and whether its record was deleted."""
    day = "at an unknown time" if earlier.started is None else earlier.started[:10]
    return f"{day}, its record was deleted: its images are unknown" if earlier.deleted else day


def subgroup_attributes(subgroups: Sequence[Subgroup]) -> str:
    """Name the attributes with subgroups, and those without."""
    present = {each.attribute for each in subgroups}
    names = ", ".join(name for name in ATTRIBUTES if name in present) or "no attribute"
    absent = [name for name in ATTRIBUTES if name not in present]
    return names + (f" (no subgroups, because all images share it or lack it: {', '.join(absent)})" if absent else "")


def flagged_subgroups(subgroups: Sequence[Subgroup], groups: str = "lesions") -> str:
    """Name the subgroups whose gap holds after Holm's correction, as a sentence.

    ``groups``: the word for what the subgroups resample, lesions or patients.
    """
    if not any(isinstance(each.gap, Gap) for each in subgroups):
        return f"No subgroup could be tested: each, or the rest, has too few {groups}."
    names = [f"{each.attribute} {each.value}" for each in subgroups if isinstance(each.gap, Gap) and each.gap.flagged]
    if names:
        return f"Flagged after Holm's correction: {', '.join(names)}."
    return "No subgroup is flagged after Holm's correction; that does not show them equal."


def subgroup_threshold(summary: RunSummary) -> tuple[float, str]:
    """Return the threshold of the subgroups' sensitivity and specificity, and its description."""
    points = summary.operating_points.get(summary.label_set.headline)
    for point in points if isinstance(points, tuple) else ():
        if point.name == YOUDEN:
            text = f"a calibrated probability of {number(point.threshold, 4)}, the operating point of {YOUDEN}"
            return point.threshold, text
    value = summary.threshold
    return value, f"a raw probability of {number(value, 4)}, as no operating point could be chosen"


def calibrator(used: str, label: LabelCalibration) -> str:
    """State why the calibration in use was chosen, and how well each kind does on these images."""
    losses = {"raw": label.before, **label.after}
    compared = ", ".join(f"{kind} {number(quality.log_loss)}" for kind, quality in losses.items())
    return f"Every run uses {used} calibration: {WHY_USED}. Log loss, cross-fitted: {compared} (the lower the better)."


def limits(results: RunResults) -> list[str]:
    """State what a reader must not conclude."""
    summary = results.summary
    return [
        "For research. Not a medical device; not for the diagnosis of patients.",
        *([SYNTHETIC] if results.synthetic else []),
        *(f"During the training, {text}" for text in summary.incidents),
        *_repeated(results),
        _SEARCH,
        *_prevalence(summary),
        _calibration(summary),
        *provenance.limits(summary),
        f"Intervals cover other {summary.out_of_fold.groups} of the same kind. They do not cover other cameras, "
        "clinics or populations.",
    ]


def _repeated(results: RunResults) -> list[str]:
    if not results.evaluations:
        return [
            "No evaluation on unseen images. All metrics are out of fold: the fold that did not train on an image "
            f"predicted it. They are {OPTIMISTIC}."
        ]
    repeated = ", ".join(each.title for each in results.evaluations if each.record.ordinal > 1)
    if not repeated:
        return []
    return [f"These images were evaluated before: {repeated}. Their metrics may be optimistic."]


def _prevalence(summary: RunSummary) -> list[str]:
    label = summary.label_set.headline
    entry = summary.out_of_fold.by_image.labels.get(label)
    if entry is None:
        return []
    known = entry.positives + entry.negatives
    share = entry.positives / known if known else 0.0
    sentences = [
        f"{share:.1%} of the images with a known answer show {label_name(label)} ({entry.positives:,} of {known:,}), "
        "far more than in a screened population. Precision, net benefit and calibrated probabilities hold at this "
        "prevalence alone; predictive values at others are beside the operating points."
    ]
    if entry.positives < _RARE:
        sentences.append(f"Every sensitivity rests on only {entry.positives} images with {label_name(label)}.")
    return sentences


def _calibration(summary: RunSummary) -> str:
    weighted = summary.identity.get("loss.class_weights") == "balanced"
    cause = "The training weighted the classes, so raw" if weighted else "Raw"
    return (
        f"{cause} probabilities are not shares of patients; the calibrated ones are, on data like the training's "
        f"({summary.calibration.used})."
    )
