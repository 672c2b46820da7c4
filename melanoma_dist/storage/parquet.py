"""Read tables from untrusted Parquet files: flat, with plain types, no larger than memory allows.

A few hundred bytes may claim a billion rows, or a megabyte of text in each of them, and Arrow trusts what a file
claims. So text stays dictionary-encoded until its size is known, and pandas' own metadata in the file (types, index)
is ignored.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from melanoma_dist.storage.untrusted import MEBIBYTE, read_bytes

MAX_FILE_BYTES = 512 * MEBIBYTE
_MAX_TABLE_BYTES = 512 * MEBIBYTE  # in memory; a million images take 400
_MAX_COLUMNS = 1000
_NUMBER_BYTES = 8


def read_parquet(source: Path | bytes, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a table, or only its ``columns``. Raises OSError or ValueError, and nothing else, for a bad file."""
    content = source if isinstance(source, bytes) else read_bytes(source, MAX_FILE_BYTES)
    try:
        return _read(content, columns)
    except (OSError, ValueError):
        raise
    except MemoryError:
        raise ValueError("it needs more memory than there is") from None
    except Exception as error:  # Arrow's errors have a dozen classes
        raise ValueError(str(error) or type(error).__name__) from error


def _read(content: bytes, columns: Sequence[str] | None) -> pd.DataFrame:
    with pq.ParquetFile(io.BytesIO(content)) as file:
        schema = file.schema_arrow
        if len(schema.names) > _MAX_COLUMNS or len(set(schema.names)) < len(schema.names):
            raise ValueError(f"two of its columns have one name, or it has more than {_MAX_COLUMNS} columns")
        for field in schema:
            if not (_is_text(field.type) or _is_number(field.type)):
                raise ValueError(f"its column {field.name} has type {field.type}; only text and numbers are allowed")
        names = list(schema.names if columns is None else columns)
        if missing := [name for name in names if name not in schema.names]:
            raise ValueError(f"columns are missing: {', '.join(missing)}")
        _require_memory(_rows(file) * len(names) * _NUMBER_BYTES)
        texts = [name for name in names if _is_text(schema.field(name).type)]
    file = pq.ParquetFile(io.BytesIO(content), read_dictionary=texts)
    table = file.read(columns=names, use_threads=False)
    table.validate(full=True)
    _require_memory(sum(_decoded_bytes(column) for column in table.columns))
    decoded = [each.cast(pa.large_string()) if pa.types.is_dictionary(each.type) else each for each in table.columns]
    table = pa.table(decoded, names=names)
    frame: pd.DataFrame = table.to_pandas(split_blocks=True, self_destruct=True)  # frees each column once converted
    return frame


def _rows(file: pq.ParquetFile) -> int:
    """Sum the row groups, which are what Arrow reads; the total in the file's footer may differ."""
    groups = file.metadata.num_row_groups
    return sum(file.metadata.row_group(group).num_rows for group in range(groups))


def _is_number(type_: pa.DataType) -> bool:
    return bool(
        pa.types.is_boolean(type_)
        or pa.types.is_integer(type_)
        or pa.types.is_floating(type_)
        or pa.types.is_null(type_)
    )


def _is_text(type_: pa.DataType) -> bool:
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_))


def _require_memory(needed: int) -> None:
    if needed > _MAX_TABLE_BYTES:
        limit = _MAX_TABLE_BYTES // MEBIBYTE
        raise ValueError(f"it would take {needed // MEBIBYTE} MiB of memory, more than the limit of {limit}")


def _decoded_bytes(column: pa.ChunkedArray) -> int:
    """Return the bytes of a column once every text is stored in full."""
    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    lengths = (pc.take(pc.binary_length(chunk.dictionary), chunk.indices) for chunk in column.chunks)
    return sum(int(pc.sum(each, min_count=0).as_py()) + _NUMBER_BYTES * len(each) for each in lengths)
