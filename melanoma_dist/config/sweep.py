"""The configuration of a sweep: search space, search algorithm and early stopping."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from melanoma_dist.config.rules import at_least, check, expand_home, optional_between
from melanoma_dist.config.run import RunConfig
from melanoma_dist.config.segment import SegmentConfig
from melanoma_dist.errors import ConfigError

Scheduler = Literal["halving", "asha", "hyperband", "median", "none", "pbt", "pb2"]
Searcher = Literal["random", "grid", "optuna", "hyperopt", "nevergrad", "bohb"]
FoldRace = Literal["forgiving", "aggressive", "none"]

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class SweepConfig:
    """Search configurations over the folds of one data set, and stop the clearly worse ones early."""

    space: Path | None = None
    """Python file with the search space, such as those in tune_spaces.
    It is executed: trust it like any program."""
    trials: int | None = None
    """Configurations to try, 1 to 100000. Default: the whole grid with --searcher grid, no limit with --time-budget.
    With --scheduler pbt or pb2: members of the population, at least 2."""
    time_budget: str | None = None
    """Time budget: 90m, 8h, 2d. After it no fold starts, and running folds pause after their epoch."""
    searcher: Searcher = "random"
    """random, grid (all combinations of a space of choices), or one guided by the fold means: optuna, and hyperopt,
    nevergrad or bohb if their packages are installed."""
    scheduler: Scheduler = "halving"
    """Early stopping within a first fold. halving: wait, and continue the best. Ray Tune's stop for good: asha,
    hyperband (ASHA with several grace periods), median. Or none. pbt: train a population on fold 0 alone, replace the
    worst by copies of the best, and change their hyperparameters on the way, at random; pb2: by what helped so far."""
    grace_epochs: int = 3
    """Epochs of a configuration before the scheduler may stop it, at least 1. With pbt, pb2: between two exchanges."""
    reduction_factor: float = 4.0
    """Reduction factor of halving, asha and hyperband, above 1: at each rung, 1 in this many continues. With pbt and
    pb2: 1 in this many is replaced, and has its parent among the best 1 in this many."""
    fold_race: FoldRace = "forgiving"
    """Early stopping between folds. forgiving: drop a configuration if its mean is no better than the best one's worst
    fold. aggressive: if its mean is no better than the best one's mean (unreliable). none: never."""
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        expand_home(self, "space")
        optional_between(self, "trials", 1, 100_000)
        at_least(self, 1, "grace_epochs")
        check(self, "reduction_factor", self.reduction_factor > 1, "must be above 1")
        epochs = self.run.schedule.epochs
        stops = self.scheduler == "none" or self.grace_epochs < epochs
        check(self, "grace_epochs", stops, f"must be below --epochs {epochs}, or the scheduler never stops a fold")
        once = self.run.repeats == 1
        check(self.run, "repeats", once, "is for a run: a sweep trains each fold once. Repeat its best.yaml")
        self.budget_seconds()
        if self.has_population:
            together = f"with --scheduler {self.scheduler}"
            check(self, "searcher", self.searcher == "random", f"must be random {together}")
            check(self, "trials", self.trials is None or self.trials >= 2, f"must be at least 2 {together}")

    @property
    def has_population(self) -> bool:
        """Whether this is population-based training: on one fold, with configurations that continue others."""
        return self.scheduler in ("pbt", "pb2")

    @property
    def folds(self) -> int:
        """Folds that a complete configuration has trained."""
        return 1 if self.has_population else self.run.data.folds

    def budget_seconds(self) -> float | None:
        """The time budget in seconds. Raises ConfigError for text of another form."""
        if self.time_budget is None:
            return None
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", self.time_budget)
        if match is None or float(match[1]) <= 0:
            raise ConfigError.of("time_budget", self.time_budget, "must be a number and a unit: 45s, 90m, 8h or 2d")
        return float(match[1]) * _SECONDS[match[2]]

    def require_complete(self) -> None:
        """Raise ConfigError if the space is missing, or nothing would end the search."""
        missing = []
        if self.space is None:
            missing.append("--space: name a file with a search space, such as those in tune_spaces.")
        elif not self.space.is_file():
            missing.append(f"--space {self.space}: cannot be read (No such file or directory).")
        if self.has_population and self.trials is None:
            missing.append("--trials: give the number of members of the population.")
        elif self.searcher != "grid" and self.trials is None and self.time_budget is None:
            missing.append("--trials: give the number of configurations to try, or --time-budget, or both.")
        if missing:
            raise ConfigError("\nerror: ".join(missing))

    def policy(self) -> dict[str, str | int | float]:
        """The fields that decide about configurations. A sweep resumes only with the same ones."""
        names = ["searcher", "scheduler", "grace_epochs", "reduction_factor", "fold_race"]
        names += ["trials"] if self.has_population else []  # all members of a population wait for each other
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class SegmentSweepConfig(SweepConfig):
    """Search configurations of a segmenter over the folds of one data set, and stop the clearly worse ones early."""

    run: SegmentConfig = field(default_factory=SegmentConfig)
