"""What metadata add to a model, and say without an image, for the report and the terminal."""

from __future__ import annotations

from typing import NamedTuple

from melanoma_dist.artifacts.metadata_use import MetadataUse, Shortcut, SourceAucs
from melanoma_dist.config.label_sets import label_name
from melanoma_dist.metrics.intervals import Interval, Undefined
from melanoma_dist.pages.numbers import number, signed, span
from melanoma_dist.pages.tables import Cell, Table, measured, plain, undefined

_NOTE = (
    "AUC of {label} out of fold, with intervals by DeLong's variance for clustered images. Without: the same model "
    "with every field unknown, as it answers where nothing is known. The last column is a logistic regression on the "
    "metadata alone, fitted on the other folds: what the image must add to."
)
_NOTE_OF_IMAGES = (
    "AUC of {label} by a logistic regression that sees no image, fitted on the other folds. A photograph may show "
    "where it was taken. A model that recognises it can reach as much without looking at the lesion."
)


class MetadataPart(NamedTuple):
    """A part of the page."""

    title: str
    warning: str
    note: str
    tables: list[Table]


def metadata_part(use: MetadataUse | None) -> MetadataPart | None:
    """Return the part of the page, None where nothing is known but the image."""
    if use is None:
        return None
    name = label_name(use.label)
    rows = [[plain(each.facts), _shortcut(each)] for each in use.shortcuts]
    facts = Table(f"Predicting {name} without the image", ["logistic regression on", "AUC"], rows)
    if not use.fields:
        return MetadataPart("Shortcuts", _warning(use), _NOTE_OF_IMAGES.format(label=name), [facts])
    header = ["", "positives of known", "with metadata", "without", "difference", "metadata alone"]
    sources = Table("With and without metadata, per source", header, [_source(each) for each in use.sources])
    return MetadataPart(f"Metadata: {', '.join(use.fields)}", _warning(use), _NOTE.format(label=name), [sources, facts])


def metadata_notes(use: MetadataUse | None) -> list[str]:
    """Return what the terminal says after a training."""
    if use is None:
        return []
    if not use.fields:
        return [*filter(None, [_warning(use)])]
    whole = use.sources[0]
    if isinstance(whole.informed, Undefined) or isinstance(whole.without, Undefined):
        return []
    change = _change(whole.difference)
    text = (
        f"metadata ({', '.join(use.fields)}): AUC of {label_name(use.label)} {number(whole.informed.estimate)} with, "
        f"{number(whole.without.estimate)} for the same images with all unknown ({change})"
    )
    return [text, *filter(None, [_warning(use)])]


def _warning(use: MetadataUse) -> str:
    """Say which facts predict the headline label without the image; empty if none does."""
    facts = [
        f"{each.facts} ({number(each.auc.estimate)})"
        for each in use.shortcuts
        if each.warns and isinstance(each.auc, Interval)
    ]
    if not facts:
        return ""
    text = f"Facts predict {label_name(use.label)} without any image, AUC: {'; '.join(facts)}. "
    if not use.fields:
        return f"{text}A model may recognise them in photographs: look at its metrics within each source and site."
    advice = (
        "A gain over all images may be the source, recognised by its metadata: look at the gain within each source."
    )
    return text + advice


def _source(entry: SourceAucs) -> list[Cell]:
    counts = plain(f"{entry.positives:,} of {entry.images:,}")
    aucs = _auc(entry.informed), _auc(entry.without), _difference(entry.difference), _auc(entry.alone)
    return [plain(entry.source), counts, *aucs]


def _auc(auc: Interval | Undefined) -> Cell:
    return undefined(auc.reason) if isinstance(auc, Undefined) else measured(auc.estimate, "", auc.low, auc.high)


def _difference(change: Interval | Undefined) -> Cell:
    if isinstance(change, Undefined):
        return undefined(change.reason)
    return Cell(signed(change.estimate), f"{signed(change.low)} to {signed(change.high)}")


def _change(change: Interval | Undefined) -> str:
    return "" if isinstance(change, Undefined) else str(_difference(change))


def _shortcut(entry: Shortcut) -> Cell:
    if isinstance(entry.auc, Undefined):
        return undefined(entry.auc.reason)
    text = span(entry.auc.low, entry.auc.high)
    return Cell(number(entry.auc.estimate), text, "flag" if entry.warns else "")
