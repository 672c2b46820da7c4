"""A process of its own for one parser: damaged inputs one after the other, with little memory and under watch."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import resource
import shutil
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import torch

from fuzzing.files import copy_samples
from fuzzing.mutate import mutated
from fuzzing.parsers import Parser, parser
from melanoma_dist.errors import MelanomaDistError

ROOM = 2**30
"""Bytes that a parser may take beyond what the process has when it begins."""
_CHANGES = {"os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink", "os.chmod", "shutil.rmtree"}
_FORBIDDEN = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect", "os.fork"}


class Guard:
    """Notes every file that is changed outside a folder, every process that is started, every connection."""

    def __init__(self, place: Path) -> None:
        self._place = str(place)
        self.active = False
        self.seen: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.active:
            return
        if event in _FORBIDDEN:
            self.seen.append(f"{event} {arguments!r}"[:200])
        elif event in _CHANGES or (event == "open" and _writes(arguments)):
            paths = arguments[:2] if event in ("os.rename", "os.link", "os.symlink") else arguments[:1]
            folder = arguments[-1] if event in ("os.remove", "os.rmdir") else -1
            self.seen += [f"{event} {path!r}"[:200] for path in paths if not self._inside(path, folder)]

    def _inside(self, path: Any, folder: int) -> bool:
        """``folder`` is the descriptor that a path is relative to, or -1."""
        if isinstance(path, int) or path == os.devnull:
            return True
        whole = os.path.join("" if folder == -1 else os.readlink(f"/proc/self/fd/{folder}"), os.fsdecode(path))
        return os.path.realpath(whole).startswith(self._place)


def _writes(arguments: tuple[Any, ...]) -> bool:
    return bool(arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) if isinstance(arguments[2], int) else False


def fuzz(name: str, samples: Path, box: Path, seed: int, first: int, seconds: float, limit: int) -> None:
    """Damage inputs from number ``first`` on for ``seconds``, or ``limit`` of them.

    ``box`` is an empty folder. ``box/state.json`` tells the counts after each input, and ``box/input`` holds the one
    that is being read: whatever ends this process leaves both. Ends with 1 after a finding, told in ``state.json``.
    """
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    reader, place = parser(name), box / "place"
    place.mkdir()
    copy_samples(samples, place, reader.folders)
    reader.begin(place)
    whole = {file: (place / file).read_bytes() for file in reader.files}
    guard = Guard(place.resolve())
    state: dict[str, Any] = {"next": first, "accepted": 0, "refused": 0, "finding": None}
    if _read(reader, place, guard) == "refused":  # the undamaged ones, which also loads what is loaded late
        raise RuntimeError(f"{name} refuses undamaged samples")
    _limit_memory()
    end = time.monotonic() + seconds
    while time.monotonic() < end and state["next"] - first < limit:
        file, data = _damaged(whole, name, seed, state["next"])
        (box / "input").write_bytes(data)
        (place / file).write_bytes(data)
        _tell(box, state | {"file": file, "since": time.time(), "processor": time.process_time()})
        finding = _read(reader, place, guard)
        state["refused" if finding == "refused" else "accepted"] += 1
        state["next"] += 1
        _restore(samples, place, whole)
        if finding not in ("", "refused"):
            _tell(box, state | {"file": file, "finding": finding})
            os._exit(1)
    _tell(box, state | {"file": "", "done": True})
    os._exit(0)


def _damaged(whole: dict[str, bytes], name: str, seed: int, number: int) -> tuple[str, bytes]:
    """Input ``number``: the same for the same seed."""
    rng = random.Random(f"{seed} {name} {number}")  # noqa: S311  # nosec B311  # to be repeatable
    file = rng.choice(list(whole))
    return file, mutated(whole[file], file.rpartition(".")[2], list(whole.values()), rng)


def _read(reader: Parser, place: Path, guard: Guard) -> str:
    """Nothing, ``refused``, or what went wrong."""
    guard.seen.clear()
    guard.active, found = True, ""
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            reader.read(place)
    except MelanomaDistError:
        found = "refused"
    except BaseException:
        found = traceback.format_exc()
    finally:
        guard.active = False
    return "; ".join(guard.seen) or found


def _restore(samples: Path, place: Path, whole: dict[str, bytes]) -> None:
    for file, data in whole.items():
        (place / file).write_bytes(data)
    for teller in (*place.glob("runs/*/summary.json"), *place.glob("data/dataset.json")):
        shutil.copyfile(samples / teller.relative_to(place), teller)


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _tell(box: Path, state: dict[str, Any]) -> None:
    aside = box / "state.tmp"
    aside.write_text(json.dumps(state))
    aside.replace(box / "state.json")
