"""Rules for the columns of a prepared folder's tables, checked before anything is computed from them.

A table that another tool wrote or a person edited is refused with its file and column. Later code relies on types,
blanks and bounds. Whether the values agree with each other is checked in `melanoma_dist.data.audit.checks`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from melanoma_dist.data.labels import LABEL_COLUMNS
from melanoma_dist.errors import DataError

Values: TypeAlias = "pd.Series[Any]"
Rule = tuple[str, Callable[[Values], npt.NDArray[np.bool_]]]
"""The rule of a column in words, and a function that marks the values that break it, bool [rows]."""

AGAIN = "Delete the data set's folder and prepare it again with `data prepare`, or prepare it into another folder."
"""The remedy for a corrupt data set: a folder that looks finished is not prepared again."""
SHARD = r"shard-[0-9]{5}\.tar"
"""Pattern of a shard's whole file name."""

_MOST_ID_BYTES = 91  # a tar header holds names of 100 bytes, and ".mask.png" follows the id
IMAGE_ID_RULE = (
    f"printable text of at most {_MOST_ID_BYTES} bytes without slashes and backslashes that neither begins "
    "nor ends with a space or a dot"
)
_SHOWN = 3


def is_image_id(value: object) -> bool:
    """Whether a value can be an image id: see `IMAGE_ID_RULE`."""
    return (
        isinstance(value, str)
        and value.isprintable()  # neither control characters nor lone surrogates
        and re.search(r"[/\\]", value) is None
        and value == value.strip(" .")
        and 0 < len(member_name(value).encode()) <= _MOST_ID_BYTES
    )


def member_name(image_id: str) -> str:
    """The name of an image's members in a shard, without suffix: WebDataset ends a sample's key at the first dot."""
    return image_id.replace("%", "%25").replace(".", "%2E")


def check_columns(path: Path, table: pd.DataFrame, rules: Mapping[str, Rule]) -> None:
    """Raise DataError for the first column of the table read from ``path`` that is missing or breaks its rule."""
    if missing := [name for name in rules if name not in table]:
        raise DataError(f"{path}: the columns {', '.join(missing)} are missing. {AGAIN}")
    for name, (must, wrong) in rules.items():
        rows = table[name][wrong(table[name])]
        if len(rows):
            examples = ", ".join(f"{value!r} in row {row}" for row, value in rows.head(_SHOWN).items())
            raise DataError(f"{path}: {name} must be {must}, and {len(rows)} are not ({examples}). {AGAIN}")


def _not_text(values: Values) -> npt.NDArray[np.bool_]:
    if isinstance(values.dtype, pd.StringDtype):  # as our own files are read
        return values.isna().to_numpy(dtype=bool)
    return np.array([not isinstance(value, str) for value in values], dtype=bool)


def matching(pattern: str, words: str) -> Rule:
    """The rule that a text matches ``pattern`` as a whole."""

    def wrong(values: Values) -> npt.NDArray[np.bool_]:
        return ~values.where(~_not_text(values), "").astype("str").str.fullmatch(pattern).to_numpy(dtype=bool)

    return words, wrong


def _not_float(values: Values) -> npt.NDArray[np.bool_]:
    numeric = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    return np.zeros(len(values), dtype=bool) if numeric else values.notna().to_numpy()


def integer(low: int, high: int) -> Rule:
    """The rule that a value is a whole number from ``low`` to ``high``."""

    def wrong(values: Values) -> npt.NDArray[np.bool_]:
        if not pd.api.types.is_integer_dtype(values):
            return np.ones(len(values), dtype=bool)
        return ~values.between(low, high).fillna(False).to_numpy(dtype=bool)

    return f"a whole number of {low} to {high}", wrong


TEXT: Rule = ("text", _not_text)
TEXT_OR_BLANK: Rule = ("text or blank", lambda values: _not_text(values) & values.notna().to_numpy())
FLOAT_OR_BLANK: Rule = ("a number or blank", _not_float)
TRUTH: Rule = (
    "true or false",
    lambda values: np.array([not isinstance(value, bool | np.bool_) for value in values], dtype=bool),
)
SHARD_NAME = matching(SHARD, "the name of a shard, shard-00000.tar and so on")
IMAGE_ID: Rule = (IMAGE_ID_RULE, lambda values: np.array([not is_image_id(value) for value in values], dtype=bool))
DIGEST = matching(r"[0-9a-f]{64}", "64 hexadecimal digits")

LONGEST = 2**40
"""Bytes; no shard comes near it, and sums of two stay far from overflowing."""

MANIFEST_RULES: dict[str, Rule] = {
    "image_id": IMAGE_ID,
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
OPTIONAL_RULES: dict[str, Rule] = {"patient_id": TEXT_OR_BLANK}
"""Columns of a manifest that only some data sets have."""
JOINS_RULES: dict[str, Rule] = {
    **dict.fromkeys(("image_id", "other_id", "reason", "evidence"), TEXT),
    "joined": TRUTH,
}
MISSING_RULES: dict[str, Rule] = dict.fromkeys(("image_id", "years", "listed", "split", "group"), TEXT)
QUARANTINE_RULES: dict[str, Rule] = dict.fromkeys(("image_id", "source", "reason"), TEXT)
