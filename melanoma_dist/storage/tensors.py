"""Tensors and plain values in a file of ``torch.save`` that somebody else may have written.

PyTorch believes what a file says of itself: a record that is deflated may grow a thousandfold, and a tar or a bare
pickle, as PyTorch wrote them before 1.6, may claim any size or be unpacked into the system's temporary folder. So only
the archives that it writes today are opened: zips of stored records, none larger than the file.
"""

from __future__ import annotations

import pickle  # nosec B403  # for the name of its error
import struct
import zipfile
from pathlib import Path
from typing import Any

import torch

_END = struct.Struct("<4sQ28xQQ4s4xQ4x4s16xH")
"""Of an archive: the end record of 64 bits, where it is told to be, the end record of 32 bits, and no comment.

That nothing else may be there leaves no two ways to read the list of records: PyTorch finds the one that was checked.
"""
_REST = 44  # bytes that the end record of 64 bits has beyond its first twelve


def load_tensors(path: Path) -> Any:
    """What the file holds, on the CPU. Raises OSError or ValueError, and nothing else; nothing in it is executed."""
    try:
        _require_stored_records(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, ValueError):
        raise
    except pickle.UnpicklingError:
        raise ValueError("it holds more than tensors and plain values, and nothing else is loaded") from None
    except Exception as error:  # PyTorch's and those of the values it makes have no common base
        raise ValueError((str(error).strip().splitlines() or [type(error).__name__])[0][:200]) from error


def _require_stored_records(path: Path) -> None:
    if not path.is_file():
        raise ValueError("it is no regular file")
    size = path.stat().st_size
    try:
        _require_one_list(path, size)
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
    except (zipfile.BadZipFile, RuntimeError, struct.error) as error:  # zipfile's of features it does not know, too
        raise ValueError(
            f"it is no archive as PyTorch writes it since 1.6 ({error}); save an older one anew with torch.save"
        ) from error
    if any(record.compress_type != zipfile.ZIP_STORED or record.flag_bits & 1 for record in records):
        raise ValueError("its records are compressed or encrypted, and PyTorch's are not")
    if any(record.file_size != record.compress_size for record in records):
        raise ValueError("its records claim another size than they have")
    if sum(record.file_size for record in records) > size:
        raise ValueError("its records claim more bytes than the file has")


def _require_one_list(path: Path, size: int) -> None:
    with path.open("rb") as file:
        file.seek(max(size - _END.size, 0))
        end64, length, list_size, list_start, locator, end64_start, end, comment = _END.unpack(file.read())
    if (end64, locator, end) != (b"PK\x06\x06", b"PK\x06\x07", b"PK\x05\x06"):
        raise zipfile.BadZipFile("its end is not one")
    if comment or length != _REST or end64_start != size - _END.size or list_start + list_size != end64_start:
        raise zipfile.BadZipFile("its end leads elsewhere")
