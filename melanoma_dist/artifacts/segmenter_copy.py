"""The segmenter that travels with what it found: beside a side table of lesions, and in the runs that see lesions.

    segmenter/record.json, config.yaml, summary.json, folds.parquet     of the segmentation run
    segmenter/model/fold-<i>.safetensors, fold-<i>/weights.sha256       its weights and their hashes
    segmenter/lesions.json      in the run of a classifier: the record of the side table that it was trained with

`melanoma_dist.inference.segmenter` opens it as it opens the whole run.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from melanoma_dist.artifacts.lesion_table import RECORD as LESIONS
from melanoma_dist.artifacts.run_record import RECORD
from melanoma_dist.config.places import SUMMARY
from melanoma_dist.errors import DataError
from melanoma_dist.storage import atomic

SEGMENTER = "segmenter"
_FILES = (RECORD, "config.yaml", SUMMARY, "folds.parquet")
_OF_FOLDS = ("model/fold-*.safetensors", "fold-*/weights.sha256")


def keep_segmenter(run: Path, lesions: Path) -> None:
    """Copy a segmentation run, without what only its training needs, beside the side table that it writes."""
    if not (lesions / SEGMENTER).is_dir():
        atomic.write_tree(lesions / SEGMENTER, lambda aside: _copy(run, aside))


def bring_segmenter(lesions: Path, run: Path) -> None:
    """Copy the segmenter of a side table into the run of a classifier, so that the run can see new photographs.

    A table of true masks, or of an earlier version of this program, has none.
    """
    if (lesions / SEGMENTER).is_dir() and not (run / SEGMENTER).is_dir():
        atomic.write_tree(run / SEGMENTER, lambda aside: _copy(lesions / SEGMENTER, aside, lesions / LESIONS))


def _copy(source: Path, to: Path, *beside: Path) -> None:
    paths = [*(source / name for name in _FILES), *(path for each in _OF_FOLDS for path in source.glob(each))]
    names = {path: to / path.relative_to(source) for path in paths} | {path: to / path.name for path in beside}
    for path, name in names.items():
        if not path.is_file():
            raise DataError(f"{path}: is missing, so the segmenter cannot be copied. Bring the file back.")
        name.parent.mkdir(parents=True, exist_ok=True)
        _link(path, name)


def _link(path: Path, name: Path) -> None:
    """A hard link where possible: each configuration of a sweep has the same weights. They are never changed."""
    try:
        os.link(path, name)
    except OSError:
        shutil.copyfile(path, name)
