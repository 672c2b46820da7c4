"""Runs a section in a process of its own: what hangs, crashes or breaks the GPU's context there, ends nothing else.

The process imports PyTorch while the section before it still measures, and waits for its turn.
"""

from __future__ import annotations

import json
import os
import pickle  # nosec B403  # from the parent process
import subprocess  # nosec B404  # for this program itself
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import IO, Self, cast

import psutil

from on_gpu.settings import Row

_BENCHMARKS = Path(__file__).resolve().parents[1]


class Child:
    """A process that waits for a section."""

    def __init__(self) -> None:
        reading, writing = os.pipe()
        places = [str(_BENCHMARKS), str(_BENCHMARKS.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(  # noqa: S603  # nosec B603  # this program itself
            [sys.executable, "-m", "on_gpu.child", str(writing)], stdin=subprocess.PIPE, pass_fds=[writing],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(places)},
        )  # fmt: skip
        os.close(writing)
        self._rows = os.fdopen(reading)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()
        self._process.wait()
        self._rows.close()

    def run(self, place: str, arguments: tuple[object, ...], limit_s: float) -> Iterator[Row]:
        """Yield the rows of the function ``place`` ("module:function") as they come. Too long, and it is killed."""
        late = threading.Event()

        def end() -> None:
            late.set()
            self._kill()

        timer = threading.Timer(limit_s, end)
        timer.start()
        try:
            with suppress(BrokenPipeError), cast(IO[bytes], self._process.stdin) as pipe:
                pickle.dump((place, arguments), pipe)
            for line in self._rows:
                yield Row(**json.loads(line))
            code = self._process.wait()
        finally:
            timer.cancel()
        if late.is_set():
            yield Row("FAILED", "-", f"took more than {limit_s:.0f} s")
        elif code:
            yield Row("FAILED", "-", f"the process ended with {code}")

    def _kill(self) -> None:
        """Kill the process and all that it started."""
        with suppress(psutil.NoSuchProcess):
            family = psutil.Process(self._process.pid)
            for each in (*family.children(recursive=True), family):
                with suppress(psutil.NoSuchProcess):
                    each.kill()


def rows_of(place: str, arguments: tuple[object, ...]) -> Iterator[Row]:
    """The rows of a function; its failure is the last of them."""
    module, _, function = place.partition(":")
    try:
        yield from getattr(import_module(f"on_gpu.{module}"), function)(*arguments)
    except Exception as error:  # a benchmark that meets a surprise continues with the next
        text = " ".join(str(error).split()) or "no message"
        yield Row("FAILED", type(error).__name__, text[:300])


def main() -> None:
    """Wait for a section on standard input; write its rows to the file descriptor of the argument."""
    import_module("on_gpu.dali")
    import_module("on_gpu.learning")
    try:
        place, arguments = pickle.load(sys.stdin.buffer)  # noqa: S301  # nosec B301  # from the parent process
    except EOFError:
        return
    with os.fdopen(int(sys.argv[1]), "w") as answer:
        for row in rows_of(place, arguments):
            print(json.dumps(asdict(row)), file=answer, flush=True)


if __name__ == "__main__":
    main()
