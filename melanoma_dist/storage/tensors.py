"""Load tensors and plain values from untrusted files of ``torch.save``.

PyTorch trusts what a file claims. A deflated record may grow a thousandfold. A tar or a bare pickle, the formats before
PyTorch 1.6, may claim any size or be unpacked into the system's temporary folder. So only the format of today is
loaded: a zip of stored records, none larger than the file.
"""

from __future__ import annotations

import pickle  # nosec B403  # for the name of its error
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

_END = struct.Struct("<4sQ28xQQ4s4xQ4x4s16xH")
"""The end of an archive: the 64-bit end record, the locator that points to it, the 32-bit end record, no comment.

Nothing else is allowed there, so that the list of records can be read in one way only: PyTorch reads the list that was
checked here.
"""
_SHOWN = 3  # names in a message
_END64_REST = 44  # bytes of the 64-bit end record after its first twelve


def load_tensors(path: Path) -> Any:
    """Load a file onto the CPU without executing anything in it. Raises OSError or ValueError, and nothing else."""
    try:
        _require_stored_records(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, ValueError):
        raise
    except pickle.UnpicklingError:
        raise ValueError("it holds more than tensors and plain values, which is not allowed") from None
    except Exception as error:  # PyTorch's errors have no common base
        raise ValueError((str(error).strip().splitlines() or [type(error).__name__])[0][:200]) from error


def require_finite(state: Mapping[str, torch.Tensor]) -> None:
    """Raise ValueError, with the names, if any tensor holds NaN or infinity."""
    names = [name for name, value in state.items() if not torch.isfinite(value).all()]
    if names:
        more = ", ..." if len(names) > _SHOWN else ""
        raise ValueError(
            f"{len(names)} of {len(state)} tensors hold NaN or infinity: {', '.join(names[:_SHOWN])}{more}"
        )


def _require_stored_records(path: Path) -> None:
    if not path.is_file():
        raise ValueError("it is not a regular file")
    size = path.stat().st_size
    try:
        _require_plain_end(path, size)
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
    except (zipfile.BadZipFile, RuntimeError, struct.error) as error:  # RuntimeError: an unknown zip feature
        raise ValueError(
            f"it is not in the format of PyTorch 1.6 or later ({error}); save an older file again with torch.save"
        ) from error
    if any(record.compress_type != zipfile.ZIP_STORED or record.flag_bits & 1 for record in records):
        raise ValueError("its records are compressed or encrypted; those of torch.save are not")
    if any(record.file_size != record.compress_size for record in records):
        raise ValueError("a record claims another size than it has")
    if sum(record.file_size for record in records) > size:
        raise ValueError("its records claim more bytes than the file has")


def _require_plain_end(path: Path, size: int) -> None:
    with path.open("rb") as file:
        file.seek(max(size - _END.size, 0))
        end64, length, list_size, list_start, locator, end64_start, end, comment = _END.unpack(file.read())
    if (end64, locator, end) != (b"PK\x06\x06", b"PK\x06\x07", b"PK\x05\x06"):
        raise zipfile.BadZipFile("its end records are missing")
    if comment or length != _END64_REST or end64_start != size - _END.size or list_start + list_size != end64_start:
        raise zipfile.BadZipFile("its end records point elsewhere")
