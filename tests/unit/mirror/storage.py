"""A storage that can be told to fail: memory that fsspec knows as ``flaky://``."""

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
    """Refuses the next calls, or keeps only the first half of the next files that are written."""

    protocol = "flaky"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    refusals: ClassVar[int] = 0
    cuts: ClassVar[int] = 0
    calls: ClassVar[list[str]] = []
    after: ClassVar[Callable[[str], object]]

    @classmethod
    def clean(cls) -> None:
        cls.store.clear()
        cls.pseudo_dirs[:] = [""]
        cls.refusals, cls.cuts, cls.calls = 0, 0, []
        cls.after = staticmethod(lambda call: None)

    def _ask(self, call: str) -> None:
        Flaky.calls.append(call)
        Flaky.after(call)
        if Flaky.refusals > 0:
            Flaky.refusals -= 1
            raise ConnectionError("503 slow down")

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return MemoryFileSystem._strip_protocol(path.replace("flaky://", "memory://"))

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        self._ask(f"{mode} {path}")
        if mode == "wb" and Flaky.cuts > 0:
            Flaky.cuts -= 1
            return _Half(self, path)
        return super()._open(path, mode, **kwargs)

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> Any:
        self._ask(f"ls {path}")
        return super().ls(path, detail, **kwargs)

    def rm_file(self, path: str) -> None:
        self._ask(f"rm {path}")
        super().rm_file(path)


class _Half(io.BytesIO):
    """The connection ends in the middle, and nobody says so."""

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


def everything(root: Path) -> dict[str, bytes]:
    files = [path for path in root.rglob("*") if path.is_file() and path.name != LOCK]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}
