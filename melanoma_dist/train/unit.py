"""A unit: one configuration on one fold, and where it reads and writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from melanoma_dist.config.run import RunConfig

SCRATCH = ".ray-"
"""Prefix of the folders, in a unit's folder, where Ray Train records one attempt."""


@dataclass(frozen=True)
class Unit:
    """A configuration on one fold. Plain values: it is sent to other processes."""

    config: RunConfig
    fold: int
    data: str
    """Folder of the prepared data set, or its URL; then every node makes a copy of its own."""
    fingerprint: str
    """Fingerprint of the data set when the run was planned. A unit refuses another data set."""
    run: Path
    """Folder of the run."""
    reports_to_scheduler: bool = False
    """Whether the scheduler of a sweep answers each epoch's report, and may stop the unit."""
    mirror: str | None = None
    """URL of the folder that mirrors the run, or None."""

    @property
    def name(self) -> str:
        """Run and fold, for people."""
        return f"{self.run.name} fold {self.fold}"

    @property
    def folder(self) -> Path:
        """Folder of the unit's events, metrics, checkpoints and predictions."""
        return self.run / f"fold-{self.fold}"

    @property
    def model(self) -> Path:
        """File of the weights of the best epoch. Its metadata describes how to use them."""
        return self.run / "model" / f"fold-{self.fold}.safetensors"

    @property
    def predictions(self) -> Path:
        """The last file that a unit writes. If it exists, the unit is finished."""
        return self.folder / "predictions.parquet"
