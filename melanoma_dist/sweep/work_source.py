"""The units of a sweep as a ``WorkSource`` of the engine: the controller decides, and the journal records."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from melanoma_dist.artifacts.epochs import has_epochs, read_epochs
from melanoma_dist.artifacts.run_folder import locate_run, open_run, remove_checkpoints
from melanoma_dist.config.run import RunConfig, with_values
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.data.node_copies import resolve_source
from melanoma_dist.display import Display
from melanoma_dist.errors import ConfigError, DataError, MelanomaDistError, ResumeError, StorageError
from melanoma_dist.mirror.run_mirror import fold_url
from melanoma_dist.mirror.sweep_mirror import runs_url
from melanoma_dist.run import check_batch
from melanoma_dist.sweep.controller import Controller
from melanoma_dist.sweep.journal import (
    ConfigDropped,
    EpochFinished,
    Journal,
    UnitEnded,
    UnitFailed,
    UnitRestarted,
    UnitStarted,
    UnitStopped,
    UnitWaits,
    as_written,
    timestamp,
)
from melanoma_dist.sweep.racing import Drop, FoldTrial
from melanoma_dist.sweep.space import Space, Values
from melanoma_dist.sweep.tracking import SweepTracker
from melanoma_dist.train.events import EpochDone, Event, Paused
from melanoma_dist.train.unit import Unit

_LONGEST_NAME = 60
_APPEARS_S = 10.0  # a network file system may show a file late
_MOST_SAVED = 8  # paused folds with checkpoints, which are large
_OUT_OF_TIME = "the time budget is spent"


@dataclass(frozen=True)
class SweepContext:
    """What all configurations of a sweep share."""

    config: RunConfig
    dataset: Dataset
    folds: pd.DataFrame
    folder: Path
    space: Space

    def configured(self, number: int, values: Values) -> RunConfig:
        """A configuration as a run below the sweep's folder. Raises ConfigError for values that do not fit together."""
        place = {"name": self.name(number, values), "runs": self.folder, "mirror": self.mirror}
        config = with_values(self.config, {**values, **place})
        check_batch(config, self.folds)
        return config

    @property
    def mirror(self) -> str | None:
        """The URL below which its runs are mirrored; None without a mirror."""
        return runs_url(self.config.mirror, self.folder)

    def name(self, number: int, values: Values) -> str:
        """The name of a configuration's run: its number and as many of its values as fit, safe for file systems."""
        name = f"c{number:03d}"
        for part in (_word(key, value) for key, value in values.items()):
            if len(name) + len(part) < _LONGEST_NAME:
                name += f"-{part}"
        return name


class SweepWorkSource:
    """Starts the units that the controller chooses, and answers their reports."""

    def __init__(
        self,
        context: SweepContext,
        controller: Controller,
        journal: Journal,
        display: Display,
        deadline: float | None,
        on_end: Callable[[int], None],
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        """``deadline``: by the monotonic clock. ``on_end`` receives the configuration of each unit that ended.

        ``on_change`` is called when a unit started or ended.
        Units that run according to the journal are restarted first.
        """
        self._context, self._controller, self._journal, self._display = context, controller, journal, display
        self._deadline, self._on_end, self._on_change = deadline, on_end, on_change
        self._tracker = SweepTracker(context.folder.name)
        self._interrupted = list(controller.running)
        self._units: dict[Unit, FoldTrial] = {}
        self._paused: set[Unit] = set()  # units that saved and left on request
        self._saved = set(controller.waiting)  # configurations whose first fold paused, and has its checkpoints

    def next_unit(self) -> Unit | None:
        """The unit to start now."""
        while not self._is_late():
            is_restart = bool(self._interrupted)
            trial = self._interrupted.pop(0) if is_restart else self._controller.next()
            if trial is None:
                return None
            if self._controller.reason_to_leave(trial) is not None:  # dropped while it waited
                del self._controller.running[trial]
                continue
            if is_restart:
                self._journal.write(UnitRestarted(timestamp(), *trial))
            else:
                self._saved.discard(trial.configuration)
                values = as_written(self._controller.values[trial.configuration]) if trial.fold == 0 else None
                parent = self._controller.parent(trial.configuration)
                self._journal.write(UnitStarted(timestamp(), *trial, values, parent))
            try:
                config = self._context.configured(trial.configuration, self._controller.values[trial.configuration])
            except ConfigError as error:  # each value is valid, but not all together
                self._fail(trial, 0.0, error)
                continue
            unit = self._unit(trial, config)
            self._inherit(trial, unit)
            self._on_change()
            if self._stops_at_known_epoch(trial, unit):
                self.on_exit(unit, 0.0)
                continue
            return unit
        return None

    def describe(self, unit: Unit) -> dict[str, object]:
        """A unit as Ray Tune shows it: its run, its fold and its values."""
        trial = self._units[unit]
        values = self._controller.values[trial.configuration]
        return {"name": unit.run.name, "configuration": trial.configuration, "fold": trial.fold, **as_written(values)}

    def on_event(self, unit: Unit, event: Event) -> str | None:
        """Show an event. Returns the reason to stop the unit after this epoch, or None."""
        self._display.show(unit.name, event)
        if isinstance(event, Paused):
            self._paused.add(unit)
        if not isinstance(event, EpochDone):
            return None
        self._tracker.log_epoch(unit, event)
        return self._record_epoch(self._units[unit], unit.name, event)

    def on_exit(self, unit: Unit, seconds: float) -> None:
        """Record that a unit released its devices: finished, stopped, paused by a signal, or waiting at a rung."""
        trial = self._units.pop(unit)
        self._display.remove(unit.name)
        self._tracker.exit(unit)
        state = self._state(trial, unit)
        self._journal.write(UnitEnded(timestamp(), *trial, state, round(seconds, 3)))
        if state == "finished":
            self._record_drops(self._controller.finish(trial))
        if state == "waiting":
            self._record_drops(self._controller.release(trial))
            self._saved.add(trial.configuration)
        elif state != "paused":
            remove_checkpoints(unit.config, unit.folder)
        if state != "paused":
            self._on_end(trial.configuration)
        self._forget_waiting()
        self._on_change()

    def on_failure(self, unit: Unit, seconds: float, error: MelanomaDistError) -> None:
        """Fail the configuration of a unit that cannot be trained. Raises errors of the environment (data, disk)."""
        if isinstance(error, DataError | StorageError | ResumeError):
            raise error
        self._display.remove(unit.name)
        self._tracker.exit(unit)
        self._fail(self._units.pop(unit), seconds, error)
        remove_checkpoints(unit.config, unit.folder)
        self._forget_waiting()
        self._on_change()

    def on_idle(self) -> None:
        """Redraw."""
        self._display.refresh()

    def _record_epoch(self, trial: FoldTrial, title: str, event: EpochDone) -> str | None:
        progress = self._controller.running.get(trial)
        if progress is None:  # it was stopped or waits, and died before it left
            return self._controller.reason_to_leave(trial)
        if event.epoch > progress.epoch:
            self._journal.write(
                EpochFinished(timestamp(), *trial, event.epoch, event.score, event.best_score, event.seconds)
            )
        reason = self._controller.report_epoch(trial, event.epoch, event.best_score, event.score)
        if reason is not None:
            waits = trial.configuration in self._controller.waiting
            self._journal.write((UnitWaits if waits else UnitStopped)(timestamp(), *trial, event.epoch, reason))
            ending = f"waits: {reason}; it may continue later" if waits else f"stopped: {reason}"
            self._display.print_line(f"{title} {ending}")
            return reason
        return _OUT_OF_TIME if self._is_late() else None

    def _stops_at_known_epoch(self, trial: FoldTrial, unit: Unit) -> bool:
        """Record the epochs of a fold that the journal does not have: from a mirror, the journal may be the older one.

        Returns whether the sweep stops the unit after one of them.
        """
        records = read_epochs(unit.folder) if has_epochs(unit.folder) else []
        events = (EpochDone.of(unit.fold, unit.config.schedule.epochs, record) for record in records)
        return any(self._record_epoch(trial, unit.name, event) not in (None, _OUT_OF_TIME) for event in events)

    def _fail(self, trial: FoldTrial, seconds: float, error: MelanomaDistError) -> None:
        self._journal.write(UnitFailed(timestamp(), *trial, str(error), round(seconds, 3)))
        self._display.print_line(f"c{trial.configuration:03d} failed: {error}")
        self._record_drops(self._controller.fail(trial, str(error)))
        self._on_end(trial.configuration)

    def _record_drops(self, drops: list[Drop]) -> None:
        for drop in drops:
            self._journal.write(ConfigDropped(timestamp(), drop.configuration, drop.reason))
            self._display.print_line(f"c{drop.configuration:03d} dropped: {drop.reason}")

    def _unit(self, trial: FoldTrial, config: RunConfig) -> Unit:
        context = self._context
        folder = locate_run(config, context.dataset)
        open_run(folder, config, context.folds)
        source = resolve_source(config.data.data, context.dataset.folder)
        place = folder.path.resolve()
        mirror = fold_url(config, folder, folder.path, trial.fold)
        fingerprint = context.dataset.fingerprint
        unit = Unit(config, trial.fold, source, fingerprint, place, reports_to_scheduler=True, mirror=mirror)
        self._units[unit] = trial
        self._tracker.start(unit, folder)
        return unit

    def _inherit(self, trial: FoldTrial, unit: Unit) -> None:
        """Let the child of a population start from the checkpoint of its parent, whose training it continues."""
        from melanoma_dist.train.inherit import inherit  # PyTorch takes seconds to load

        origin = self._controller.origins.get(trial.configuration)
        if origin is None:
            return
        parent = self._context.configured(origin.parent, self._controller.values[origin.parent])
        folder = locate_run(parent, self._context.dataset).path / unit.folder.name
        if not inherit(unit, parent, folder, origin.epoch):
            self._display.print_line(f"{unit.name}: no checkpoint of {parent.name}; it trains from its start")

    def _state(self, trial: FoldTrial, unit: Unit) -> str:
        if trial in self._controller.running:
            return "finished" if unit not in self._paused and self._is_finished(unit) else "paused"
        return "waiting" if trial.configuration in self._controller.waiting else "stopped"

    def _forget_waiting(self) -> None:
        """Remove checkpoints of first folds that wait, but for those likeliest to continue.

        A fold without a checkpoint trains again from its start, to the same bytes. All of a population will continue.
        """
        most = None if self._controller.has_population else _MOST_SAVED
        likeliest = () if self._controller.is_finished() else self._controller.likeliest_to_continue()[:most]
        for number in self._saved - set(likeliest):
            config = self._context.configured(number, self._controller.values[number])
            remove_checkpoints(config, locate_run(config, self._context.dataset).path / "fold-0")
            self._saved.remove(number)

    def _is_finished(self, unit: Unit) -> bool:
        """Whether its predictions exist."""
        limit = time.monotonic() + _APPEARS_S
        while not unit.predictions.is_file() and not self._is_late() and time.monotonic() < limit:
            time.sleep(0.1)
        return unit.predictions.is_file()

    def _is_late(self) -> bool:
        return self._deadline is not None and time.monotonic() > self._deadline


def _word(key: str, value: object) -> str:
    field = key.rpartition(".")[2]
    if isinstance(value, str):
        text = value
    elif isinstance(value, bool):
        text = field if value else f"no-{field}"
    else:
        text = f"{field}{value:.3g}" if isinstance(value, float) else f"{field}{value}"
    return re.sub(r"[^A-Za-z0-9.-]+", "_", text)
