"""A simulated disk whose power fails at a chosen call and that loses unflushed bytes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CALLS = ("open", "fsync", "replace", "rename", "mkdir", "rmdir", "unlink")


class PowerCut(BaseException):
    """A power cut: nothing runs after it, not even clean-up."""


class FaultyDisk:
    """The disk below a folder: records the calls to it, fails at one of them, and can lose unflushed bytes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.calls: list[str] = []
        self.fail_at: int | None = None
        self.failure: BaseException = PowerCut()
        self._flushed = {path.stat().st_ino: path.read_bytes() for path in files(root)}

    @contextmanager
    def failing(self, call: int | None, failure: BaseException) -> Iterator[None]:
        self.calls, self.fail_at, self.failure = [], call, failure
        with pytest.MonkeyPatch.context() as patch:
            for name in CALLS:
                patch.setattr(os, name, self._count_calls(name, getattr(os, name)))
            yield

    def lose_unflushed(self) -> None:
        for path in files(self.root):
            path.write_bytes(self._flushed.get(path.stat().st_ino, b""))

    def _count_calls(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if name == "open" and "dir_fd" in kwargs:  # by rmtree, within a folder
                return real(*args, **kwargs)
            self.calls.append(name)
            if len(self.calls) - 1 == self.fail_at:
                raise self.failure
            result = real(*args, **kwargs)
            if name == "fsync":
                self._mark_flushed(args[0])
            return result

        return call

    def _mark_flushed(self, descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").resolve()
        if path.is_file():
            self._flushed[path.stat().st_ino] = path.read_bytes()


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]
