"""A storage that fails on demand: an in-memory file system, ``flaky://`` to fsspec."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

from melanoma_dist.storage import atomic
from melanoma_dist.storage.locks import LOCK


class Flaky(MemoryFileSystem):
    """Refuses the next ``refusals`` calls; keeps only half of the next ``truncations`` written files."""

    protocol = "flaky"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    refusals: ClassVar[int] = 0
    truncations: ClassVar[int] = 0
    calls: ClassVar[list[str]] = []
    on_call: ClassVar[Callable[[str], object]]

    @classmethod
    def reset(cls) -> None:
        cls.store.clear()
        cls.pseudo_dirs[:] = [""]
        cls.refusals, cls.truncations, cls.calls = 0, 0, []
        cls.on_call = staticmethod(lambda call: None)

    def _record_call(self, call: str) -> None:
        Flaky.calls.append(call)
        Flaky.on_call(call)
        if Flaky.refusals > 0:
            Flaky.refusals -= 1
            raise ConnectionError("503 slow down")

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return MemoryFileSystem._strip_protocol(path.replace("flaky://", "memory://"))

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        self._record_call(f"{mode} {path}")
        if mode == "wb" and Flaky.truncations > 0:
            Flaky.truncations -= 1
            return _HalfWritten(self, path)
        return super()._open(path, mode, **kwargs)

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> Any:
        self._record_call(f"ls {path}")
        return super().ls(path, detail, **kwargs)

    def rm_file(self, path: str) -> None:
        self._record_call(f"rm {path}")
        super().rm_file(path)


class _HalfWritten(io.BytesIO):
    """The connection ends in the middle, without an error."""

    def __init__(self, files: Flaky, path: str) -> None:
        super().__init__()
        self._files, self._path = files, path

    def close(self) -> None:
        if not self.closed:
            with MemoryFileSystem._open(self._files, self._path, "wb") as file:
                file.write(self.getvalue()[: len(self.getvalue()) // 2])
        super().close()


fsspec.register_implementation("flaky", Flaky, clobber=True)


def checkpoint(root: Path, name: str, text: str) -> None:
    atomic.write_folder(root / "checkpoints" / name, lambda aside: (aside / "state.pt").write_text(text))


def read_all_files(root: Path) -> dict[str, bytes]:
    files = [path for path in root.rglob("*") if path.is_file() and path.name != LOCK]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}
