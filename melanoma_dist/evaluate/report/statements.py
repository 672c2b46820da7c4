"""What a report says in words: what was proven about leakage, and what the figures do not allow to say."""

from __future__ import annotations

from typing import Any, NamedTuple

from melanoma_dist.data.folds import HEADLINE
from melanoma_dist.data.manifest import SYNTHETIC
from melanoma_dist.evaluate.report.run_results import Evaluation, RunResults

OPTIMISTIC = "slightly optimistic, because the epoch of each fold was chosen on the images it is judged by"
POINTS = (
    "They were chosen on predictions of single folds and are applied to the mean of all folds, whose probabilities "
    "spread less: the sensitivity that is reached may differ from the one that a point is named by."
)
"""What to know of operating points."""
_RARE = 100  # positives below which an interval is wide whatever the model


_SEARCH = (
    "Copies of an image that were turned, mirrored, cut, framed or much brightened are not found by the search for "
    "copies (what re-encoding and resizing do is found). Images without a lesion id count as lesions of their own: two "
    "photographs of one such lesion may lie on both sides of a split."
)


class Claim(NamedTuple):
    """A statement, whether it holds, and how that is known."""

    statement: str
    holds: bool
    how: str


def leakage(evidence: RunResults) -> list[Claim]:
    """What is known about images on both sides of a split."""
    table, summary = evidence.table, evidence.summary
    once = bool(table["image_id"].is_unique) and len(table) == summary["data"]["images"]
    folds = len(summary["folds"])
    whole = bool((table.groupby("group")["fold"].nunique() == 1).all())
    here = "counted in the predictions for this page, and proven before the training"
    claims = [
        Claim(f"The {folds} folds are complete: each of {len(table):,} images is predicted exactly once.", once, here),
        Claim(
            "The folds are disjoint in lesions: no known lesion and no copy that the search finds lies in two of them.",
            whole, here,
        ),
        Claim(
            "No image of a holdout is in a fold, no known lesion of one and no copy that the search finds.", True,
            "proven before the training by the checks of `data audit`, without which none starts",
        ),
    ]  # fmt: skip
    return claims + [claim for each in evidence.evaluations for claim in _unseen(each, evidence)]


def _unseen(evaluation: Evaluation, evidence: RunResults) -> list[Claim]:
    trained, seen = evidence.table, evaluation.table
    shared = bool(set(trained["image_id"]) & set(seen["image_id"]))
    if evaluation.record["kind"] == "holdout":  # of the same manifest: groups have the same names
        shared = shared or bool(set(trained["group"]) & set(seen["group"]))
    return [
        Claim(
            f"{evaluation.title}: no image of it was trained on, no known lesion and no copy that the search finds.",
            not shared,
            "proven when the evaluation began, which is refused otherwise; ids compared again for this page",
        ),
    ]  # fmt: skip


def look(evaluation: Evaluation) -> str:
    """How often these images had been looked at, as a sentence."""
    earlier = evaluation.record["earlier"]
    if not earlier:
        return (
            "First look, as far as is known: no record in the same folder of runs tells of an earlier look at any of "
            "these images."
        )
    names = ", ".join(f"{each['run']} #{each['number']} ({_when(each)})" for each in earlier)
    return (
        f"LOOK NUMBER {evaluation.look} at these images: earlier ones are {names}. Seen before, by the records that "
        f"were left: {evaluation.seen:,} of {evaluation.record['data']['images']:,} images. Whatever was chosen after "
        "a look makes this figure optimistic."
    )


def _when(earlier: dict[str, Any]) -> str:
    """The day of an earlier look, and whether its record was gone."""
    day = "at an unknown time" if earlier["begun"] is None else str(earlier["begun"])[:10]
    return f"{day}, its record is gone: which images it saw is not known" if earlier.get("deleted") else day


def limits(evidence: RunResults) -> list[str]:
    """What a reader must not conclude."""
    found = ["For research. Not a medical device; not for the diagnosis of patients."]
    if evidence.synthetic:
        found.append(SYNTHETIC)
    found += [f"While it was trained, {text}" for text in evidence.summary["incidents"]]
    found += [*_judged(evidence), _SEARCH, *_prevalence(evidence.summary), *_calibration(evidence.summary)]
    found.append(
        "The images of the ISIC challenges come from a few specialised clinics, of lesions that somebody chose to "
        "photograph, and their tables do not tell skin types. Few of them are of dark skin; nothing here says how the "
        "model does there."
    )
    found.append(
        "Intervals say what other lesions of the same kind would change. They say nothing of other cameras, clinics or "
        "populations."
    )
    return found


def _judged(evidence: RunResults) -> list[str]:
    if not evidence.evaluations:
        return [
            "No test on unseen images was made. All figures are out of fold: each image was predicted by the fold that "
            f"did not train on it, and they are {OPTIMISTIC}."
        ]
    repeated = [each for each in evidence.evaluations if each.look > 1]
    if not repeated:
        return []
    names = ", ".join(each.title for each in repeated)
    return [f"These images had been looked at before: {names}. Their figures may be optimistic."]


def _prevalence(summary: dict[str, Any]) -> list[str]:
    entry = summary["out_of_fold"]["by_image"]["labels"].get(HEADLINE)
    if entry is None:
        return []
    known = entry["positives"] + entry["negatives"]
    share = entry["positives"] / known if known else 0.0
    said = [
        f"{share:.1%} of the images with a known answer are melanomas ({entry['positives']:,} of {known:,}), far more "
        "than among people who are screened. Precision, net benefit and calibrated probabilities hold at this "
        "prevalence alone; predictive values at others are beside the operating points."
    ]
    if entry["positives"] < _RARE:
        said.append(f"There are only {entry['positives']} melanomas: every figure of sensitivity rests on these.")
    return said


def _calibration(summary: dict[str, Any]) -> list[str]:
    weighted = summary["identity"].get("loss.class_weights") == "balanced"
    said = (
        "Classes were weighted in training, so raw probabilities are not shares of patients"
        if weighted
        else "Raw probabilities of a network are not shares of patients"
    )
    return [f"{said}; the calibrated ones are, on data like the training's ({summary['calibration']['used']})."]
