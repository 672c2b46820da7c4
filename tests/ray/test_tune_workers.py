"""Units as trials of Ray Tune, with a training that only counts epochs: stops, deaths, errors, an interrupt."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray import tune

import melanoma_dist
from melanoma_dist import signals
from melanoma_dist.config.hardware import HardwareConfig
from melanoma_dist.config.run import RunConfig
from melanoma_dist.distributed.cluster import joined
from melanoma_dist.distributed.event_queue import Reporter
from melanoma_dist.distributed.plan import Layout
from melanoma_dist.distributed.units import train_units
from melanoma_dist.errors import MelanomaDistError, TrainingError
from melanoma_dist.sweep.tune_workers import TuneWorkers
from melanoma_dist.sweep.unit_trial import UnitTrial
from melanoma_dist.train.events import EpochDone, Event, Paused
from melanoma_dist.train.unit import Unit

EPOCHS = 3


class CountingTrial(UnitTrial):
    """Counts epochs in place of a training. The name of the run says what happens in the second one."""

    def train_unit(self) -> None:
        unit, report = self._unit, Reporter(self._unit, self._events)
        died = unit.run / "died"
        if "pair" in unit.run.name:
            (unit.run / "runs").touch()
            pair = f"{unit.run.name[:-1]}{'b' if unit.run.name.endswith('a') else 'a'}"
            while not (unit.run.parent / pair / "runs").exists():
                time.sleep(0.02)
        for epoch in range(1, EPOCHS + 1):
            if epoch == 2 and "dies" in unit.run.name and not died.exists():
                died.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if epoch == 2 and "fails" in unit.run.name:
                raise TrainingError("the loss is not finite")
            while epoch == 2 and "waits" in unit.run.name:
                if report.stop_requested():
                    report(Paused(unit.fold, "epoch 2"))
                    return
                time.sleep(0.02)
            auc = 0.5 + epoch / 10
            if report(EpochDone(unit.fold, epoch, EPOCHS, 0.1, 0.2, "AUC", auc, auc, epoch, 10.0, 0.0, 0.1)):
                return


class CountingWorkers(TuneWorkers):
    trainable = CountingTrial


class Source:
    """A work source of units with these names. Those named "bad" stop after their first epoch."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        for name in names:
            (folder / name).mkdir(parents=True)
        self.units = [Unit(RunConfig(), 0, "", "", folder / name, reports_to_scheduler=True) for name in names]
        self.epochs: dict[str, list[int]] = {name: [] for name in names}
        self.ends: dict[str, str] = {}

    def next_unit(self) -> Unit | None:
        return self.units.pop(0) if self.units else None

    def on_event(self, unit: Unit, event: Event) -> str | None:
        if isinstance(event, Paused):
            self.ends[unit.run.name] = "paused"
        if not isinstance(event, EpochDone):
            return None
        self.epochs[unit.run.name].append(event.epoch)
        if "waits" in unit.run.name:
            os.kill(os.getpid(), signal.SIGTERM)
        return "asha: not among the best" if "bad" in unit.run.name else None

    def on_exit(self, unit: Unit, seconds: float) -> None:
        self.ends.setdefault(unit.run.name, "exit")

    def on_failure(self, unit: Unit, seconds: float, error: MelanomaDistError) -> None:
        self.ends[unit.run.name] = str(error)

    def on_idle(self) -> None:
        pass


def train(source: Source, experiment: Path, ranks: int, side_by_side: int = 1) -> None:
    layout = Layout(ranks, side_by_side, False, 1.0, "")
    workers = CountingWorkers(layout, experiment, lambda unit: {"name": unit.run.name, "fold": unit.fold})
    train_units(source, layout, 30.0, workers)


@pytest.fixture
def cluster() -> Iterator[None]:
    signals.reset()
    signals.install_handlers()
    with joined(HardwareConfig(gpus=0, ranks_per_unit=2)):  # needs Ray
        yield
    signals.reset()


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("cluster")
def test_two_units_that_end_together_leave_their_processes_to_the_next_two(tmp_path: Path) -> None:
    experiment = tmp_path / "tune"
    names = [f"pair-{number}-{letter}" for number in range(3) for letter in "ab"]
    train(Source(tmp_path, names), experiment, ranks=1, side_by_side=2)
    trials = tune.ExperimentAnalysis(str(experiment)).trials
    assert len(trials) == 6
    assert len({trial.last_result["pid"] for trial in trials}) == 2


@pytest.mark.timeout(1400)
@pytest.mark.usefixtures("cluster")
def test_units_stop_die_fail_and_pause_as_trials_that_tunes_own_reader_sees(tmp_path: Path) -> None:
    import ray
    from ray.util import placement_group_table

    experiment = tmp_path / "tune"
    source = Source(tmp_path, ["good", "bad", "dies", "fails"])
    train(source, experiment, ranks=1)
    assert source.epochs == {"good": [1, 2, 3], "bad": [1], "dies": [1, 1, 2, 3], "fails": [1]}
    assert source.ends == {"good": "exit", "bad": "exit", "dies": "exit", "fails": "the loss is not finite"}
    limit = time.monotonic() + 60
    while ray.available_resources().get("CPU") != ray.cluster_resources()["CPU"] and time.monotonic() < limit:
        time.sleep(0.2)
    assert ray.available_resources()["CPU"] == ray.cluster_resources()["CPU"]
    assert [group for group in placement_group_table().values() if group["state"] != "REMOVED"] == []

    later = Source(tmp_path / "later", ["waits"])
    with pytest.raises(KeyboardInterrupt):
        train(later, experiment, ranks=2)  # the trial of a worker group holds no cores
    assert signals.exit_code() == signals.SAVED
    assert later.ends == {"waits": "paused"}

    trials = tune.ExperimentAnalysis(str(experiment)).trials
    assert {str(trial): trial.status for trial in trials} == {
        "good_fold-0": "TERMINATED",
        "bad_fold-0": "TERMINATED",
        "dies_fold-0": "TERMINATED",
        "fails_fold-0": "ERROR",
        "waits_fold-0": "TERMINATED",
    }
    assert melanoma_dist.load_sweep(tmp_path).get_best_result().config == {"name": "good", "fold": 0}
    results = {str(trial): trial.last_result for trial in trials}
    assert results["bad_fold-0"]["stop_reason"] == "asha: not among the best"
    assert results["good_fold-0"]["best_score"] == 0.8
    assert "stop_reason" not in results["good_fold-0"]
