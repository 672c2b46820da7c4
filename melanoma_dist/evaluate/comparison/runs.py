"""Read the runs of a comparison from their folders, and refuse those that cannot be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from melanoma_dist.artifacts.evaluation import EvaluationRecord
from melanoma_dist.artifacts.integrity import check_untouched
from melanoma_dist.artifacts.predictions import arrays
from melanoma_dist.artifacts.run_folder import RunFolder
from melanoma_dist.artifacts.run_record import RECORD
from melanoma_dist.artifacts.summary import REFINALIZE, RunSummary, read_summary
from melanoma_dist.config.label_sets import LabelSet
from melanoma_dist.data.folds import read_folds
from melanoma_dist.data.labels import TRUE
from melanoma_dist.errors import DataError, MelanomaDistError
from melanoma_dist.evaluate.comparison.consistency import require_own_identity, require_recorded_metrics
from melanoma_dist.metrics.classification import check_probabilities
from melanoma_dist.storage.parquet import read_parquet

_SAME = "Runs are comparable where --seed, --folds, --labels and the data are the same."
_KEYS = ["image_id", "group", "fold"]


@dataclass(frozen=True)
class ComparedRun:
    """A finished run and the predictions to compare."""

    folder: Path
    name: str
    """Shown in sentences and tables: the backbone, or the folder's name where two runs have the same backbone."""
    summary: RunSummary
    table: pd.DataFrame
    """One prediction per image, sorted by image id."""
    thresholds: tuple[float, ...]
    """The probability at and above which an image is called positive, for each label."""
    evaluation: EvaluationRecord | None = None
    """The record of the evaluation that wrote the predictions; None for out-of-fold predictions."""

    @property
    def labels(self) -> LabelSet:
        """The predicted labels, and the one that leads."""
        return self.summary.label_set

    @property
    def groups(self) -> str:
        """The word for the groups of images: lesions or patients."""
        results = None if self.evaluation is None else self.evaluation.results
        return (results.ensemble if results else self.summary.out_of_fold).groups


def read_out_of_fold_runs(folders: Sequence[Path]) -> list[ComparedRun]:
    """Read runs with their out-of-fold predictions: the same images in the same folds with the same truth.

    Raises DataError for a run that is not finished or corrupt, and for two runs that cannot be compared.
    """
    summaries = read_summaries(folders)
    require_same_labels(folders, summaries)
    _require_same_data(folders, summaries)
    folds = [_folds(RunFolder(folder, {}).folds) for folder in folders]
    for folder, other, summary in zip(folders[1:], folds[1:], summaries[1:], strict=True):
        _require_same_folds((folders[0], folder), (folds[0], other), (summaries[0], summary))
    runs = []
    for folder, name, summary, own_folds in zip(folders, names_of(folders, summaries), summaries, folds, strict=True):
        table = read_table(RunFolder(folder, {}).predictions, summary.labels, REFINALIZE)
        if not table[_KEYS].astype(str).equals(own_folds[_KEYS].astype(str)):
            raise DataError(f"{folder}: the predictions and the folds are not of the same images. {REFINALIZE}")
        _require_recorded(RunFolder(folder, {}), table, summary)
        runs.append(ComparedRun(folder, name, summary, table, (summary.threshold,) * len(summary.labels)))
    require_same_truth(runs)
    return runs


def _folds(path: Path) -> pd.DataFrame:
    return _sorted(read_folds(path), path, _KEYS, "Bring the file back.")


def read_summaries(folders: Sequence[Path]) -> list[RunSummary]:
    """Read the summaries of finished runs. Raises DataError for a folder without one."""
    return [_read_summary(folder) for folder in folders]


def _read_summary(folder: Path) -> RunSummary:
    if not folder.is_dir():
        problem = "this is a file and not a folder" if folder.exists() else "there is no such folder"
        raise DataError(f"compare: {folder}: {problem}. Name the folder of a finished run.")
    run = RunFolder(folder, {})
    if not run.finished():
        is_run = (folder / RECORD).is_file()
        problem = "the run is not finished" if is_run else "this is not a run"
        remedy = " Re-run its command to resume it." if is_run else ""
        raise DataError(f"compare: {folder}: {problem} (it has no {run.summary.name}).{remedy}")
    summary = read_summary(folder)
    require_own_identity(folder, summary)
    return summary


def _require_recorded(run: RunFolder, table: pd.DataFrame, summary: RunSummary) -> None:
    """Raise DataError unless the predictions have the summary's metrics, pooled and in each fold, and its hash."""
    path, labels, source = run.predictions, summary.labels, run.summary.name
    pooled = summary.out_of_fold.by_image
    require_recorded_metrics(path, table, labels, pooled, f"{source}, out of fold", REFINALIZE)
    rows = {int(str(fold)): part for fold, part in table.groupby("fold")}
    if rows.keys() != summary.folds.keys():
        actual, expected = (", ".join(map(str, sorted(each))) for each in (rows, summary.folds))
        raise DataError(f"compare: {run.summary}: folds are {expected}, and {path.name} has {actual}. {REFINALIZE}")
    for fold, part in rows.items():
        require_recorded_metrics(path, part, labels, summary.folds[fold], f"{source}, fold {fold}", REFINALIZE)
    # The hash comes last: a changed metric says more than a changed file.
    check_untouched(run.summary, summary.files, run.hashed, REFINALIZE)


def names(folders: Sequence[Path], backbones: Sequence[str]) -> list[str]:
    """A unique name for each run: backbone, folder's name or whole path, the first of them that is unique."""
    choices = (
        list(backbones),
        [folder.resolve().name for folder in folders],
        [str(folder) for folder in folders],
    )
    return next((choice for choice in choices if len(set(choice)) == len(choice)), choices[-1])


def names_of(folders: Sequence[Path], summaries: Sequence[RunSummary]) -> list[str]:
    """A unique name for each run of a classifier."""
    return names(folders, [summary.backbone for summary in summaries])


def read_table(path: Path, labels: tuple[str, ...], remedy: str) -> pd.DataFrame:
    """Read predictions, sorted by image id. Raises DataError, with the remedy, for anything but probabilities."""
    try:
        content = read_parquet(path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: the predictions are missing. {remedy}") from error
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path}: the predictions cannot be read ({reason}). {remedy}") from error
    table = _sorted(content, path, [*_KEYS, *labels, *(label + TRUE for label in labels)], remedy)
    try:
        truth, probability = arrays(table, labels)
        check_probabilities(probability)
    except (MelanomaDistError, ValueError, TypeError) as error:
        raise DataError(f"{path}: {str(error).rstrip('.')}. {remedy}") from error
    if not (np.isnan(truth) | (truth == 0) | (truth == 1)).all():
        raise DataError(f"{path}: the truth must be 1, 0 or unknown (NaN), and holds other values. {remedy}")
    return table


def _sorted(table: pd.DataFrame, path: Path, columns: list[str], remedy: str) -> pd.DataFrame:
    missing = [column for column in columns if column not in table]
    if missing:
        raise DataError(f"{path}: the table has no column {', '.join(missing)}. {remedy}")
    if table.empty or table["image_id"].duplicated().any():
        problem = "is empty" if table.empty else "has an image twice"
        raise DataError(f"{path}: the table {problem}. {remedy}")
    return table.sort_values("image_id", ignore_index=True)


def require_same_labels(folders: Sequence[Path], summaries: Sequence[RunSummary]) -> None:
    """Raise DataError unless all runs predict the same labels, led by the same one."""
    for folder, summary in zip(folders[1:], summaries[1:], strict=True):
        if summary.labels != summaries[0].labels:
            first, second = (" ".join(each.labels) for each in (summaries[0], summary))
            raise DataError(
                f"compare: {folders[0]} predicts {first}, {folder} predicts {second}. Train with the same --labels."
            )
        if summary.headline != summaries[0].headline:
            raise DataError(
                f"compare: {folders[0]} is led by the {summaries[0].headline}, {folder} by the {summary.headline}. "
                "Train with the same --headline."
            )


def _require_same_data(folders: Sequence[Path], summaries: Sequence[RunSummary]) -> None:
    for folder, summary in zip(folders[1:], summaries[1:], strict=True):
        first, second = (each.data.fingerprint for each in (summaries[0], summary))
        if first != second:
            raise DataError(
                f"compare: {folders[0]} and {folder} were trained on different data (fingerprints {first[:12]} and "
                f"{second[:12]}). {_SAME}"
            )


def _require_same_folds(
    folders: tuple[Path, Path], folds: tuple[pd.DataFrame, pd.DataFrame], summaries: tuple[RunSummary, RunSummary]
) -> None:
    first, second = (table.set_index("image_id") for table in folds)
    common = first.index.intersection(second.index)
    alone = len(first) + len(second) - 2 * len(common)
    moved = int((first.loc[common, ["group", "fold"]] != second.loc[common, ["group", "fold"]]).any(axis=1).sum())
    if not alone and not moved:
        return
    problems = [f"{moved} of {len(common)} images lie in different folds"] if moved else []
    problems += [f"{alone} images are in the folds of only one run"] if alone else []
    fields = ("seed", "data.folds", "data.labels")
    values = [(field, *(summary.identity.get(field) for summary in summaries)) for field in fields]
    causes = ", ".join(f"{field} {one} and {two}" for field, one, two in values if one != two)
    raise DataError(
        f"compare: {folders[0]} and {folders[1]}: {' and '.join(problems)}, so the folds change their metrics too"
        + (f" ({causes})" if causes else "")
        + f". {_SAME}"
    )


def require_same_truth(runs: Sequence[ComparedRun], remedy: str = REFINALIZE) -> None:
    """Raise DataError unless the tables have the same images, groups and truth."""
    first = runs[0]
    truth = arrays(first.table, first.labels)[0]
    for other in runs[1:]:
        if not np.array_equal(first.table["image_id"].to_numpy(), other.table["image_id"].to_numpy()):
            raise DataError(f"compare: {first.folder} and {other.folder} predict different images. {_SAME}")
        other_truth = arrays(other.table, other.labels)[0]
        differ = ((truth != other_truth) & ~(np.isnan(truth) & np.isnan(other_truth))).any(axis=1)
        differ |= first.table["group"].to_numpy() != other.table["group"].to_numpy()
        if differ.any():
            example = first.table["image_id"][int(np.argmax(differ))]
            raise DataError(
                f"compare: {first.folder} and {other.folder} disagree on the truth or the lesion of "
                f"{int(differ.sum())} of {len(differ)} images, such as {example}: "
                f"one of the tables was changed. {remedy}"
            )
