"""What the tables of a prepared folder must look like before anything is computed from them.

A table that another tool wrote, or somebody edited, is refused here with its file and column; what follows may rely on
kinds, blanks and bounds. What the values *mean* together is `melanoma_dist.data.audit.checks`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from melanoma_dist.data.labels import LABEL_COLUMNS
from melanoma_dist.errors import DataError

Rule = tuple[str, Callable[["pd.Series[Any]"], npt.NDArray[np.bool_]]]
"""What a column must hold, in words, and which of its values do not, bool [rows]."""

AGAIN = "Delete the data set's folder and prepare it again with `data prepare`, or prepare it into another folder."
"""What to do about a data set that is damaged: a folder that looks finished is not prepared again."""
SHARD = r"shard-[0-9]{5}\.tar"
"""What the name of a shard matches, whole."""

_SHOWN = 3


def check_columns(path: Path, table: pd.DataFrame, rules: Mapping[str, Rule]) -> None:
    """Raise DataError for the first column of the table read from ``path`` that is missing or breaks its rule."""
    if missing := [name for name in rules if name not in table]:
        raise DataError(f"{path}: lacks the columns {', '.join(missing)}. {AGAIN}")
    for name, (must, wrong) in rules.items():
        rows = table[name][wrong(table[name])]
        if len(rows):
            shown = ", ".join(f"{value!r} in row {row}" for row, value in rows.head(_SHOWN).items())
            raise DataError(f"{path}: {name} must be {must}, and {len(rows)} are not ({shown}). {AGAIN}")


def _not_text(values: pd.Series[Any]) -> npt.NDArray[np.bool_]:
    if isinstance(values.dtype, pd.StringDtype):  # as what we wrote comes back
        return values.isna().to_numpy(dtype=bool)
    return np.array([not isinstance(value, str) for value in values], dtype=bool)


def matching(pattern: str, words: str) -> Rule:
    """A text that matches, whole."""

    def wrong(values: pd.Series[Any]) -> npt.NDArray[np.bool_]:
        return ~values.where(~_not_text(values), "").astype("str").str.fullmatch(pattern).to_numpy(dtype=bool)

    return words, wrong


def _not_float(values: pd.Series[Any]) -> npt.NDArray[np.bool_]:
    numeric = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    return np.zeros(len(values), dtype=bool) if numeric else values.notna().to_numpy()


def _not_truth(values: pd.Series[Any]) -> npt.NDArray[np.bool_]:
    return np.array([not isinstance(value, bool | np.bool_) for value in values], dtype=bool)


def integer(low: int, high: int) -> Rule:
    """A whole number from ``low`` to ``high``."""

    def wrong(values: pd.Series[Any]) -> npt.NDArray[np.bool_]:
        if not pd.api.types.is_integer_dtype(values):
            return np.ones(len(values), dtype=bool)
        return ~values.between(low, high).fillna(False).to_numpy(dtype=bool)

    return f"a whole number of {low} to {high}", wrong


TEXT: Rule = ("text", _not_text)
TEXT_OR_BLANK: Rule = ("text or blank", lambda values: _not_text(values) & values.notna().to_numpy())
FLOAT_OR_BLANK: Rule = ("a number or blank", _not_float)
TRUTH: Rule = ("true or false", _not_truth)
SHARD_NAME = matching(SHARD, "the name of a shard, shard-00000.tar and so on")
IMAGE_NAME = matching(r"ISIC_[0-9]{7}", "ISIC_ and seven digits")
DIGEST = matching(r"[0-9a-f]{64}", "64 hexadecimal digits")

LONGEST = 2**40
"""Bytes; no shard comes near it, and sums of two stay far from overflowing."""

MANIFEST_RULES: dict[str, Rule] = {
    "image_id": IMAGE_NAME,
    **dict.fromkeys(("group", "years", "listed", "split"), TEXT),
    "source_sha256": DIGEST,
    **dict.fromkeys(("lesion_id", "sex", "site"), TEXT_OR_BLANK),
    **dict.fromkeys((*LABEL_COLUMNS, "age"), FLOAT_OR_BLANK),
    **dict.fromkeys(("width", "height", "source_width", "source_height"), integer(1, 2**31 - 1)),
    "source": TEXT,
    "perceptual_hash": DIGEST,
    "shard": SHARD_NAME,
    "offset": integer(0, LONGEST),
    "length": integer(1, LONGEST),
    "crc32": integer(0, 2**32 - 1),
    **dict.fromkeys(("mask_offset", "mask_length"), integer(-1, LONGEST)),
    "mask_crc32": integer(-1, 2**32 - 1),
}
JOINS_RULES: dict[str, Rule] = {
    **dict.fromkeys(("image_id", "other_id", "reason", "evidence"), TEXT),
    "joined": TRUTH,
}
MISSING_RULES: dict[str, Rule] = dict.fromkeys(("image_id", "years", "listed", "split", "group"), TEXT)
QUARANTINE_RULES: dict[str, Rule] = dict.fromkeys(("image_id", "source", "reason"), TEXT)
