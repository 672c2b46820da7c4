"""The `segment apply` command: the mask of every image of a data set, by models that have not seen it.

Images are segmented in batches of a fixed order, first those of each fold by its model, then all others by the mean of
the models. A journal records each batch after its masks are on the disk, so an interrupted command resumes. The same
batches give the same masks, on any number of GPUs.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import numpy as np
import pandas as pd
import torch

from melanoma_dist import console
from melanoma_dist.app.mask_workers import Batch, MaskWriter, Rows, written_masks
from melanoma_dist.artifacts.lesion_table import ENSEMBLE, RECORD, LesionTable, read_lesions, write_lesions
from melanoma_dist.artifacts.segmenter_copy import keep_segmenter
from melanoma_dist.config.apply import ApplyConfig
from melanoma_dist.config.rules import check
from melanoma_dist.data.demo import open_dataset
from melanoma_dist.data.folds import read_folds
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.errors import ConfigError, DataError
from melanoma_dist.inference.ensemble import one_process
from melanoma_dist.inference.segmenter import TrainedSegmenter, fingerprint, open_segmenter
from melanoma_dist.signals import mark_started
from melanoma_dist.storage.journal import Journal
from melanoma_dist.storage.locks import LOCK, lock_file
from melanoma_dist.train.fold_data import evaluation_batch
from melanoma_dist.train.region import LOW_QUALITY
from melanoma_dist.world import World

_JOURNAL = "journal.jsonl"


def apply(settings: ApplyConfig) -> None:
    """Segment every image of the run's data set. Raises ConfigError or DataError before any image is read."""
    worlds = _worlds(settings)
    run = open_segmenter(settings.run, worlds[0])
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
    names = {path.name for path in settings.out.iterdir()} - {LOCK}
    check(settings, "out", not names or _JOURNAL in names, "holds other files; name a new folder")
    busy = ConfigError.of("out", settings.out, "another command writes it", "Wait for it.")
    with lock_file(settings.out / LOCK, busy):
        mark_started()
        rows = _segment(settings, run, dataset, segmenter, worlds)
        keep_segmenter(run.folder.path, settings.out)
        folds = read_folds(run.folder.folds)
        table = write_lesions(settings.out, dataset, rows, folds, run.folder.path.name, segmenter)
        (settings.out / _JOURNAL).unlink()
    _show(table)


def _worlds(settings: ApplyConfig) -> list[World]:
    """The GPUs, with their shares of the CPU cores, or the CPU."""
    first = one_process(settings.gpus, settings.decode_threads)
    count = settings.gpus or 1
    if count == 1:
        return [first]
    there = torch.cuda.device_count()
    check(settings, "gpus", count <= there, f"must be at most the {there} of this machine")
    threads = settings.decode_threads or max(1, first.threads // count)
    return [World(gpu=gpu, threads=threads) for gpu in range(count)]


def _own_dataset(settings: ApplyConfig, run: TrainedSegmenter) -> Dataset:
    dataset = open_dataset(settings.data or run.config.data.data or "")
    if dataset.fingerprint != run.fingerprint:
        raise DataError(
            f"{dataset.folder}: has fingerprint {dataset.fingerprint[:12]}, but {run.folder.path} was trained on "
            f"{run.fingerprint[:12]}. Only the data set of a run says which images each fold has seen: prepare the "
            "images of both in one data set, and train the segmenter on that."
        )
    return dataset


def _batches(run: TrainedSegmenter, dataset: Dataset, size: int) -> Iterator[Batch]:
    """Each fold's images and those of its groups, then all images whose group lies in no fold."""
    fold_of_image = dataset.manifest["group"].map(run.fold_of)
    for fold in [*range(run.config.data.folds), None]:
        images = np.flatnonzero(fold_of_image.isna() if fold is None else fold_of_image == fold)
        for start in range(0, len(images), size):
            yield Batch(fold, images[start : start + size])


def _segment(
    settings: ApplyConfig, run: TrainedSegmenter, dataset: Dataset, segmenter: str, worlds: list[World]
) -> pd.DataFrame:
    """Segment what the journal does not have; return the rows of all images."""
    size, count = settings.batch_size or evaluation_batch(run.config), len(dataset.manifest)
    batches = list(_batches(run, dataset, size))
    ends = list(accumulate(len(batch.images) for batch in batches))
    with (settings.out / _JOURNAL).open("a+b") as file:
        journal = Journal(file)
        request = {"segmenter": segmenter, "data": dataset.fingerprint, "batch_size": size}
        if journal.resume(request) and journal.finished:
            # A batch whose record was torn is segmented again, with the same neighbours.
            journal.cut(max((end for end in ends if end <= journal.finished), default=0))
            console.info(f"resume: {journal.finished} of {count} images are segmented")
        left = batches[bisect_right(ends, journal.finished) :]
        with written_masks(MaskWriter(run, dataset, settings.out, size), left, worlds) as rows:
            for _ in console.progress(_recorded(rows, journal), count, "segmenting"):
                pass
        return pd.DataFrame(list(journal.records()))


def _recorded(written: Iterator[Rows], journal: Journal) -> Iterator[dict[str, Any]]:
    """Record the images of each batch once its masks are written; yield their rows."""
    for rows in written:
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
