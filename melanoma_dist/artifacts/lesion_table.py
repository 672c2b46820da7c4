"""The side table of a data set's lesions: where each image shows its lesion, by masks that `segment apply` predicts.

    lesions.json       the record, written last: a folder without it is unfinished
    lesions.parquet    one row per image of the data set, sorted by id
    folds.parquet      the folds of the segmentation run (``image_id, group, fold``); not for true masks
    masks/<id>.png     1 bit per pixel, as large as the prepared image

The columns of the table:

    image_id                    str
    model                       str      "fold-0", "ensemble", "truth", or "none": no model may segment the image
    top, left, height, width    float32  the lesion's box in shares of the image; 0, 0, 1, 1 where none was detected
    area                        float32  share of the image's pixels in the mask
    touches_border              bool     whether the mask reaches the edge of the image
    quality                     float32  0 to 1: the Jaccard index to expect of the mask
    detected                    bool     whether the mask is large enough to be a lesion
    mask_crc32                  int64    of the PNG's bytes
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from melanoma_dist.artifacts.integrity import check_untouched, hashes_of
from melanoma_dist.artifacts.records import read_record, write_record
from melanoma_dist.artifacts.run_record import now
from melanoma_dist.data.audit.checks import Check, require
from melanoma_dist.data.manifest import Dataset, write_table
from melanoma_dist.data.schema import member_name
from melanoma_dist.errors import DataError
from melanoma_dist.storage import atomic
from melanoma_dist.storage.images import open_image
from melanoma_dist.storage.parquet import read_parquet
from melanoma_dist.storage.untrusted import read_bytes

SCHEMA = 2
RECORD, TABLE, FOLDS, MASKS = "lesions.json", "lesions.parquet", "folds.parquet", "masks"
TRUTH, ENSEMBLE, NO_MODEL = "truth", "ensemble", "none"
AGAIN = "Copy the folder again, or write another one with `segment apply RUN --data DATA --out DIR`."
BOX = ("top", "left", "height", "width")
_SHARES = (*BOX, "area", "quality")
_TRUTHS = ("touches_border", "detected")
_DTYPES = {**dict.fromkeys(_SHARES, "<f4"), **dict.fromkeys(_TRUTHS, "?"), "mask_crc32": "<i8"}
COLUMNS = ("image_id", "model", *_DTYPES)
_SHOWN = 3
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class LesionRecord:
    """The content of ``lesions.json``."""

    data: str
    """Fingerprint of the data set."""
    run: str
    """Name of the segmentation run; "truth" for true masks."""
    segmenter: str
    """Fingerprint of the segmentation run; "truth" for true masks."""
    images: int
    detected: int
    fingerprint: str
    """Of the table's content; see `fingerprint`."""
    files: dict[str, str]
    """The sha256 of the tables, by file name."""
    written: str
    """UTC, ISO 8601."""
    schema: int = field(default=SCHEMA)


@dataclass(frozen=True)
class LesionTable:
    """A side table, checked against its data set: row i is about row i of the manifest."""

    folder: Path
    record: LesionRecord
    rows: pd.DataFrame

    def png(self, row: int) -> bytes:
        """The file of a row's mask. Raises DataError unless it is the one that was written."""
        path = self._path(row)
        try:
            content = read_bytes(path)
            if crc32(content) != int(self.rows["mask_crc32"].iloc[row]):
                raise ValueError("its bytes are not those that were written")
        except (OSError, ValueError) as error:
            raise self._error(path, error) from error
        return content

    def mask(self, row: int) -> Mask:
        """The mask of a row, bool [height, width]. Raises DataError unless its file is the one that was written."""
        content = self.png(row)
        try:
            with open_image(content) as image:
                return np.asarray(image.convert("1"))
        except (OSError, ValueError, SyntaxError) as error:
            raise self._error(self._path(row), error) from error

    def _path(self, row: int) -> Path:
        return mask_path(self.folder, str(self.rows["image_id"].iloc[row]))

    @staticmethod
    def _error(path: Path, error: Exception) -> DataError:
        return DataError(f"{path}: the mask cannot be used ({error}). {AGAIN}")


def lesion_row(image_id: str, model: str, mask: Mask, quality: float, least_area: float) -> dict[str, Any]:
    """Describe a mask, bool [h, w], as a row of the table. A lesion is detected from the share ``least_area`` on."""
    area = float(mask.mean())
    row = {"image_id": image_id, "model": model, "area": area, "quality": quality, "mask_crc32": crc32(encode(mask))}
    if area == 0 or area < least_area:
        return row | dict(zip(BOX, (0.0, 0.0, 1.0, 1.0), strict=True)) | dict.fromkeys(_TRUTHS, False)
    ends = []
    for axis, side in ((1, mask.shape[0]), (0, mask.shape[1])):
        inside = np.flatnonzero(mask.any(axis=axis))
        ends.append((inside[0] / side, (inside[-1] + 1) / side))
    (top, bottom), (left, right) = ends
    edges = mask[0], mask[-1], mask[:, 0], mask[:, -1]
    box = dict(zip(BOX, (top, left, bottom - top, right - left), strict=True))
    return row | box | {"touches_border": any(edge.any() for edge in edges), "detected": True}


def as_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of `lesion_row` with the columns and types of the table: numbers are rounded as in its file."""
    return rows[list(COLUMNS)].astype(_DTYPES)


def encode(mask: Mask) -> bytes:
    """A mask, bool [h, w], as PNG of 1 bit per pixel."""
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    return buffer.getvalue()


def mask_path(folder: Path, image_id: str) -> Path:
    """The file of an image's mask."""
    return folder / MASKS / f"{member_name(image_id)}.png"


def write_mask(folder: Path, image_id: str, mask: Mask) -> None:
    """Write the mask of an image, whole or not at all."""
    path = mask_path(folder, image_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_file(path, lambda aside: aside.write_bytes(encode(mask)))


def write_lesions(
    folder: Path, dataset: Dataset, rows: pd.DataFrame, folds: pd.DataFrame | None, run: str, segmenter: str
) -> LesionTable:
    """Write the tables and then the record; the masks are there already (`write_mask`).

    ``rows`` has ``COLUMNS``, one row per image of the data set; ``folds`` are those of the segmentation run, None for
    true masks. Raises DataError, and writes no record, for a table that `read_lesions` would refuse.
    """
    rows = as_table(rows.sort_values("image_id", ignore_index=True))
    _check_rows(folder / TABLE, dataset, rows)
    require([out_of_fold_check(dataset.manifest, rows, folds)])
    folder.mkdir(parents=True, exist_ok=True)
    write_table(folder / TABLE, rows)
    if folds is not None:
        write_table(folder / FOLDS, folds[["image_id", "group", "fold"]])
    files = [folder / TABLE] + ([folder / FOLDS] if folds is not None else [])
    detected = int(rows["detected"].sum())
    record = LesionRecord(
        dataset.fingerprint, run, segmenter, len(rows), detected, fingerprint(rows), hashes_of(*files), now()
    )
    write_record(folder / RECORD, record)
    return LesionTable(folder, record, rows)


def read_lesions(folder: Path, dataset: Dataset) -> LesionTable:
    """Read a side table and check it against its data set.

    Raises DataError, with the remedy, for a folder that is unfinished or corrupt, for the table of another data set,
    and where a mask comes from a model that trained on the image or on another one of its group.
    """
    if not (folder / RECORD).is_file():
        state = "is unfinished: lesions.json is written last" if (folder / MASKS).is_dir() else "holds no lesions.json"
        raise DataError(f"{folder}: {state}. `segment apply RUN --data DATA --out {folder}` writes it.")
    record = read_record(folder / RECORD, LesionRecord, AGAIN, (SCHEMA,))
    if record.data != dataset.fingerprint:
        raise DataError(
            f"{folder}: is about the data set with fingerprint {record.data[:12]}, and {dataset.folder} has "
            f"{dataset.fingerprint[:12]}. Write the lesions of this one: `segment apply RUN --data {dataset.folder}`."
        )
    # The folds prove that the masks are unseen: no table of a model is without them.
    names = [TABLE] if record.segmenter == TRUTH else [TABLE, FOLDS]
    check_untouched(folder / RECORD, record.files, [folder / name for name in names], AGAIN)
    rows = _read(folder / TABLE)
    _check_rows(folder / TABLE, dataset, rows)
    if fingerprint(rows) != record.fingerprint:
        raise DataError(f"{folder / RECORD}: is the record of another table. {AGAIN}")
    folds = _read(folder / FOLDS) if FOLDS in names else None
    require([out_of_fold_check(dataset.manifest, rows, folds)])
    return LesionTable(folder, record, rows)


def out_of_fold_check(manifest: pd.DataFrame, rows: pd.DataFrame, folds: pd.DataFrame | None) -> Check:
    """Check that no mask comes from a model that trained on the image's group.

    The model of a fold trained on the images of all other folds. An image whose group lies in a fold may thus have its
    mask from that fold's model alone. ``folds``: of the segmentation run; None for true masks, which have no model.
    """
    name = "no mask comes from a model that trained on the image's group"
    remedy = "Write the side table again with `segment apply`."
    if folds is None:
        models = rows["image_id"][~rows["model"].isin([TRUTH, NO_MODEL])]
        failures = (f"{len(models)} masks of models without folds: {_some(models)}",) if len(models) else ()
        return Check(name, failures, remedy)
    group = manifest.set_index("image_id")["group"]
    # By the data set's groups, and not by the folds' own: both must agree on what belongs together.
    of_group = folds.assign(group=folds["image_id"].map(group)).dropna(subset="group").groupby("group")["fold"]
    only = of_group.min().where(of_group.nunique() == 1, -1)
    fold = rows["image_id"].map(group).map(only)
    allowed = "fold-" + fold.fillna(-1).astype(int).astype(str)
    leaks = rows["image_id"][fold.notna() & (rows["model"] != allowed) & (rows["model"] != NO_MODEL)]
    return Check(name, (f"{len(leaks)} masks: {_some(leaks)}",) if len(leaks) else (), remedy)


def fingerprint(rows: pd.DataFrame) -> str:
    """The sha256 (hex) of a table's content, whatever its file's format."""
    digest = hashlib.sha256(f"melanoma-dist lesions {SCHEMA}, {len(rows)} images".encode())
    for name in ("image_id", "model"):
        digest.update("\n".join((name, *rows[name])).encode())
    for name, dtype in _DTYPES.items():
        digest.update(name.encode() + rows[name].to_numpy(dtype=dtype).tobytes())
    return digest.hexdigest()


def _read(path: Path) -> pd.DataFrame:
    try:
        return read_parquet(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}). {AGAIN}") from error


def _check_rows(path: Path, dataset: Dataset, rows: pd.DataFrame) -> None:
    if missing := [name for name in COLUMNS if name not in rows]:
        raise DataError(f"{path}: the columns {', '.join(missing)} are missing. {AGAIN}")
    if rows["image_id"].tolist() != dataset.manifest["image_id"].tolist():
        raise DataError(f"{path}: must have one row for each of the {len(dataset.manifest)} images. {AGAIN}")
    wrong = [name for name, dtype in _DTYPES.items() if rows[name].dtype != np.dtype(dtype)]
    # NaN is in no interval.
    wrong += [name for name in _SHARES if name not in wrong and not rows[name].between(0, 1).all()]
    if wrong:
        raise DataError(f"{path}: {', '.join(wrong)}: must be shares of 0 to 1, or true and false. {AGAIN}")
    inside = (rows["top"] + rows["height"] <= 1 + 1e-6) & (rows["left"] + rows["width"] <= 1 + 1e-6)
    bad = rows["image_id"][~(inside & (rows["height"] > 0) & (rows["width"] > 0))]
    if len(bad):
        raise DataError(f"{path}: {len(bad)} boxes are empty or leave their image: {_some(bad)}. {AGAIN}")


def _some(names: pd.Series[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (" ..." if len(names) > _SHOWN else "")
