"""A unit: one configuration on one fold, and where it reads and writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from melanoma_dist.config.run import RunConfig

SCRATCH = ".ray-"
"""What the folders' names begin with in which Ray Train keeps a record of one attempt, beside what the unit leaves."""


@dataclass(frozen=True)
class Unit:
    """What a training needs to know. Plain values: it travels to other processes."""

    config: RunConfig
    fold: int
    data: str
    """Folder of the prepared data set, or its URL, of which every node has a copy of its own."""
    fingerprint: str
    """What the data set was when the run was planned; a unit refuses another one."""
    run: Path
    """Folder of the run."""
    reports_to_scheduler: bool = False
    """Whether each epoch's report is answered: a unit of a sweep may be told to stop."""
    mirror: str | None = None
    """URL of the copy that is kept of the unit, where one is."""

    @property
    def name(self) -> str:
        """The unit for people: run and fold."""
        return f"{self.run.name} fold {self.fold}"

    @property
    def folder(self) -> Path:
        """Where the unit leaves its events, metrics, checkpoints and predictions."""
        return self.run / f"fold-{self.fold}"

    @property
    def model(self) -> Path:
        """The weights of the best epoch, with what is needed to use them in the file's metadata."""
        return self.run / "model" / f"fold-{self.fold}.safetensors"

    @property
    def predictions(self) -> Path:
        """The last file a unit writes: where it is, the unit is finished."""
        return self.folder / "predictions.parquet"
