"""Build the head of a report: the headline AUCs with their cautions, and what was trained on what."""

from __future__ import annotations

from typing import NamedTuple

from melanoma_dist.artifacts.assessment import Assessment
from melanoma_dist.artifacts.summary import RunSummary, TrainedData
from melanoma_dist.config.label_sets import NAMES, label_name
from melanoma_dist.evaluate.report import statements
from melanoma_dist.evaluate.report.cells import NOT_BY_DATA, NOT_DEFINED
from melanoma_dist.evaluate.report.provenance import KEPT_OUT
from melanoma_dist.evaluate.report.run_results import OUT_OF_FOLD, RunResults, headline
from melanoma_dist.evaluate.report.tables import counts_in, counts_of, evaluated_point
from melanoma_dist.metrics.intervals import MetricInterval
from melanoma_dist.metrics.operating_points import fixed_sensitivity
from melanoma_dist.pages.numbers import number, span


class Headline(NamedTuple):
    """One AUC at the top."""

    where: str
    value: str
    interval: str
    """In words; empty if the AUC has no interval."""
    note: str
    warning: str

    @property
    def sentence(self) -> str:
        """Value and interval."""
        return f"{self.value} ({self.interval})" if self.interval else self.value


def headlines(results: RunResults) -> list[Headline]:
    """Return the AUC of the headline label of the leading evaluation, then out of fold, each with its cautions."""
    own = results.summary.out_of_fold
    group = "lesion" if results.summary.data.patients is None else "lesion or its patient"
    note = f"{_counts(own)}, each predicted by the fold that did not train on its {group}; {statements.OPTIMISTIC}"
    out_of_fold = Headline(OUT_OF_FOLD, *_value(headline(own, results.label), NOT_BY_DATA), note, "")
    lead = results.leading()
    if lead is None:
        return [out_of_fold]
    ensemble = lead.results.ensemble
    value = _value(headline(ensemble, results.label), lead.record.labels_absent.get(results.label, NOT_BY_DATA))
    note = f"{_counts(ensemble)} that no fold has seen, predicted by the ensemble of all folds"
    warning = statements.history(lead) if lead.record.ordinal > 1 else ""
    return [Headline(f"on unseen images, {lead.title}", *value, note, warning), out_of_fold]


def _counts(assessment: Assessment) -> str:
    return f"{assessment.images:,} images of {assessment.lesions:,} lesions"


def _value(auc: MetricInterval | None, reason: str) -> tuple[str, str]:
    if auc is None or auc.estimate is None:
        return NOT_DEFINED, reason
    ends = span(auc.low, auc.high)
    return number(auc.estimate), f"95 % interval {ends}" if ends else ""


def takeaways(results: RunResults) -> list[str]:
    """State what the operating point of 90 % sensitivity finds and flags, out of fold and in the leading evaluation."""
    points = results.summary.operating_points.get(results.label)
    if not isinstance(points, tuple):
        return []
    index = next(at for at, point in enumerate(points) if point.rule == fixed_sensitivity(0.90))
    own = _counted(results.label, *counts_of(points[index]))
    sentences = [f"Out of fold, at 90 % sensitivity: {own}; optimistic, because these images chose the threshold."]
    lead = results.leading()
    evaluated = None if lead is None else evaluated_point(lead, results.label, index)
    if lead is not None and evaluated is not None:
        unseen = _counted(results.label, *counts_in(evaluated))
        where = f"On unseen images, {lead.title}, at the threshold chosen for 90 % sensitivity out of fold"
        sentences.insert(0, f"{where}: {unseen}.")
    return sentences


def _counted(label: str, true_positives: int, false_positives: int, true_negatives: int, false_negatives: int) -> str:
    positives, negatives = true_positives + false_negatives, false_positives + true_negatives
    hits = f"{true_positives:,} of {positives:,} images with {label_name(label)} found"
    return f"{hits}, {false_positives:,} of {negatives:,} others flagged"


def glossary(summary: RunSummary) -> list[tuple[str, str]]:
    """Return what each label means, and how many images have it."""
    entries = {label: summary.out_of_fold.by_image.labels[label] for label in summary.labels}
    return [
        (label, f"{NAMES.get(label, label)}: {entry.positives:,} of {entry.positives + entry.negatives:,} images")
        for label, entry in entries.items()
    ]


def facts(results: RunResults) -> list[tuple[str, str]]:
    """Return what was trained on what, as pairs of a name and a text."""
    summary, data = results.summary, results.summary.data
    folds = len(summary.folds)
    patients = "" if data.patients is None else f" of {data.patients:,} known patients"
    seeds = summary.seed_repeats.seeds if summary.seed_repeats else (summary.seed,)
    fields = metadata_fields(summary)
    pairs = [
        ("backbone", f"{summary.backbone}, from weights {summary.identity.get('model.weights', 'unknown')}"),
        ("labels", ", ".join(summary.labels)),
        *([("metadata", f"{', '.join(fields)}; each may be unknown")] if fields else []),
        (
            "training data",
            f"{trained_images(data)}{patients} in {folds} folds; each model saw {folds - 1} of the {folds}",
        ),
        ("kept out", f"{data.kept_out:,} images ({KEPT_OUT})"),
        ("collections", ", ".join(data.years)),
        *(("incomplete tables", text) for text in data.incomplete_tables),
        ("data", f"{data.folder}, fingerprint {data.fingerprint}"),
        ("seeds", ", ".join(map(str, seeds))),
    ]
    for each in results.evaluations:
        record, data_set = each.record, each.record.data
        text = (
            f"{_counts(each.results.ensemble)} of {data_set.folder}, fingerprint {data_set.fingerprint}; "
            f"{_orientations(record.tta)}, ensemble of {len(record.models)} folds, {record.started[:10]}"
            + (f"; {len(record.excluded)} images left out, as the training saw related ones" if record.excluded else "")
        )
        pairs.append((f"unseen: {each.title}", text))
    return pairs


def trained_images(data: TrainedData) -> str:
    """Count the images and lesions of a training, and say for how many images the lesion is not known."""
    unknown = f" (no table names the lesion of {data.lesions_unknown:,} images)" if data.lesions_unknown else ""
    return f"{data.images:,} images of {data.lesions:,} lesions{unknown}"


def metadata_fields(summary: RunSummary) -> tuple[str, ...]:
    """Return the metadata that the model takes; empty for a model of the image alone."""
    # A run without metadata has a MetadataUse too, for shortcuts, but no fields in it.
    return summary.metadata.fields if summary.metadata else ()


def _orientations(count: int) -> str:
    return f"mean over {count} orientations of each image" if count > 1 else "one orientation of each image"
