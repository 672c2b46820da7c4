"""The runs of a comparison, read from their folders, and the refusal of those that cannot be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from melanoma_dist.artifacts.predictions import arrays
from melanoma_dist.artifacts.run_folder import CONCLUDE_AGAIN, RunFolder, check_untouched
from melanoma_dist.data.folds import read_folds
from melanoma_dist.data.labels import TRUE
from melanoma_dist.errors import DataError, MelanomaDistError
from melanoma_dist.evaluate.comparison.consistency import require_own_identity, require_told_figures
from melanoma_dist.evaluate.comparison.schema import SUMMARY, read_object, require_fields
from melanoma_dist.metrics.classification import check_probabilities
from melanoma_dist.storage.parquet import read_parquet

_SAME = "Runs are comparable where --seed, --folds, --labels and the data are the same."
_KEYS = ["image_id", "group", "fold"]


@dataclass(frozen=True)
class ComparedRun:
    """A finished run with the predictions that are compared."""

    folder: Path
    name: str
    """In sentences and tables: the backbone, or the folder's name where two runs have the same backbone."""
    summary: dict[str, Any]
    table: pd.DataFrame
    """One prediction per image, sorted by image id."""
    thresholds: tuple[float, ...]
    """Probability from which each label is called."""
    evaluation: dict[str, Any] | None = None
    """The record of the evaluation that made the predictions; None for out-of-fold predictions."""

    @property
    def labels(self) -> tuple[str, ...]:
        """What is predicted."""
        return tuple(self.summary["labels"])


def out_of_fold_contenders(folders: Sequence[Path]) -> list[ComparedRun]:
    """Runs with their out-of-fold predictions, proven to be of the same images in the same folds with the same truth.

    Raises DataError for one that is not finished or damaged, and where two of them cannot be compared.
    """
    summaries = read_summaries(folders)
    require_same_labels(folders, summaries)
    _require_same_data(folders, summaries)
    folds = [_folds(RunFolder(folder, {}).folds) for folder in folders]
    for folder, other, summary in zip(folders[1:], folds[1:], summaries[1:], strict=True):
        _require_same_folds((folders[0], folder), (folds[0], other), (summaries[0], summary))
    contenders = []
    for folder, name, summary, mine in zip(folders, names(folders, summaries), summaries, folds, strict=True):
        labels = tuple(summary["labels"])
        table = read_table(RunFolder(folder, {}).predictions, labels, CONCLUDE_AGAIN)
        if not table[_KEYS].astype(str).equals(mine[_KEYS].astype(str)):
            raise DataError(f"{folder}: its predictions are not one of each image of its folds. {CONCLUDE_AGAIN}")
        _require_told(RunFolder(folder, {}), table, summary)
        contenders.append(ComparedRun(folder, name, summary, table, (float(summary["threshold"]),) * len(labels)))
    require_same_truth(contenders)
    return contenders


def _folds(path: Path) -> pd.DataFrame:
    return _sorted(read_folds(path), path, _KEYS, "Bring the file back.")


def read_summaries(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """What finished runs say of themselves. Raises DataError for a folder that holds none."""
    return [_read_summary(folder) for folder in folders]


def _read_summary(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        what = "this is a file, and no folder" if folder.exists() else "there is no such folder"
        raise DataError(f"compare: {folder}: {what}. Give the folder of a finished run.")
    run = RunFolder(folder, {})
    if not run.finished():
        what = "the run is not finished" if (folder / "record.json").is_file() else "this is no run"
        remedy = " The command that began it goes on with it." if (folder / "record.json").is_file() else ""
        raise DataError(f"compare: {folder}: {what} (it has no {run.summary.name}).{remedy}")
    summary = read_object(run.summary, CONCLUDE_AGAIN)
    require_fields(run.summary, summary, SUMMARY, CONCLUDE_AGAIN)
    require_own_identity(folder, summary, CONCLUDE_AGAIN)
    return summary


def _require_told(run: RunFolder, table: pd.DataFrame, summary: dict[str, Any]) -> None:
    """Raise DataError unless the predictions are the summary's: its figures, pooled and in each fold, and its hash."""
    path, labels = run.predictions, summary["labels"]
    told = summary["out_of_fold"]["by_image"]
    require_told_figures(path, table, labels, told, f"{run.summary.name}, out of fold", CONCLUDE_AGAIN)
    rows = {str(fold): part for fold, part in table.groupby("fold")}
    if rows.keys() != summary["folds"].keys():
        found, wanted = (", ".join(sorted(each)) for each in (rows, summary["folds"]))
        raise DataError(f"compare: {run.summary}: folds are {wanted}, and {path.name} has {found}. {CONCLUDE_AGAIN}")
    for fold, part in rows.items():
        told = summary["folds"][fold]
        require_told_figures(path, part, labels, told, f"{run.summary.name}, fold {fold}", CONCLUDE_AGAIN)
    # Last: what differs is told by its figures where it moves them.
    check_untouched(run.summary, summary.get("files"), run.concluded, CONCLUDE_AGAIN)


def names(folders: Sequence[Path], summaries: Sequence[dict[str, Any]]) -> list[str]:
    """A name for each run that no other has: backbone, folder's name, or whole path, the shortest that tells apart."""
    choices = (
        [str(summary["backbone"]) for summary in summaries],
        [folder.resolve().name for folder in folders],
        [str(folder) for folder in folders],
    )
    return next((choice for choice in choices if len(set(choice)) == len(choice)), choices[-1])


def read_table(path: Path, labels: tuple[str, ...], remedy: str) -> pd.DataFrame:
    """Predictions sorted by image id. Raises DataError, with the remedy, for what is no table of probabilities."""
    try:
        read = read_parquet(path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: the predictions are missing. {remedy}") from error
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path}: the predictions cannot be read ({reason}). {remedy}") from error
    table = _sorted(read, path, [*_KEYS, *labels, *(label + TRUE for label in labels)], remedy)
    try:
        truth, probability = arrays(table, labels)
        check_probabilities(probability)
    except (MelanomaDistError, ValueError, TypeError) as error:
        raise DataError(f"{path}: {str(error).rstrip('.')}. {remedy}") from error
    if not (np.isnan(truth) | (truth == 0) | (truth == 1)).all():
        raise DataError(f"{path}: the truth must be 1, 0 or unknown (NaN), and holds something else. {remedy}")
    return table


def _sorted(table: pd.DataFrame, path: Path, columns: list[str], remedy: str) -> pd.DataFrame:
    missing = [column for column in columns if column not in table]
    if missing:
        raise DataError(f"{path}: the table has no column {', '.join(missing)}. {remedy}")
    if table.empty or table["image_id"].duplicated().any():
        what = "is empty" if table.empty else "has an image twice"
        raise DataError(f"{path}: the table {what}. {remedy}")
    return table.sort_values("image_id", ignore_index=True)


def require_same_labels(folders: Sequence[Path], summaries: Sequence[dict[str, Any]]) -> None:
    """Raise DataError unless all runs predict the same labels."""
    for folder, summary in zip(folders[1:], summaries[1:], strict=True):
        if summary["labels"] != summaries[0]["labels"]:
            first, second = (" ".join(each["labels"]) for each in (summaries[0], summary))
            raise DataError(
                f"compare: {folders[0]} predicts {first}, {folder} predicts {second}. Train with the same --labels."
            )


def _require_same_data(folders: Sequence[Path], summaries: Sequence[dict[str, Any]]) -> None:
    for folder, summary in zip(folders[1:], summaries[1:], strict=True):
        first, second = (str(each["data"]["fingerprint"]) for each in (summaries[0], summary))
        if first != second:
            raise DataError(
                f"compare: {folders[0]} and {folder} were trained on other data (fingerprints {first[:12]} and "
                f"{second[:12]}). {_SAME}"
            )


def _require_same_folds(
    folders: tuple[Path, Path], folds: tuple[pd.DataFrame, pd.DataFrame], summaries: tuple[dict[str, Any], ...]
) -> None:
    first, second = (table.set_index("image_id") for table in folds)
    common = first.index.intersection(second.index)
    alone = len(first) + len(second) - 2 * len(common)
    moved = int((first.loc[common, ["group", "fold"]] != second.loc[common, ["group", "fold"]]).any(axis=1).sum())
    if not alone and not moved:
        return
    told = [f"{moved} of {len(common)} images lie in other folds"] if moved else []
    told += [f"{alone} images are in the folds of one alone"] if alone else []
    fields = ("seed", "data.folds", "data.labels")
    values = [(field, *(summary["identity"].get(field) for summary in summaries)) for field in fields]
    causes = ", ".join(f"{field} {one} and {two}" for field, one, two in values if one != two)
    raise DataError(
        f"compare: {folders[0]} and {folders[1]}: {' and '.join(told)}, so that their figures differ by the folds too"
        + (f" ({causes})" if causes else "")
        + f". {_SAME}"
    )


def require_same_truth(contenders: Sequence[ComparedRun], remedy: str = CONCLUDE_AGAIN) -> None:
    """Raise DataError unless the tables, of the same images, have the same groups and truth."""
    first = contenders[0]
    truth = arrays(first.table, first.labels)[0]
    for other in contenders[1:]:
        if not np.array_equal(first.table["image_id"].to_numpy(), other.table["image_id"].to_numpy()):
            raise DataError(f"compare: {first.folder} and {other.folder} predict other images. {_SAME}")
        theirs = arrays(other.table, other.labels)[0]
        differ = ((truth != theirs) & ~(np.isnan(truth) & np.isnan(theirs))).any(axis=1)
        differ |= first.table["group"].to_numpy() != other.table["group"].to_numpy()
        if differ.any():
            example = first.table["image_id"][int(np.argmax(differ))]
            raise DataError(
                f"compare: {first.folder} and {other.folder} disagree on the truth or the lesion of "
                f"{int(differ.sum())} of {len(differ)} images, such as {example}: "
                f"one of the tables was changed. {remedy}"
            )
