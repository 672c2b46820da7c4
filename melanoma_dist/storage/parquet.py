"""Tables in Parquet files that somebody else may have written: flat, of plain kinds, no larger than memory holds.

A few hundred bytes may claim a billion rows, or a text of a megabyte in each of them, and Arrow believes what a file
says of itself. So text stays encoded until its size is known, and what pandas left in the file about kinds and index is
not asked for.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from melanoma_dist.storage.untrusted import MEBIBYTE, read_bytes

MOST_ENCODED = 512 * MEBIBYTE  # of the file
_MOST = 512 * MEBIBYTE  # of the table in memory; a million images take 400
_COLUMNS = 1000
_NUMBER_BYTES = 8


def read_parquet(source: Path | bytes, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """A table, or the named ``columns`` of it. Raises OSError or ValueError, and nothing else, for what is none."""
    content = source if isinstance(source, bytes) else read_bytes(source, MOST_ENCODED)
    try:
        return _read(content, columns)
    except (OSError, ValueError):
        raise
    except MemoryError:
        raise ValueError("it asks for more memory than there is") from None
    except Exception as error:  # Arrow's have a dozen classes
        raise ValueError(str(error) or type(error).__name__) from error


def _read(content: bytes, columns: Sequence[str] | None) -> pd.DataFrame:
    with pq.ParquetFile(io.BytesIO(content)) as file:
        schema = file.schema_arrow
        _require_flat(schema)
        names = list(schema.names if columns is None else columns)
        if missing := [name for name in names if name not in schema.names]:
            raise ValueError(f"it lacks the columns {', '.join(missing)}")
        _require_room(_rows(file) * len(names) * _NUMBER_BYTES)
        texts = [name for name in names if _is_text(schema.field(name).type)]
    file = pq.ParquetFile(io.BytesIO(content), read_dictionary=texts)
    table = file.read(columns=names, use_threads=False)
    table.validate(full=True)
    _require_room(sum(_decoded_bytes(column) for column in table.columns))
    table = pa.table([_decoded(column) for column in table.columns], names=names)
    made: pd.DataFrame = table.to_pandas(split_blocks=True, self_destruct=True)  # never the whole of it twice
    return made


def _rows(file: pq.ParquetFile) -> int:
    """As its parts say, which are what is read; the sum in the file's footer is not."""
    groups = file.metadata.num_row_groups
    return sum(file.metadata.row_group(group).num_rows for group in range(groups))


def _require_flat(schema: pa.Schema) -> None:
    if len(schema.names) > _COLUMNS or len(set(schema.names)) < len(schema.names):
        raise ValueError(f"it has columns of one name, or more than {_COLUMNS}")
    for field in schema:
        if not (_is_text(field.type) or _is_number(field.type)):
            raise ValueError(f"its column {field.name} is of kind {field.type}, and only text and numbers are read")


def _is_number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)
    )


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _require_room(needed: int) -> None:
    if needed > _MOST:
        raise ValueError(
            f"it would take {needed // MEBIBYTE} MiB of memory, and no table of ours takes {_MOST // MEBIBYTE}"
        )


def _decoded_bytes(column: pa.ChunkedArray) -> int:
    """Bytes of a column whose texts are no longer stored once each."""
    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    return sum(_text_bytes(chunk) for chunk in column.chunks)


def _text_bytes(chunk: pa.DictionaryArray) -> int:
    lengths: Any = pc.take(pc.binary_length(chunk.dictionary), chunk.indices)
    return int(pc.sum(lengths, min_count=0).as_py()) + _NUMBER_BYTES * len(chunk)


def _decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.large_string()) if pa.types.is_dictionary(column.type) else column
