"""The exceptions a user may meet.

    MelanomaDistError        exit code 1
    ├── UserError            exit code 2: the user can mend it
    │   ├── ConfigError      a flag or a field of the configuration
    │   ├── ResumeError      a unit that was asked to go on otherwise than it began
    │   └── DataError        images, labels, a prepared folder
    │       └── CorruptImages    prepared images whose bytes have changed
    ├── DownloadError        a file that a server did not give: the network, an answer that is not the file
    ├── TrainingError        a unit that could not be trained: NaN, a storage that refuses
    │   └── OutOfMemory      a device had too little of it for so many images at once
    └── RankError            ranks that were lost or hang: the unit is worth another try

Each carries one finished message, and what else it carries stands in its ``args``: it crosses process borders intact.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class MelanomaDistError(Exception):
    """Base of every error this package raises on purpose."""

    exit_code = 1


class UserError(MelanomaDistError):
    """Something the user said or supplied is not usable."""

    exit_code = 2


class ConfigError(UserError, ValueError):
    """A field of the configuration breaks its rule. (A ``ValueError``, so that the parser boxes it.)"""

    @classmethod
    def of(cls, field: str, value: object, rule: str, remedy: str = "") -> ConfigError:
        """``field=value``, the rule it breaks and what to do about it, as one message."""
        return cls(f"--{field.replace('_', '-')} {value}: {rule}." + (f" {remedy}" if remedy else ""))


class DataError(UserError):
    """Images, labels or a prepared data set are missing, damaged or contradictory."""


class ResumeError(UserError):
    """A unit was asked to go on otherwise than it began: on other ranks, with other arithmetic."""


class CorruptImages(DataError):
    """Images that a unit was to learn from are not what was prepared."""

    def __init__(self, message: str, image_ids: tuple[str, ...]) -> None:
        super().__init__(message, image_ids)

    def __str__(self) -> str:
        return str(self.args[0])

    @property
    def image_ids(self) -> tuple[str, ...]:
        """All of them that the unit was to learn from."""
        return tuple(self.args[1])


class DownloadError(MelanomaDistError):
    """A file did not come: the network is down, or the server refuses it or sends something else."""


class TrainingError(MelanomaDistError):
    """A unit stopped for a reason that is not the user's typing and would come again: NaN, a full disk."""


class StorageError(TrainingError):
    """A unit's checkpoints could not be written. It goes on from the last one once the storage takes them again."""


class OutOfMemory(TrainingError):
    """A device had too little memory for so many images at once; with fewer at once the unit may well succeed."""

    def __init__(self, message: str, micro_batches: int) -> None:
        super().__init__(message, micro_batches)

    def __str__(self) -> str:
        return str(self.args[0])

    @property
    def micro_batches(self) -> int:
        """How many of them each rank may cut its share of a step into instead."""
        return int(self.args[1])


class RankError(MelanomaDistError):
    """Ranks of a unit were lost or hang; from its last checkpoint the unit may well succeed."""


def is_of_memory(error: BaseException) -> bool:
    """Whether an error, of whatever library, says that a device had too little memory: not all have a class for it."""
    text = str(error).lower()
    return any(sign in text for sign in ("out of memory", "bad_alloc", "memory allocation failed"))


def nearest(name: str, known: Iterable[str], count: int = 4) -> str:
    """The known names most like ``name``, as text for an error message."""
    close = get_close_matches(name, sorted(set(known)), n=count, cutoff=0.4)
    return ", ".join(close)
