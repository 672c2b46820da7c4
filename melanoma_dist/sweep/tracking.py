"""A sweep in an experiment tracker: a run of the tracker for each configuration, open while one of its folds trains."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from melanoma_dist.artifacts.run_folder import RunFolder
from melanoma_dist.train.events import EpochDone
from melanoma_dist.train.unit import Unit

if TYPE_CHECKING:  # scikit-learn takes seconds to load
    from melanoma_dist.evaluate.tracking import RunTracker


class SweepTracker:
    """The tracker of a sweep, if the user wants one."""

    def __init__(self, sweep: str) -> None:
        """``sweep``: its name, by which the tracker groups the configurations."""
        self._sweep = sweep
        self._trackers: dict[Path, RunTracker] = {}
        self._running: Counter[Path] = Counter()  # units of each run
        self._failed = False  # a tracker that fails once is left alone: each attempt may take minutes

    def start(self, unit: Unit, folder: RunFolder) -> None:
        """A unit starts."""
        self._running[unit.run] += 1
        if unit.config.track != "none" and unit.run not in self._trackers and not self._failed:
            from melanoma_dist.evaluate.tracking import track_run

            tracker = self._trackers[unit.run] = track_run(unit.config, folder, self._sweep)
            self._failed = not tracker.is_open

    def log_epoch(self, unit: Unit, event: EpochDone) -> None:
        """Send the metrics of an epoch."""
        if (tracker := self._trackers.get(unit.run)) is not None and not self._failed:
            tracker.log_epoch(f"fold {unit.fold}", event)
            self._failed = not tracker.is_open

    def exit(self, unit: Unit) -> None:
        """A unit left its devices. The tracker's run ends with the last running fold of the configuration."""
        self._running[unit.run] -= 1
        if not self._running[unit.run] and (tracker := self._trackers.pop(unit.run, None)) is not None:
            tracker.close()
