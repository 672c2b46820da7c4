"""Units as the trials of a ``ray.tune.Tuner``: the engine and the controller decide behind Tune's extension points.

The tuner runs in a thread. Its searcher hands out the units that the engine starts. Its scheduler takes each epoch to
the engine and waits for the decision. A stop is cooperative: the scheduler notes the reason and answers the rank, the
unit leaves, and then the scheduler ends the trial. So a trial holds its devices exactly as long as its unit, and the
next trial never gets a process that still trains.

Nothing of a tuner is restored. The journal is the truth, and every command adds a new tuner to the experiment folder.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import fields
from pathlib import Path
from typing import Any, Self

import ray
from ray import cloudpickle, tune
from ray.exceptions import RayTaskError
from ray.tune.experiment import Trial
from ray.tune.logger import CSVLoggerCallback, JsonLoggerCallback
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from melanoma_dist.distributed.plan import Layout
from melanoma_dist.distributed.ray_workers import ClusterWorkers
from melanoma_dist.errors import TrainingError
from melanoma_dist.sweep.experiment import merge_sessions
from melanoma_dist.sweep.unit_trial import LEFT, TICKET, UnitTrial
from melanoma_dist.train.events import EpochDone, Event
from melanoma_dist.train.unit import Unit

_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # TensorBoard has the units' own curves
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # with verbose=0, prints nothing: the terminal belongs to the command's display
}
_IDLE_S = 0.25
_NEXT_S = 2.0
_END_S = 30.0
_EPOCH = [field.name for field in fields(EpochDone)]


class TuneWorkers(ClusterWorkers):
    """Runs units as trials of Ray Tune, in the cluster that this process is connected to."""

    trainable = UnitTrial

    def __init__(self, layout: Layout, experiment: Path, describe: Callable[[Unit], Mapping[str, object]]) -> None:
        """``experiment``: Tune's folder. ``describe`` returns the configuration of a unit there, with name and fold."""
        super().__init__(layout)
        self._experiment, self._describe = experiment, describe
        self._starts: queue.SimpleQueue[Unit] = queue.SimpleQueue()
        self._units: dict[str, Unit] = {}  # by trial id
        self._epochs: queue.SimpleQueue[tuple[int | None, Unit, Event]] = queue.SimpleQueue()
        self._answers: dict[int, Future[str | None]] = {}  # by ticket
        self._ended: dict[Unit, BaseException | None] = {}
        self._wake = threading.Event()
        self._engine_acted = threading.Event()
        self._stopping = False
        self._failure: BaseException = RuntimeError("Ray Tune ended")
        self.closing = False
        self.stop_reasons: dict[str, str] = {}
        """Why trials were stopped, by trial id."""
        self._thread = self._new_thread()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the tuner. Units that still run are not waited for."""
        super().__exit__()
        self.closing = True
        for answer in list(self._answers.values()):
            answer.set_result(None)
        for unit in list(self._units.values()):
            self._queue.leave.remote(unit)
        self._thread.join(_END_S)
        if not self._thread.is_alive():
            merge_sessions(self._experiment)

    # For the engine

    def expect(self, units: int) -> None:
        """See ``Workers``."""
        self._demand.expect(units, self._capacity.units(waiting=False))
        self._engine_acted.set()

    def start(self, unit: Unit) -> Unit:
        """See ``Workers``."""
        self._starts.put(unit)
        self._engine_acted.set()
        return unit

    def wait(self, jobs: list[Unit], timeout_s: float) -> list[Unit]:
        """See ``Workers``. Returns early for an epoch too, because its rank waits for the answer."""
        self._wake.wait(timeout_s)
        self._wake.clear()
        if not self._thread.is_alive():
            self._restart()
        return [job for job in jobs if job in self._ended]

    def conclude(self, job: Unit) -> BaseException | None:
        """See ``Workers``."""
        error = self._ended.pop(job)
        if error is not None:
            self._capacity.invalidate()
        return error

    def take_events(self) -> list[tuple[int | None, Unit, Event]]:
        """See ``Workers``."""
        events = super().take_events()
        while not self._epochs.empty():
            events.append(self._epochs.get())
        return events

    def answer(self, ticket: int, answer: str | None) -> None:
        """See ``Workers``."""
        self._answers.pop(ticket).set_result(answer)

    def request_stop(self) -> None:
        """See ``Workers``."""
        self._stopping = True
        super().request_stop()

    def _restart(self) -> None:
        """Start another tuner after a failure, for example if a node is lost with a process that Tune kept for reuse.

        The failure counts as one of each running unit. Raises TrainingError if no unit was running.
        """
        if not self._units:
            raise TrainingError(f"Ray Tune failed: {self._failure!r}. Run the same command again.") from self._failure
        for trial_id in list(self._units):
            self.end(trial_id, self._failure)
        self._thread = self._new_thread()
        self._thread.start()

    # For Tune, in its thread

    def suggest(self, trial_id: str) -> dict[str, object] | None:
        """The configuration of the next unit, or None if the engine starts none now."""
        try:
            # Without a trial Tune would sleep for a second, so this waits in its place.
            unit = self._starts.get(block=not self._units, timeout=_IDLE_S)
        except queue.Empty:
            return None
        ray.get(self._queue.assign.remote(trial_id, unit))
        self._units[trial_id] = unit
        return dict(self._describe(unit))

    def decide(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Take an epoch to the engine, and its answer to the rank."""
        ticket, event = result[TICKET], EpochDone(**{name: result[name] for name in _EPOCH})
        answer = self._answers[ticket] = Future()
        if self.closing:
            return
        self._epochs.put((ticket, self._units[trial_id], event))
        self._wake.set()
        reason = answer.result()
        if reason is not None:
            self.stop_reasons[trial_id] = reason
        self._queue.answer.remote(ticket, reason)

    def end(self, trial_id: str, error: BaseException | None) -> None:
        """Tell the engine that a unit left or died. Waits for the engine to start the next one.

        Tune keeps one idle process, and ends others whose next trial does not follow at once.
        """
        unit = self._units.pop(trial_id, None)
        if unit is not None:
            self._engine_acted.clear()
            self._ended[unit] = error
            self._wake.set()
            if error is None and not self._stopping and not self.closing:
                self._engine_acted.wait(_NEXT_S)

    def _new_thread(self) -> threading.Thread:
        return threading.Thread(target=self._run, name="Ray Tune", daemon=True)

    def _run(self) -> None:
        try:
            self._tuner().fit()
        except BaseException as error:  # ``wait`` raises it
            self._failure = error
        self._wake.set()

    def _tuner(self) -> tune.Tuner:
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # the engine reports errors
        os.environ.update(_ENVIRONMENT, TUNE_MAX_PENDING_TRIALS_PG=str(self._layout.side_by_side))
        trainable = tune.with_parameters(self.trainable, layout=self._layout, events=self._queue)
        return tune.Tuner(
            tune.with_resources(trainable, tune.PlacementGroupFactory([_resources(self._layout)])),
            tune_config=tune.TuneConfig(
                search_alg=_NextUnits(self),
                scheduler=_EngineDecides(self),
                num_samples=-1,
                reuse_actors=True,
                trial_name_creator=_name,
                trial_dirname_creator=_name,
            ),
            run_config=tune.RunConfig(
                name=self._experiment.name,
                storage_path=str(self._experiment.parent),
                stop=_Closing(self),
                callbacks=[_StopReasons(self), JsonLoggerCallback(), CSVLoggerCallback()],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # units have their own
                verbose=0,
            ),
        )


def _resources(layout: Layout) -> dict[str, float]:
    """What a trial holds: nothing but a byte where the ranks of a worker group have their own resources."""
    if layout.ranks > 1:
        return {"memory": 1}
    return {"CPU": layout.cores, **({"GPU": layout.gpu_share} if layout.gpu else {})}


def _name(trial: Trial) -> str:
    return f"{trial.config['name']}_fold-{trial.config['fold']}"


class _ForTune:
    """An extension of Tune that refers to the workers. Tune pickles it, and nobody unpickles it."""

    def __init__(self, workers: TuneWorkers) -> None:
        super().__init__()
        self._workers = workers

    def __getstate__(self) -> dict[str, object]:
        return {}


class _NextUnits(_ForTune, Searcher):  # type: ignore[misc]
    """Suggests the units that the engine starts."""

    def suggest(self, trial_id: str) -> dict[str, object] | str | None:
        return str(Searcher.FINISHED) if self._workers.closing else self._workers.suggest(trial_id)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing to do: the controller has learned from the epochs."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing to do: the journal is saved."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to do: the journal is replayed."""


class _EngineDecides(_ForTune, FIFOScheduler):  # type: ignore[misc]
    """Asks the engine about every epoch, and ends the trials of units that left."""

    def on_trial_result(self, controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        if result.get(LEFT):
            return str(TrialScheduler.STOP)
        self._workers.decide(trial.trial_id, result)
        return str(TrialScheduler.CONTINUE)

    def on_trial_complete(self, controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        self._workers.end(trial.trial_id, None)

    def on_trial_error(self, controller: Any, trial: Trial) -> None:
        error = cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())  # Tune has just written it
        self._workers.end(trial.trial_id, error.cause if isinstance(error, RayTaskError) and error.cause else error)


class _StopReasons(_ForTune, tune.Callback):  # type: ignore[misc]
    """Adds to the last result of a trial why it was stopped."""

    def on_trial_result(self, trial: Trial, result: dict[str, Any], **_: object) -> None:
        if reason := self._workers.stop_reasons.get(trial.trial_id):
            result["stop_reason"] = reason


class _Closing(_ForTune, tune.Stopper):  # type: ignore[misc]
    """Ends the tuner once the engine has ended."""

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._workers.closing
