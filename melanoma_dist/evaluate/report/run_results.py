"""What a report is written from: the results of a finished run and of its evaluations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import TemplateError

from melanoma_dist.artifacts.epochs import EpochRecord, read_epochs
from melanoma_dist.artifacts.legacy import former
from melanoma_dist.artifacts.predictions import read_predictions
from melanoma_dist.data.folds import HEADLINE
from melanoma_dist.errors import DataError, MelanomaDistError
from melanoma_dist.evaluate.report.cells import EARLIER, is_certain
from melanoma_dist.metrics.bootstrap import PROPORTIONS
from melanoma_dist.storage.untrusted import parse_json, read_text

GALLERY = "gallery"
"""The folder of a run with the pictures of its report."""
OUT_OF_FOLD = "out of fold"


@dataclass(frozen=True)
class Evaluation:
    """A finished evaluation of images that no fold has seen."""

    record: dict[str, Any]
    """``evaluation.json``."""
    table: pd.DataFrame
    """The ensemble's predictions."""

    @property
    def ordinal(self) -> int:
        """Counts evaluations of any of these images, from 1: a second one is no longer unbiased."""
        return len(self.record["earlier"]) + 1

    @property
    def evaluated_before(self) -> int:
        """Number of images that were evaluated before; older records compared the whole set."""
        images = int(self.record["data"]["images"])
        return int(self.record.get("seen_before", images if self.record["earlier"] else 0))

    @property
    def name(self) -> str:
        """The holdout or data set."""
        return str(self.record["what"])

    @property
    def title(self) -> str:
        """Its name and number; ``repeated`` if any of its images were evaluated before."""
        repeated = ", repeated" if self.ordinal > 1 else ""
        return f"{self.name} (evaluation {self.record['number']}{repeated})"


@dataclass(frozen=True)
class RunResults:
    """The results of a run."""

    folder: Path
    summary: dict[str, Any]
    table: pd.DataFrame
    """Out-of-fold predictions."""
    histories: dict[str, list[EpochRecord]]
    """The epochs of each training, by the name of its folder."""
    config: str
    """``config.yaml`` as it is."""
    record: dict[str, Any]
    """``record.json``."""
    evaluations: tuple[Evaluation, ...]
    """By number."""
    gallery: dict[str, Any] | None
    """``gallery.json``; None where no pictures were prepared."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that the model predicts."""
        return tuple(self.summary["labels"])

    @property
    def synthetic(self) -> bool:
        """Whether the program drew any of the images."""
        return bool(self.summary["synthetic"]) or any(each.record["synthetic"] for each in self.evaluations)

    def leading(self) -> Evaluation | None:
        """Return the evaluation that heads the report: the least repeated one, then the first.

        One that does not define the headline AUC comes last.
        """

        def order(each: Evaluation) -> tuple[bool, int, int]:
            auc = headline(each.record["ensemble"])
            return auc is None or auc["estimate"] is None, each.ordinal, int(each.record["number"])

        return min(self.evaluations, key=order, default=None)


def headline(assessment: dict[str, Any]) -> dict[str, Any] | None:
    """Return the AUC of melanoma per image (``estimate``, ``low``, ``high``); None without that label."""
    row = assessment["intervals"]["by_image"].get(HEADLINE)
    return None if row is None else dict(row["auc"])


def read_run_results(folder: Path, summary: dict[str, Any] | None = None) -> RunResults:
    """Read a run. ``summary`` is that of a run whose last file is not written yet.

    Raises DataError for a run that is not finished, and for files that cannot be read or are damaged.
    """
    if summary is None and not (folder / "summary.json").is_file():
        raise DataError(f"{folder}: holds no finished run (there is no summary.json). Train it to its end first.")
    with convert_errors(folder):
        return _read(folder, summary)


@contextmanager
def convert_errors(folder: Path) -> Iterator[None]:
    """Convert errors from malformed run files to DataError."""
    try:
        yield
    except MelanomaDistError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TemplateError, TypeError, ValueError) as error:
        raise DataError(
            f"{folder}: its files lack what a report needs ({type(error).__name__}: {error}): edited, or of another "
            "version. Restore them, or delete summary.json and run the run's own command again."
        ) from error


def _read(folder: Path, summary: dict[str, Any] | None) -> RunResults:
    looks = {path.parent: _json(path) for path in sorted(folder.glob("evaluations/*/evaluation.json"))}
    evaluations = [_evaluation(place, record) for place, record in looks.items() if record.get("finished")]
    gallery = folder / GALLERY / "gallery.json"
    return RunResults(
        folder,
        _summary(folder / "summary.json") if summary is None else summary,
        read_predictions(folder / "predictions.parquet"),
        _histories(folder),
        _text(folder / "config.yaml"),
        _json(folder / "record.json"),
        tuple(sorted(evaluations, key=lambda each: int(each.record["number"]))),
        _json(gallery) if gallery.is_file() else None,
    )


def _evaluation(folder: Path, record: dict[str, Any]) -> Evaluation:
    again = f"{EARLIER}; evaluate again"
    for points in record["operating_points"].values():
        for point in points if isinstance(points, list) else []:
            _doubt(point.get("judged", {}), again)
    for found in record["subgroups"]:
        _doubt(found, again)
    return Evaluation(record, read_predictions(folder / "predictions.parquet"))


def _doubt(figures: dict[str, Any], why: str) -> None:
    """Replace shares that are told as certain, which only an earlier version did."""
    for name in PROPORTIONS:
        found = figures.get(name, {})
        if is_certain(found.get("estimate"), found.get("low"), found.get("high")):
            figures[name] = {"not_defined": why}


def _summary(path: Path) -> dict[str, Any]:
    summary, again = _json(path), "Delete it, and give the run's own command again: it computes the figures anew."
    labels = summary.get("labels")
    if not isinstance(labels, list) or not labels or not all(isinstance(label, str) for label in labels):
        raise DataError(f"{path}: is damaged (labels must be a list of names, not {labels!r}). {again}")
    for found in summary["subgroups"]:
        _doubt(found, f"{EARLIER}; delete summary.json and give the run's command again")
    return summary


def _histories(folder: Path) -> dict[str, list[EpochRecord]]:
    """By fold, those of other seeds after them."""
    found = [*folder.glob("fold-*/metrics.jsonl"), *folder.glob("seed-*/fold-*/metrics.jsonl")]
    places = {path.parent.relative_to(folder).as_posix().replace("-", " ").replace("/", ", "): path for path in found}
    order = sorted(places, key=lambda name: (name.count(","), len(name), name))  # fold 2 before fold 10
    return {name: read_epochs(places[name].parent) for name in order}


def _text(path: Path) -> str:
    try:
        return read_text(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}), and a report is not written without it.") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(former(path, parse_json(_text(path))))
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: is damaged ({error}), and a report is not written without it.") from error
