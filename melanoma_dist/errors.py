"""The exceptions that a user may see.

    MelanomaDistError            exit code 1
    ├── UserError                exit code 2: the user can fix it
    │   ├── ConfigError          a flag or a field of the configuration
    │   ├── DataError            images, labels, a prepared data set
    │   │   └── CorruptImages    prepared images whose bytes changed
    │   └── ResumeError          a unit that would resume in other conditions
    ├── ClusterError             Ray that does not start on this machine
    ├── DownloadError            a file that did not arrive: the network, or the server
    ├── TrainingError            a unit that cannot train, and would fail again
    │   ├── OutOfMemory          too little memory on a device for the micro-batch
    │   └── StorageError         checkpoints that could not be written
    └── RankError                ranks that were lost or hang: the unit restarts

Each has one complete message. All its values are in ``args``, so that pickling between processes preserves it.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class MelanomaDistError(Exception):
    """Base class of the errors that this package raises on purpose."""

    exit_code = 1


class UserError(MelanomaDistError):
    """The user's input or data cannot be used."""

    exit_code = 2


class ConfigError(UserError):
    """A field of the configuration breaks its rule."""

    @classmethod
    def of(cls, field: str, value: object, rule: str, remedy: str = "") -> ConfigError:
        """Build the message: the field as a flag, its value, the rule, and the remedy if there is one."""
        return cls(f"--{field.replace('_', '-')} {value}: {rule}." + (f" {remedy}" if remedy else ""))


class DataError(UserError):
    """Images, labels or a prepared data set are missing, corrupt or contradictory."""


class ResumeError(UserError):
    """A unit would resume in other conditions than it started in: other ranks, code or arithmetic."""


class CorruptImages(DataError):
    """Training images of a unit differ from the prepared ones."""

    def __init__(self, message: str, image_ids: tuple[str, ...]) -> None:
        super().__init__(message, image_ids)

    def __str__(self) -> str:
        return str(self.args[0])

    @property
    def image_ids(self) -> tuple[str, ...]:
        """All corrupt training images of the unit."""
        return tuple(self.args[1])


class ClusterError(MelanomaDistError):
    """Ray did not start on this machine."""


class DownloadError(MelanomaDistError):
    """A download failed: no network, or the server refuses the file or sends something else."""


class TrainingError(MelanomaDistError):
    """A unit stopped and would stop again, though the command is right: NaN, a full disk."""


class StorageError(TrainingError):
    """Checkpoints of a unit could not be written. It resumes from the last one when the storage works again."""


class OutOfMemory(TrainingError):
    """A device had too little memory for the micro-batch. The unit may succeed with smaller ones."""

    def __init__(self, message: str, micro_batches: int) -> None:
        super().__init__(message, micro_batches)

    def __str__(self) -> str:
        return str(self.args[0])

    @property
    def micro_batches(self) -> int:
        """The number of micro-batches per rank and step to try next."""
        return int(self.args[1])


class RankError(MelanomaDistError):
    """Ranks of a unit were lost or hang. The unit may succeed after a restart from its last checkpoint."""


def is_of_memory(error: BaseException) -> bool:
    """Whether an error of any library means too little memory. Not all libraries have a class for it."""
    text = str(error).lower()
    return any(sign in text for sign in ("out of memory", "bad_alloc", "memory allocation failed"))


def nearest(name: str, known: Iterable[str], count: int = 4) -> str:
    """The known names most similar to ``name``, for an error message."""
    close = get_close_matches(name, sorted(set(known)), n=count, cutoff=0.4)
    return ", ".join(close)
