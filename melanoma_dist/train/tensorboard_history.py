"""Merges the TensorBoard events of earlier processes into one file without gaps and duplicates.

TensorBoard hides values that a restarted process wrote twice, but it relies on file names, which contain the host's
time and the process id; other readers hide nothing. So a resumed training rewrites the history: every value up to its
step once, in the order of steps, and nothing of the steps that were lost with the process.
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
_MERGED = "events.out.tfevents.0000000000.merged"  # sorts first, so it is read first
_VERSION = "brain.Event:2"
_OF_STEPS = ("train/loss_running", "train/learning_rate", "input/", "gpu/")


def rewrite(folder: Path, steps: int, validated: bool = True) -> None:
    """Retain the values of the first ``steps`` steps. A kill in the middle loses and duplicates nothing.

    The metrics of an epoch are at its last step. Unless the epoch was ``validated``, those at ``steps`` are dropped.
    """
    files = sorted(set(folder.glob(_FILES)) - set(folder.glob("*.tmp")))  # left by a kill within this function
    if not files:
        return
    events: dict[tuple[int, str], Any] = {}
    for file in files:
        for event in _events(file):
            tags = _tags(event)
            if event.step < steps or (event.step == steps and (validated or tags.startswith(_OF_STEPS))):
                events[event.step, tags] = event  # duplicates are equal: training is deterministic

    def write(temporary: Path) -> None:
        with temporary.open("wb") as stream:
            writer = RecordWriter(stream)
            writer.write(Event(wall_time=0.0, file_version=_VERSION).SerializeToString())
            for _, event in sorted(events.items(), key=lambda item: item[0][0]):
                writer.write(event.SerializeToString())

    atomic.write_file(folder / _MERGED, write)
    for file in files:
        if file.name != _MERGED:
            file.unlink(missing_ok=True)


def _events(file: Path) -> Iterator[Any]:
    """Yield the readable events: a kill leaves half a record at the end, and a corrupt one may claim any length."""
    with suppress(DecodeError, MemoryError, OverflowError):
        for event in LegacyEventFileLoader(str(file)).Load():
            if event.HasField("summary"):
                yield event


def _tags(event: Any) -> str:
    return "\n".join(sorted(value.tag for value in event.summary.value))
