"""What earlier processes wrote for TensorBoard, brought into one file without holes and doubles.

TensorBoard itself hides what a restarted process wrote twice, but it goes by the names of files, which hold the time of
their host and the number of their process; other readers hide nothing. So a training that goes on rewrites the history:
every value up to its step once, in the order of steps, and nothing of what was lost with the process.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter

from melanoma_dist.storage import atomic

_FILES = "events.out.tfevents.*"
_KEPT = "events.out.tfevents.0000000000.kept"  # read before any other
_VERSION = "brain.Event:2"
_OF_STEPS = ("train/loss_running", "train/learning_rate", "input/")


def rewrite(folder: Path, steps: int, validated: bool = True) -> None:
    """Keep what was written of the first ``steps`` steps. A kill in the middle loses nothing and doubles nothing.

    An epoch's figures stand at its last step: where it is still to be ``validated``, those of this step go.
    """
    files = sorted(set(folder.glob(_FILES)) - set(folder.glob("*.tmp")))  # what a kill left of this very function
    if not files:
        return
    kept: dict[tuple[int, str], Any] = {}
    for file in files:
        for event in _events(file):
            tags = _tags(event)
            if event.step < steps or (event.step == steps and (validated or tags.startswith(_OF_STEPS))):
                kept[event.step, tags] = event  # the later one is the same: it was computed anew

    def write(aside: Path) -> None:
        with aside.open("wb") as stream:
            writer = RecordWriter(stream)
            writer.write(Event(wall_time=0.0, file_version=_VERSION).SerializeToString())
            for _, event in sorted(kept.items(), key=lambda item: item[0][0]):
                writer.write(event.SerializeToString())

    atomic.write_file(folder / _KEPT, write)
    for file in files:
        if file.name != _KEPT:
            file.unlink(missing_ok=True)


def _events(file: Path) -> Iterator[Any]:
    """What can be read: a killed process leaves half a record at the end, and a damaged one may claim any length."""
    with suppress(DecodeError, MemoryError, OverflowError):
        for event in LegacyEventFileLoader(str(file)).Load():
            if event.HasField("summary"):
                yield event


def _tags(event: Any) -> str:
    return "\n".join(sorted(value.tag for value in event.summary.value))
