"""The process that fuzzes one parser: reads corrupted inputs with limited memory, under audit hooks."""

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
from fuzzing.mutate import mutate
from fuzzing.parsers import Parser, parser
from melanoma_dist.errors import MelanomaDistError

MEMORY = 2**30
"""Bytes that a parser may allocate beyond the memory of the process at its start."""
_CHANGES = {"os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink", "os.chmod", "shutil.rmtree"}
_FORBIDDEN = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect", "os.fork"}


class Guard:
    """Records every changed file outside a folder, every new process and every connection."""

    def __init__(self, place: Path) -> None:
        self._place = str(place)
        self.active = False
        self.events: list[str] = []
        sys.addaudithook(self._audit)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.active:
            return
        if event in _FORBIDDEN:
            self.events.append(f"{event} {arguments!r}"[:200])
        elif event in _CHANGES or (event == "open" and _writes(arguments)):
            paths = arguments[:2] if event in ("os.rename", "os.link", "os.symlink") else arguments[:1]
            folder = arguments[-1] if event in ("os.remove", "os.rmdir") else -1
            self.events += [f"{event} {path!r}"[:200] for path in paths if not self._inside(path, folder)]

    def _inside(self, path: Any, folder: int) -> bool:
        """Whether a path is in the folder. ``folder``: descriptor that the path is relative to, or -1."""
        if isinstance(path, int) or path == os.devnull:
            return True
        full_path = os.path.join("" if folder == -1 else os.readlink(f"/proc/self/fd/{folder}"), os.fsdecode(path))
        return os.path.realpath(full_path).startswith(self._place)


def _writes(arguments: tuple[Any, ...]) -> bool:
    return bool(arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) if isinstance(arguments[2], int) else False


def fuzz(name: str, samples: Path, box: Path, seed: int, first: int, seconds: float, limit: int) -> None:
    """Read corrupted inputs, starting with number ``first``, for ``seconds`` or until ``limit`` of them.

    ``box`` is an empty folder. ``box/state.json`` holds the counts after each input, and ``box/input`` the present one;
    both survive a crash of this process. Exits with 1 after a finding, which ``state.json`` describes.
    """
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    reader, place = parser(name), box / "place"
    place.mkdir()
    copy_samples(samples, place, reader.folders)
    reader.begin(place)
    originals = {file: (place / file).read_bytes() for file in reader.files}
    guard = Guard(place.resolve())
    state: dict[str, Any] = {"next": first, "accepted": 0, "refused": 0, "finding": None}
    if _read(reader, place, guard) == "refused":  # intact samples; also triggers late imports
        raise RuntimeError(f"{name} refuses intact samples")
    _limit_memory()
    end = time.monotonic() + seconds
    while time.monotonic() < end and state["next"] - first < limit:
        file, data = _create_input(originals, name, seed, state["next"])
        (box / "input").write_bytes(data)
        (place / file).write_bytes(data)
        _write_state(box, state | {"file": file, "since": time.time(), "processor": time.process_time()})
        finding = _read(reader, place, guard)
        state["refused" if finding == "refused" else "accepted"] += 1
        state["next"] += 1
        _restore(samples, place, originals)
        if finding not in ("", "refused"):
            _write_state(box, state | {"file": file, "finding": finding})
            os._exit(1)
    _write_state(box, state | {"file": "", "done": True})
    os._exit(0)


def _create_input(originals: dict[str, bytes], name: str, seed: int, number: int) -> tuple[str, bytes]:
    """Create input ``number`` of the seed."""
    rng = random.Random(f"{seed} {name} {number}")  # noqa: S311  # nosec B311  # to be repeatable
    file = rng.choice(list(originals))
    return file, mutate(originals[file], file.rpartition(".")[2], list(originals.values()), rng)


def _read(reader: Parser, place: Path, guard: Guard) -> str:
    """Return "" if the input is accepted, "refused", or a description of the finding."""
    guard.events.clear()
    guard.active, outcome = True, ""
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            reader.read(place)
    except MelanomaDistError:
        outcome = "refused"
    except BaseException:
        outcome = traceback.format_exc()
    finally:
        guard.active = False
    return "; ".join(guard.events) or outcome


def _restore(samples: Path, place: Path, originals: dict[str, bytes]) -> None:
    for file, data in originals.items():
        (place / file).write_bytes(data)
    for summary in (*place.glob("runs/*/summary.json"), *place.glob("data/dataset.json")):
        shutil.copyfile(samples / summary.relative_to(place), summary)


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _write_state(box: Path, state: dict[str, Any]) -> None:
    aside = box / "state.tmp"
    aside.write_text(json.dumps(state))
    aside.replace(box / "state.json")
