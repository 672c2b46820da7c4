"""The configuration of a sweep: what is searched, how, and when a configuration has been seen enough of."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from melanoma_dist.config.run import RunConfig
from melanoma_dist.errors import ConfigError

Scheduler = Literal["asha", "hyperband", "median", "none"]
Searcher = Literal["random", "grid", "optuna"]
FoldRace = Literal["forgiving", "aggressive", "none"]

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class SweepConfig:
    """Search configurations over the folds of one data set, stopping early those that are visibly worse."""

    space: Path | None = None
    """Python file with the search space, such as tune_spaces/backbones.py. It is executed: trust it as any program."""
    trials: int | None = None
    """Configurations to try, 1 to 100000; the whole grid with --searcher grid, no limit with --time-budget."""
    time_budget: str | None = None
    """Time after which nothing new starts and what runs pauses after its epoch: 90m, 8h, 2d."""
    searcher: Searcher = "random"
    """random, grid (every combination of a space of choices) or optuna (TPE: learns from the fold means)."""
    scheduler: Scheduler = "asha"
    """What stops a first fold between its epochs: asha, hyperband (ASHA with several grace periods), median or none."""
    grace_epochs: int = 3
    """Epochs before the scheduler may stop a configuration, at least 1."""
    reduction_factor: float = 3.0
    """ASHA goes on with the best 1 in so many at each of its rungs, above 1."""
    fold_race: FoldRace = "forgiving"
    """After a fold, drop a configuration whose mean is at or below the best one's worst fold (forgiving) or mean
    (aggressive: known to be unreliable), or never (none)."""
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        trials = self.trials
        _check("trials", trials, trials is None or 1 <= trials <= 100_000, "must be 1 to 100000")
        _check("grace_epochs", self.grace_epochs, self.grace_epochs >= 1, "must be at least 1")
        _check("reduction_factor", self.reduction_factor, self.reduction_factor > 1, "must be above 1")
        epochs = self.run.schedule.epochs
        stops = self.scheduler == "none" or self.grace_epochs < epochs
        _check("grace_epochs", self.grace_epochs, stops, f"must be below --epochs {epochs}, or nothing is ever stopped")
        repeats = self.run.repeats
        _check("repeats", repeats, repeats == 1, "is for a run: a sweep trains each fold once. Repeat its best.yaml")
        self.budget_seconds()

    def budget_seconds(self) -> float | None:
        """The time budget in seconds. Raises ConfigError for a text that is none."""
        if self.time_budget is None:
            return None
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", self.time_budget)
        if match is None or float(match[1]) <= 0:
            raise ConfigError.of("time_budget", self.time_budget, "must be a number and a unit: 45s, 90m, 8h or 2d")
        return float(match[1]) * _SECONDS[match[2]]

    def policy(self) -> dict[str, Any]:
        """What decides about configurations; more trials and more time go on with the same sweep."""
        return {
            "searcher": self.searcher,
            "scheduler": self.scheduler,
            "grace_epochs": self.grace_epochs,
            "reduction_factor": self.reduction_factor,
            "fold_race": self.fold_race,
        }


def _check(name: str, value: object, holds: bool, rule: str) -> None:
    if not holds:
        raise ConfigError.of(name, str(value), rule)
