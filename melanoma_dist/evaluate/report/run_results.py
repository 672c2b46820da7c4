"""Read what a report shows: the results of a finished run and of its evaluations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from melanoma_dist.artifacts.assessment import Assessment
from melanoma_dist.artifacts.epochs import EpochRecord, read_epochs
from melanoma_dist.artifacts.evaluation import EVALUATION, EvaluationRecord, EvaluationResults, read_evaluation
from melanoma_dist.artifacts.gallery import Gallery, read_gallery
from melanoma_dist.artifacts.predictions import read_predictions
from melanoma_dist.artifacts.run_record import RECORD, RunRecord, read_run_record
from melanoma_dist.artifacts.summary import RunSummary, read_summary
from melanoma_dist.config.run import RunConfig
from melanoma_dist.config.saved import saved_config
from melanoma_dist.errors import DataError
from melanoma_dist.metrics.intervals import MetricInterval
from melanoma_dist.storage.untrusted import read_text

OUT_OF_FOLD = "out of fold"


@dataclass(frozen=True)
class Evaluation:
    """A finished evaluation of images that no fold has seen."""

    record: EvaluationRecord
    results: EvaluationResults
    table: pd.DataFrame
    """The ensemble's predictions."""

    @property
    def title(self) -> str:
        """Its name and number; ``repeated`` if any of its images were evaluated before."""
        repeated = ", repeated" if self.record.ordinal > 1 else ""
        return f"{self.record.name} (evaluation {self.record.number}{repeated})"


@dataclass(frozen=True)
class RunResults:
    """The results of a run."""

    folder: Path
    summary: RunSummary
    table: pd.DataFrame
    """Out-of-fold predictions."""
    config: RunConfig
    config_text: str
    """``config.yaml``."""
    record: RunRecord
    histories: dict[str, list[EpochRecord]]
    """The epochs of each training, by the name of its folder."""
    evaluations: tuple[Evaluation, ...]
    """By number."""
    gallery: Gallery | None
    """None if the run stored no pictures."""

    @property
    def synthetic(self) -> bool:
        """Whether the program drew any of the images."""
        return self.summary.synthetic or any(each.record.synthetic for each in self.evaluations)

    @property
    def label(self) -> str:
        """The headline label."""
        return self.summary.label_set.headline

    def stated_prevalences(self, label: str) -> set[float]:
        """Return the prevalences that evaluations state for a label; they state the headline label's alone."""
        stated = {each.results.prevalence for each in self.evaluations if label == self.label}
        return {share for share in stated if share is not None}

    def leading(self) -> Evaluation | None:
        """Return the evaluation that heads the report: the least repeated one, then the first.

        One that does not define the headline AUC comes last.
        """

        def order(each: Evaluation) -> tuple[bool, int, int]:
            auc = headline(each.results.ensemble, self.label)
            return auc is None or auc.estimate is None, each.record.ordinal, each.record.number

        return min(self.evaluations, key=order, default=None)


def headline(assessment: Assessment, label: str) -> MetricInterval | None:
    """Return the AUC of the headline label per image with its interval; None without that label."""
    row = assessment.by_image.intervals.get(label)
    return None if row is None else row.auc


def read_run_results(folder: Path) -> RunResults:
    """Read the results of a finished run.

    Raises DataError for a run that is not finished and for corrupt files, ConfigError for a corrupt config.yaml.
    """
    if not (folder / "summary.json").is_file():
        raise DataError(f"{folder}: holds no finished run (there is no summary.json). Train it to its end first.")
    return with_files(folder, read_summary(folder), read_predictions(folder / "predictions.parquet"))


def with_files(folder: Path, summary: RunSummary, table: pd.DataFrame) -> RunResults:
    """Add to a summary and its out-of-fold predictions what other commands left in the folder of the run."""
    config = folder / "config.yaml"
    try:
        text = read_text(config)
    except (OSError, ValueError) as error:
        raise DataError(f"{config}: cannot be read ({error}), and a report is not written without it.") from error
    return RunResults(
        folder,
        summary,
        table,
        saved_config(config),
        text,
        read_run_record(folder / RECORD),
        _histories(folder),
        _evaluations(folder),
        read_gallery(folder),
    )


def _evaluations(folder: Path) -> tuple[Evaluation, ...]:
    evaluations = []
    for path in sorted(folder.glob(f"evaluations/*/{EVALUATION}")):
        record = read_evaluation(path.parent)
        if record.results is not None:  # an interrupted one has none
            table = read_predictions(path.parent / "predictions.parquet")
            evaluations.append(Evaluation(record, record.results, table))
    return tuple(sorted(evaluations, key=lambda each: each.record.number))


def _histories(folder: Path) -> dict[str, list[EpochRecord]]:
    """By fold, those of other seeds after them."""
    files = [*folder.glob("fold-*/metrics.jsonl"), *folder.glob("seed-*/fold-*/metrics.jsonl")]
    places = {path.parent.relative_to(folder).as_posix().replace("-", " ").replace("/", ", "): path for path in files}
    order = sorted(places, key=lambda name: (name.count(","), len(name), name))  # fold 2 before fold 10
    return {name: read_epochs(places[name].parent) for name in order}
