"""Shards: plain WebDataset tars, written once in order, read anywhere by offset.

Any tool can read a shard from front to back (``<image_id>.jpg``, ``<image_id>.mask.png``). The manifest records the
offset of each member's bytes, so that the reader maps the file into memory and reads one image without the others.
"""

from __future__ import annotations

import mmap
import os
import tarfile
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple, Self
from zlib import crc32

import numpy as np
import numpy.typing as npt

from melanoma_dist import console
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.data.schema import AGAIN, member_name
from melanoma_dist.errors import DataError

SHARD_BYTES = 256 * 2**20


class Place(NamedTuple):
    """The position of one image's bytes, as in the manifest, and their CRC-32; all -1 if there is no mask."""

    shard: str
    offset: int
    length: int
    crc32: int
    mask_offset: int
    mask_length: int
    mask_crc32: int


class ShardWriter:
    """Writes images into ``shard-00000.tar``, ``shard-00001.tar``, ... of about ``limit`` bytes.

    The same images in the same order give the same bytes, also across a restart: a writer that starts ``after`` the
    last place known to be on the disk overwrites everything behind it.
    """

    def __init__(self, folder: Path, limit: int = SHARD_BYTES, after: Place | None = None) -> None:
        self._folder = folder
        self._limit = limit
        self._count = 0
        self._name = ""
        self._file: BinaryIO | None = None
        if after is not None:
            self._count = int(after.shard.removeprefix("shard-").removesuffix(".tar"))
            end = max(after.offset + after.length, after.mask_offset + after.mask_length)
            self._open(end + -end % tarfile.BLOCKSIZE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close(whole=error is None)

    def add(self, image_id: str, jpeg: bytes, mask: bytes | None) -> Place:
        """Append one image and its mask, if any; both go into the same shard."""
        size = len(jpeg) + len(mask or b"")
        if self._file is not None and self._file.tell() > 0 and self._file.tell() + size > self._limit:
            self._close(whole=True)
        file = self._file or self._open(0)
        offset = _append(file, f"{member_name(image_id)}.jpg", jpeg)
        image = (self._name, offset, len(jpeg), crc32(jpeg))
        if mask is None:
            return Place(*image, -1, -1, -1)
        return Place(*image, _append(file, f"{member_name(image_id)}.mask.png", mask), len(mask), crc32(mask))

    def sync(self) -> None:
        """Flush everything added so far to the disk."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())

    def _open(self, offset: int) -> BinaryIO:
        """Open the next shard for writing from ``offset`` on, and cut off anything behind it."""
        self._name = f"shard-{self._count:05d}.tar"
        self._count += 1
        path = self._folder / self._name
        if offset and (not path.is_file() or path.stat().st_size < offset):
            raise DataError(f"{path}: is shorter than the journal records. Delete {self._folder} and prepare it again.")
        self._file = path.open("r+b" if offset else "wb")
        self._file.truncate(offset)
        self._file.seek(offset)
        return self._file

    def _close(self, whole: bool) -> None:
        """Close the open shard. A ``whole`` one ends like any tar, with two empty blocks in a full record."""
        if self._file is None:
            return
        if whole:
            self._file.write(bytes(2 * tarfile.BLOCKSIZE))
            self._file.write(bytes(-self._file.tell() % tarfile.RECORDSIZE))
            self.sync()
        self._file.close()
        self._file = None


def _append(file: BinaryIO, name: str, data: bytes) -> int:
    """Append a member without owner and time, and return the offset of its bytes."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    file.write(info.tobuf(tarfile.USTAR_FORMAT))
    start = file.tell()
    file.write(data)
    file.write(bytes(-len(data) % tarfile.BLOCKSIZE))
    return start


class ShardReader:
    """Reads any image of a data set by its row in the manifest.

    Maps each file on first use, once per process; an unpickled reader maps its own.
    """

    def __init__(self, dataset: Dataset) -> None:
        manifest = dataset.manifest
        self._folder = dataset.folder
        self._ids = manifest["image_id"].to_numpy(dtype=object)
        self._shards = manifest["shard"].to_numpy(dtype=object)
        self._jpegs = manifest[["offset", "length", "crc32"]].to_numpy(dtype=np.int64)
        self._masks = manifest[["mask_offset", "mask_length", "mask_crc32"]].to_numpy(dtype=np.int64)
        self._maps: dict[str, mmap.mmap] = {}

    def __len__(self) -> int:
        return len(self._ids)

    def image_id(self, row: int) -> str:
        """The image id of a row."""
        return str(self._ids[row])

    def jpeg(self, row: int) -> npt.NDArray[np.uint8]:
        """The encoded image of a row, uint8 [bytes], a read-only view of the mapped file (no copy).

        Raises DataError if the bytes are not the prepared ones.
        """
        offset, length = self._verified(row, self._jpegs[row])
        return np.frombuffer(self._map(row), dtype=np.uint8, count=length, offset=offset)

    def mask(self, row: int) -> bytes | None:
        """The lesion mask of a row as PNG bytes (one channel, 0 or 255, as large as the image), or None.

        Raises DataError as `jpeg` does.
        """
        if self._masks[row][0] < 0:
            return None
        offset, length = self._verified(row, self._masks[row])
        return self._map(row)[offset : offset + length]

    def _verified(self, row: int, place: npt.NDArray[np.int64]) -> tuple[int, int]:
        """Offset and length of a place, after checking the CRC-32 of its bytes."""
        offset, length, crc = (int(value) for value in place)
        # About 0.05 ms per image. Without it, corrupt bytes would train a model or crash the decoder.
        with memoryview(self._map(row)) as whole, whole[offset : offset + length] as part:
            actual = crc32(part)
        if actual != crc:
            raise DataError(
                f"{self._folder / self._shards[row]}: the bytes of {self._ids[row]} are not those that were prepared: "
                "the shard is corrupt. Copy it again, or: " + AGAIN
            )
        return offset, length

    def _map(self, row: int) -> mmap.mmap:
        name = self._shards[row]
        if name not in self._maps:
            try:
                with (self._folder / name).open("rb") as file:
                    self._maps[name] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:
                raise DataError(
                    f"{self._folder / name}: cannot be read ({error}). Copy it again, or: {AGAIN}"
                ) from error
        return self._maps[name]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}}


def verify(dataset: Dataset) -> None:
    """Read every byte of every image and mask. Raises DataError for the first that is not the prepared one."""
    reader = ShardReader(dataset)
    for row in console.progress(range(len(reader)), len(reader), "verifying"):
        reader.jpeg(row)
        reader.mask(row)
