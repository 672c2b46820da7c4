"""What heads a report: the figures at the top with what they are worth, and what was trained on what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from melanoma_dist.data.folds import HEADLINE
from melanoma_dist.evaluate.report import statements
from melanoma_dist.evaluate.report.cells import NOT_DEFINED, number, span
from melanoma_dist.evaluate.report.figures import OUT_OF_FOLD
from melanoma_dist.evaluate.report.run_results import RunResults, headline


class Headline(NamedTuple):
    """One of the figures at the top."""

    where: str
    value: str
    interval: str
    """In words; empty where there is none."""
    note: str
    warning: str

    @property
    def sentence(self) -> str:
        """Value and interval."""
        return f"{self.value} ({self.interval})" if self.interval else self.value


def headlines(evidence: RunResults) -> list[Headline]:
    """AUC of melanoma: of the evaluation that leads, then out of fold; each with what it is worth."""
    own = evidence.summary["out_of_fold"]
    note = f"{_counts(own)}, each image predicted by the fold that did not train on its lesion; {statements.OPTIMISTIC}"
    found = [Headline(OUT_OF_FOLD, *_value(headline(own), "these images do not define it"), note, "")]
    lead = evidence.leading()
    if lead is None:
        return found
    ensemble = lead.record["ensemble"]
    value = _value(headline(ensemble), lead.record["labels_absent"].get(HEADLINE, "these images do not define it"))
    note = f"{_counts(ensemble)} that no fold has seen, by all folds together"
    warning = statements.look(lead) if lead.look > 1 else ""
    return [Headline(f"on unseen images, {lead.title}", *value, note, warning), *found]


def _counts(assessment: Mapping[str, Any]) -> str:
    return f"{assessment['images']:,} images of {assessment['lesions']:,} lesions"


def _value(found: Mapping[str, Any] | None, why: str) -> tuple[str, str]:
    if found is None or found["estimate"] is None:
        return NOT_DEFINED, why
    ends = span(found["low"], found["high"])
    return number(found["estimate"]), f"95 % interval {ends}" if ends else ""


def facts(evidence: RunResults) -> list[tuple[str, str]]:
    """What was trained on what."""
    summary, data = evidence.summary, evidence.summary["data"]
    identity, folds = summary["identity"], len(summary["folds"])
    each_model = f"each model saw {folds - 1} of the {folds}"
    told_of = [
        ("backbone", f"{summary['backbone']}, from weights {identity.get('model.weights', 'unknown')}"),
        ("labels", ", ".join(summary["labels"])),
        ("trained on", f"{data['images']:,} images of {data['lesions']:,} lesions in {folds} folds; {each_model}"),
        (
            "kept out",
            f"{data['kept_out']:,} images (holdouts, and what shares a known lesion or a found copy with them)",
        ),
        ("years", ", ".join(str(year) for year in data["years"])),
        ("data", f"{data['folder']}, fingerprint {data['fingerprint']}"),
        ("seeds", ", ".join(map(str, (summary["repeats_of"] or {"seeds": [summary["seed"]]})["seeds"]))),
    ]
    for each in evidence.evaluations:
        seen = each.record["data"]
        told_of.append(
            (
                f"unseen: {each.title}",
                f"{each.record['ensemble']['images']:,} images of {each.record['ensemble']['lesions']:,} lesions of "
                f"{seen['folder']}, fingerprint {seen['fingerprint']}; {_orientations(each.record['tta'])}, "
                f"{len(each.record['models'])} folds together, {each.record['begun'][:10]}",
            )
        )
    return told_of


def _orientations(count: int) -> str:
    return f"averaged over {count} orientations of each image" if count > 1 else "each image as it is"
