"""The units of a sweep as the engine that trains them sees them: the conductor decides, the journal remembers."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from melanoma_dist.artifacts.run_folder import RunFolder, locate_run, open_run
from melanoma_dist.config.run import RunConfig, with_values
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.data.node_copies import resolve_source
from melanoma_dist.display import Display
from melanoma_dist.errors import ConfigError, DataError, MelanomaDistError, ResumeError, StorageError
from melanoma_dist.run import check_batch
from melanoma_dist.sweep.controller import Controller
from melanoma_dist.sweep.journal import Journal, as_written
from melanoma_dist.sweep.racing import FoldTrial
from melanoma_dist.train.events import EpochDone, Event, Paused
from melanoma_dist.train.unit import Unit

_LONGEST_NAME = 60
_APPEARS_S = 10.0
_OUT_OF_TIME = "the time budget is spent"


@dataclass(frozen=True)
class SweepContext:
    """What all configurations of a sweep have in common."""

    config: RunConfig
    dataset: Dataset
    folds: pd.DataFrame
    folder: Path
    varied: tuple[str, ...]
    """The dotted fields of the search space."""

    def configured(self, number: int, values: dict[str, Any]) -> RunConfig:
        """A configuration, as a run below the sweep's folder. Raises ConfigError for values that do not go together."""
        config = with_values(self.config, {**values, "name": self.name(number, values), "runs": self.folder})
        check_batch(config, self.folds)
        return config

    def name(self, number: int, values: dict[str, Any]) -> str:
        """The name of a configuration's run: its number and the first of its values, for people and file systems."""
        name = f"c{number:03d}"
        for part in (_word(key, value) for key, value in values.items()):
            if len(name) + len(part) < _LONGEST_NAME:
                name += f"-{part}"
        return name

    def locate_run(self, config: RunConfig) -> RunFolder:
        """Where a configuration leaves its folds."""
        return locate_run(config, self.dataset)


class SweepWorkSource:
    """Starts what the conductor names and answers what units report."""

    def __init__(
        self,
        ground: SweepContext,
        conductor: Controller,
        journal: Journal,
        display: Display,
        deadline: float | None,
        on_end: Callable[[int], None],
    ) -> None:
        """``deadline``: by the monotonic clock. ``on_end`` is told the configuration of a unit that ended.

        Units that the journal left running are started again first.
        """
        self._ground, self._conductor, self._journal, self._display = ground, conductor, journal, display
        self._deadline, self._on_end = deadline, on_end
        self._left = list(conductor.running)
        self._units: dict[Unit, FoldTrial] = {}
        self._paused: set[Unit] = set()  # that left as they were asked to

    def next_unit(self) -> Unit | None:
        """The unit to start now."""
        while not self._late():
            place, again = (self._left.pop(0), True) if self._left else (self._conductor.next(), False)
            if place is None:
                return None
            if self._out(place):  # dropped while it waited
                del self._conductor.running[place]
                continue
            self._note_start(place, again)
            try:
                config = self._ground.configured(place.configuration, self._conductor.values[place.configuration])
            except ConfigError as error:  # values that are good alone and not together
                self._fail(place, 0.0, error)
                continue
            return self._unit(place, config)
        return None

    def on_event(self, unit: Unit, event: Event) -> str | None:
        """Show an event, and answer the end of an epoch."""
        self._display.show(unit.name, event)
        if isinstance(event, Paused):
            self._paused.add(unit)
        return self._judge(self._units[unit], unit.name, event) if isinstance(event, EpochDone) else None

    def on_exit(self, unit: Unit, seconds: float) -> None:
        """A unit released its devices: finished, stopped or paused."""
        place = self._units.pop(unit)
        self._display.remove(unit.name)
        if place not in self._conductor.running:
            self._note(place, "end", state="stopped", seconds=round(seconds, 3))
        elif unit not in self._paused and self._is_finished(unit):
            self._note(place, "end", state="finished", seconds=round(seconds, 3))
            self._drop(place)
        else:
            self._note(place, "end", state="paused", seconds=round(seconds, 3))
            return
        # Nothing goes on from them: weights and predictions of a finished fold lie elsewhere.
        shutil.rmtree(unit.folder / "checkpoints", ignore_errors=True)
        self._on_end(place.configuration)

    def on_failure(self, unit: Unit, seconds: float, error: MelanomaDistError) -> None:
        """A unit cannot be trained: its configuration is out. What is no fault of it (data, disk) is raised."""
        if isinstance(error, DataError | StorageError | ResumeError):
            raise error
        self._display.remove(unit.name)
        self._fail(self._units.pop(unit), seconds, error)
        shutil.rmtree(unit.folder / "checkpoints", ignore_errors=True)

    def on_idle(self) -> None:
        """Redraw."""
        self._display.refresh()

    def _judge(self, place: FoldTrial, title: str, event: EpochDone) -> str | None:
        seen = self._conductor.running.get(place)
        if seen is None:  # it was told to stop, and died before it did
            return self._conductor.race.runners[place.configuration].out
        if event.epoch > seen.epoch:
            figures = {name: getattr(event, name) for name in ("epoch", "auc", "best_auc", "seconds")}
            self._note(place, "epoch", **figures)
        reason = self._conductor.epoch(place, event.epoch, event.best_auc)
        if reason is not None:
            self._note(place, "stop", epoch=event.epoch, why=reason)
            self._display.print_line(f"{title} stopped: {reason}")
            return reason
        return _OUT_OF_TIME if self._late() else None

    def _drop(self, place: FoldTrial) -> None:
        """A fold is finished: some configurations may have lost by it."""
        for drop in self._conductor.finish(place):
            self._journal.write("drop", configuration=drop.configuration, why=drop.why)
            self._display.print_line(f"c{drop.configuration:03d} dropped: {drop.why}")

    def _fail(self, place: FoldTrial, seconds: float, error: MelanomaDistError) -> None:
        self._note(place, "fail", why=str(error), seconds=round(seconds, 3))
        self._conductor.fail(place, str(error))
        self._display.print_line(f"c{place.configuration:03d} failed: {error}")
        self._on_end(place.configuration)

    def _unit(self, place: FoldTrial, config: RunConfig) -> Unit:
        ground = self._ground
        folder = ground.locate_run(config)
        open_run(folder, config, ground.folds)
        dataset = ground.dataset
        unit = Unit(
            config,
            place.fold,
            resolve_source(config.data.data, dataset.folder),
            dataset.fingerprint,
            folder.path.resolve(),
            reports_to_scheduler=True,
        )
        self._units[unit] = place
        return unit

    def _note_start(self, place: FoldTrial, again: bool) -> None:
        if again:
            self._note(place, "restart")
        elif place.fold == 0:
            self._note(place, "start", values=as_written(self._conductor.values[place.configuration]))
        else:
            self._note(place, "start")

    def _note(self, place: FoldTrial, what: str, **fields: Any) -> None:
        self._journal.write(what, configuration=place.configuration, fold=place.fold, **fields)

    def _out(self, place: FoldTrial) -> bool:
        return self._conductor.race.runners[place.configuration].out is not None

    def _is_finished(self, unit: Unit) -> bool:
        """Whether its predictions are there, which a network file system may show late."""
        limit = time.monotonic() + _APPEARS_S
        while not unit.predictions.is_file() and not self._late() and time.monotonic() < limit:
            time.sleep(0.1)
        return unit.predictions.is_file()

    def _late(self) -> bool:
        return self._deadline is not None and time.monotonic() > self._deadline


def _word(key: str, value: Any) -> str:
    field = key.rpartition(".")[2]
    if isinstance(value, str):
        text = value
    elif isinstance(value, bool):
        text = field if value else f"no-{field}"
    else:
        text = f"{field}{value:.3g}" if isinstance(value, float) else f"{field}{value}"
    return re.sub(r"[^A-Za-z0-9.-]+", "_", text)
