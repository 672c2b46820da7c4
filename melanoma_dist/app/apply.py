"""The `segment apply` command: the mask of every image of a data set, by models that have not seen it.

Images are segmented in batches of a fixed order, first those of each fold by its model, then all others by the mean of
the models. A journal records each batch after its masks are on the disk, so an interrupted command resumes, and the
same batches give the same masks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from melanoma_dist import console
from melanoma_dist.artifacts.lesion_table import (
    ENSEMBLE,
    RECORD,
    LesionTable,
    lesion_row,
    read_lesions,
    write_lesions,
    write_mask,
)
from melanoma_dist.artifacts.segmenter_copy import keep_segmenter
from melanoma_dist.config.apply import ApplyConfig
from melanoma_dist.data.demo import open_dataset
from melanoma_dist.data.folds import read_folds
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.errors import ConfigError, DataError
from melanoma_dist.inference.ensemble import one_process
from melanoma_dist.inference.images import Images
from melanoma_dist.inference.lesion_masks import LEAST_AREA
from melanoma_dist.inference.segmenter import TrainedSegmenter, fingerprint, open_segmenter
from melanoma_dist.signals import mark_started
from melanoma_dist.storage.journal import Journal
from melanoma_dist.storage.locks import LOCK, lock_file
from melanoma_dist.train.fold_data import evaluation_batch
from melanoma_dist.train.region import LOW_QUALITY

_JOURNAL = "journal.jsonl"


@dataclass(frozen=True)
class _Share:
    """The images of one model."""

    fold: int | None
    """None: the mean of all models."""
    rows: npt.NDArray[np.int64]

    @property
    def model(self) -> str:
        return ENSEMBLE if self.fold is None else f"fold-{self.fold}"


def apply(settings: ApplyConfig) -> None:
    """Segment every image of the run's data set. Raises ConfigError or DataError before any image is read."""
    run = open_segmenter(settings.run, one_process(settings.gpus, settings.decode_threads))
    dataset = _own_dataset(settings, run)
    segmenter = fingerprint(run)
    if (settings.out / RECORD).is_file():
        table = read_lesions(settings.out, dataset)
        if table.record.segmenter != segmenter:
            rule = f"holds the lesions that another segmentation run found ({table.record.run})"
            raise ConfigError.of("out", settings.out, rule, "Name another folder.")
        keep_segmenter(run.folder.path, settings.out)  # a table of an earlier version has none
        console.info(f"{settings.out} is finished.")
        return _show(table)
    settings.out.mkdir(parents=True, exist_ok=True)
    busy = ConfigError.of("out", settings.out, "another command writes it", "Wait for it.")
    with lock_file(settings.out / LOCK, busy):
        mark_started()
        rows = _segment(settings, run, dataset, segmenter)
        keep_segmenter(run.folder.path, settings.out)
        folds = read_folds(run.folder.folds)
        table = write_lesions(settings.out, dataset, rows, folds, run.folder.path.name, segmenter)
        (settings.out / _JOURNAL).unlink()
    _show(table)


def _own_dataset(settings: ApplyConfig, run: TrainedSegmenter) -> Dataset:
    dataset = open_dataset(settings.data or run.config.data.data or "")
    if dataset.fingerprint != run.fingerprint:
        raise DataError(
            f"{dataset.folder}: has fingerprint {dataset.fingerprint[:12]}, but {run.folder.path} was trained on "
            f"{run.fingerprint[:12]}. Only the data set of a run says which images each fold has seen: prepare the "
            "images of both in one data set, and train the segmenter on that."
        )
    return dataset


def _shares(run: TrainedSegmenter, dataset: Dataset) -> list[_Share]:
    """Each fold's images and those of its groups, then all images whose group lies in no fold."""
    fold = dataset.manifest["group"].map(run.fold_of)
    shares = [_Share(number, np.flatnonzero(fold == number)) for number in range(run.config.data.folds)]
    return [share for share in [*shares, _Share(None, np.flatnonzero(fold.isna()))] if len(share.rows)]


def _segment(settings: ApplyConfig, run: TrainedSegmenter, dataset: Dataset, segmenter: str) -> pd.DataFrame:
    """Segment what the journal does not have; return the rows of all images."""
    size = settings.batch_size or evaluation_batch(run.config)
    shares = _shares(run, dataset)
    ends = list(accumulate(len(part) for share in shares for part in _batches(share.rows, size)))
    with (settings.out / _JOURNAL).open("a+b") as file:
        journal = Journal(file)
        request = {"segmenter": segmenter, "data": dataset.fingerprint, "batch_size": size}
        if journal.resume(request) and journal.finished:
            # A batch whose record was torn is segmented again, with the same neighbours.
            journal.cut(max((end for end in ends if end <= journal.finished), default=0))
            console.info(f"resume: {journal.finished} of {len(dataset.manifest)} images are segmented")
        rest = _remaining(shares, journal.finished)
        count = len(dataset.manifest)
        progress = console.progress(_rows(run, dataset, settings.out, rest, size, journal), count, "segmenting")
        for _ in progress:
            pass
        return pd.DataFrame(list(journal.records()))


def _batches(rows: npt.NDArray[np.int64], size: int) -> Iterator[npt.NDArray[np.int64]]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _remaining(shares: list[_Share], finished: int) -> Iterator[_Share]:
    for share in shares:
        rows, finished = share.rows[finished:], max(0, finished - len(share.rows))
        if len(rows):
            yield _Share(share.fold, rows)


def _rows(
    run: TrainedSegmenter, dataset: Dataset, out: Path, shares: Iterator[_Share], size: int, journal: Journal
) -> Iterator[dict[str, Any]]:
    """Write the masks of images, then record them; yield their rows."""
    images = dataset.manifest[["image_id", "height", "width"]]
    for share in shares:
        loader = run.loader(Images(dataset, share.rows), size)
        for pixels, batch in loader:
            own = images.iloc[share.rows[batch.samples[: batch.count]]]
            sizes = list(zip(own["width"].tolist(), own["height"].tolist(), strict=True))
            rows = []
            for name, (mask, quality) in zip(own["image_id"], run.masks(pixels, sizes, share.fold), strict=True):
                write_mask(out, name, mask)
                rows.append(lesion_row(name, share.model, mask, quality, LEAST_AREA))
            journal.add(rows)
            yield from rows


def _show(table: LesionTable) -> None:
    rows = table.rows
    doubtful = int((rows["detected"] & (rows["quality"] < LOW_QUALITY)).sum())
    by_fold = int(rows["model"].ne(ENSEMBLE).sum())
    console.info(
        f"{table.record.detected} of {len(rows)} images show a lesion; {doubtful} masks are doubtful (quality below "
        f"{LOW_QUALITY}). {by_fold} images have their mask from the one fold that did not train on their group, "
        f"{len(rows) - by_fold} from the mean of all folds, none of which trained on it."
    )
    console.places({"lesions": table.folder})
