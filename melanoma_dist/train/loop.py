"""The story of one unit: load, train an epoch, validate, remember the best, stop in time, leave the predictions.

Knows nothing of Ray: it is told its world, given a callable to report to, and one to ask whether to leave.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from melanoma_dist.data.folds import HEADLINE
from melanoma_dist.data.labels import LABEL_SETS
from melanoma_dist.errors import ResumeError, TrainingError
from melanoma_dist.models.classifier import build_classifier
from melanoma_dist.train.artifact_writer import ArtifactWriter
from melanoma_dist.train.checkpoint import Checkpoints, Cursor
from melanoma_dist.train.clock import Clock
from melanoma_dist.train.collective import broadcast_value, gather_objects, sum_over_ranks
from melanoma_dist.train.coordinator import Request, StepCoordinator
from melanoma_dist.train.device import arithmetic
from melanoma_dist.train.events import EpochDone, Event, Note, Paused, StepDone, UnitDone, Validating
from melanoma_dist.train.fallbacks import Fallbacks, read_fallbacks
from melanoma_dist.train.fold_data import input_format_of, load_fold_data, loaders
from melanoma_dist.train.memory import convert_memory_errors
from melanoma_dist.train.metrics import figures
from melanoma_dist.train.schedule import Progress, schedule_factor
from melanoma_dist.train.step import TrainStep, redistribute_state
from melanoma_dist.train.unit import Unit
from melanoma_dist.world import World

Report = Callable[[Event], str | None]
"""Takes an event; answers an ``EpochDone`` with the reason to stop the unit there, or None."""
_POINTS_PER_EPOCH = 50  # of the curves over steps


def train_unit(unit: Unit, world: World, report: Report, stop_requested: Callable[[], bool] = lambda: False) -> None:
    """Train one fold to its end, going on from its last checkpoint, and write its predictions.

    Where ``stop_requested`` says so, which the main rank asks after every step, it saves and returns unfinished.
    """
    if not world.is_main:
        report, stop_requested = _say_nothing, lambda: False
    coordinator = StepCoordinator(world, unit.config.fault_tolerance.collective_timeout_s)
    fallbacks = read_fallbacks(unit.folder)
    unit = fallbacks.apply(unit)
    with coordinator.convert_rank_errors(), convert_memory_errors(unit, world):
        FoldTrainer(unit, world, report, stop_requested, coordinator, fallbacks).run()


def _say_nothing(_: Event) -> None:
    """What a rank reports that is not the main one."""


class FoldTrainer:
    """One unit in training on one rank; all of its state is in ``state_dict``."""

    def __init__(
        self,
        unit: Unit,
        world: World,
        report: Report,
        stop_requested: Callable[[], bool],
        coordinator: StepCoordinator,
        fallbacks: Fallbacks,
    ) -> None:
        self._unit, self._config, self._world, self._report = unit, unit.config, world, report
        self._stop_requested, self._coordinator = stop_requested, coordinator
        self._labels = LABEL_SETS[unit.config.data.labels]
        self._fallbacks = fallbacks
        for text in fallbacks.describe():
            self._note(text)
        self._fold_data = load_fold_data(unit, self._note, fallbacks.corrupt)
        self._batches, self._unseen = loaders(unit, self._fold_data, world)
        self._checkpoints = Checkpoints(unit.folder / "checkpoints", self._note)
        self._artifact_writer = ArtifactWriter(unit, self._checkpoints, self._note) if world.is_main else None
        self._cursor, self._progress = Cursor(), Progress()
        self._history: list[dict[str, Any]] = []
        self._clock = Clock(self._config.input.batch_size)
        self._train_step = self._build_train_step()

    def run(self) -> None:
        """Epoch after epoch until a reason to stop; told to stop or to leave, it is left unfinished."""
        try:
            stopped = self._resume()
            while not stopped and self._reason() is None:
                stopped = self._epoch()
            if self._artifact_writer is not None:
                self._artifact_writer.leave() if stopped else self._finish(self._artifact_writer, self._reason() or "")
        finally:
            if self._artifact_writer is not None:
                self._artifact_writer.close()

    def state_dict(self) -> dict[str, Any]:
        """Everything a training goes on from. Called by every rank.

        Order and random numbers are functions of epoch and step and need no state.
        """
        return {
            "arithmetic": arithmetic(self._config.hardware, self._world),
            "cursor": self._cursor.state_dict(),
            "train_step": self._train_step.state_dict(),
            "ranks": gather_objects(self._train_step.rank_state(), self._world),
            "progress": self._progress.state_dict(),
            "history": self._history,
            "clock": self._clock.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what ``state_dict`` gave.

        Raises ResumeError for another number of ranks or other arithmetic, unless that was asked for.
        """
        own, size = state["ranks"], self._world.size
        resized = len(own) != size
        if resized:
            self._require_resize(len(own))
            own = redistribute_state(own, size)
        self._require_arithmetic(state["arithmetic"], resized)
        self._cursor = Cursor(**state["cursor"])
        self._train_step.load_state_dict(state["train_step"])
        self._train_step.load_rank_state(own[self._world.rank])
        self._progress = Progress(**state["progress"])
        self._history = state["history"]
        self._clock = Clock(self._config.input.batch_size, state["clock"])

    def _require_resize(self, ranks: int) -> None:
        if not self._config.fault_tolerance.allow_resize:
            raise ResumeError(
                f"Fold {self._unit.fold} cannot go on alike: ranks {ranks} then, {self._world.size} now. Give "
                f"--gpus-per-unit (with --gpus 0: --ranks-per-unit) {ranks}, or --allow-resize: each global batch then "
                "holds the same images, and figures differ in their last digits."
            )
        self._note(f"goes on with another number of ranks: {ranks} then, {self._world.size} now (--allow-resize)")

    def _require_arithmetic(self, begun: dict[str, Any], resized: bool) -> None:
        now = arithmetic(self._config.hardware, self._world)
        if resized:  # other ranks share the cores otherwise, and sum in another order anyway
            now.pop("decode_threads", None)
        changed = [f"{key} {begun.get(key)} then, {value} now" for key, value in now.items() if begun.get(key) != value]
        if not changed:
            return
        told = f"was begun with other arithmetic: {'; '.join(changed)}"
        if not self._config.fault_tolerance.accept_changes:
            remedy = "Give its flags as then, or --accept-changes: the end is then no longer that of one training."
            raise ResumeError(f"Fold {self._unit.fold} {told}. {remedy}")
        self._note(f"{told} (--accept-changes)")

    def _note(self, text: str) -> None:
        self._report(Note(self._unit.fold, text))

    def _build_train_step(self) -> TrainStep:
        config, world = self._config, self._world
        # Only the main rank reads the weights; DistributedDataParallel hands its parameters to the others.
        weights = None if world.is_main else "none"
        model = build_classifier(
            config.model, input_format_of(self._unit).size, len(self._labels), config.seed, weights
        )
        return TrainStep(model, self._fold_data.training.targets, config, world)

    def _reason(self) -> str | None:
        return self._progress.reason_to_stop(self._config.schedule)

    def _resume(self) -> bool:
        """Go on from the last checkpoint, if there is one. Returns whether the unit is to stop right there."""
        name = broadcast_value(self._checkpoints.newest() if self._world.is_main else None, self._world)
        if name is not None:
            self.load_state_dict(self._checkpoints.load(name))
            self._note(f"goes on after {self._cursor.describe(self._batches.steps)}")
        if self._artifact_writer is not None:
            self._artifact_writer.tensorboard.open(self._step(), validated=self._cursor.step == 0)
        # The process may have ended between the checkpoint and the report of its epoch.
        between = name is not None and self._cursor.step == 0
        return between and self._unit.reports_to_scheduler and self._tell(self._history[-1])

    def _step(self) -> int:
        """How many steps the whole training has taken."""
        return self._cursor.epoch * self._batches.steps + self._cursor.step

    def _epoch(self) -> bool:
        """Train what is left of the epoch and validate it. Returns whether the unit is to stop there."""
        if self._train():
            return True
        epoch, steps = self._cursor.epoch, self._batches.steps
        speed = self._clock.speed(steps)
        self._train_step.check_skipped(most=steps - 1)
        skipped = self._train_step.skipped()
        loss = sum_over_ranks(self._train_step.running_loss(), self._world) / (steps - skipped)
        self._train_step.end_epoch()
        self._report(Validating(self._unit.fold, epoch + 1))
        self._train_step.sync_buffers()
        probability = self._train_step.predict(self._unseen, len(self._fold_data.validation.rows))
        found = self._judge(probability)
        rate = self._rate(self._step() - 1)
        self._progress = self._progress.after(epoch, found["labels"][HEADLINE]["auc"], self._config.schedule)
        record: dict[str, Any] = {
            "epoch": epoch + 1,
            "train_loss": loss,
            "learning_rate": rate,
            **speed,
            "seconds": self._clock.seconds(),
            "devices": self._world.size * (1 if self._world.gpu is not None else self._world.threads),
            "device": "CPU core" if self._world.gpu is None else "GPU",
            "skipped_steps": skipped,
            "accumulate": self._config.optimizer.accumulate,
            "corrupt_images": len(self._fallbacks.corrupt),
            "best_auc": self._progress.best,
            "best_epoch": self._progress.best_epoch + 1,
            "validation": found,
        }
        self._history.append(record)
        self._conclude_epoch(record, probability)
        return self._tell(record)

    def _conclude_epoch(self, record: dict[str, Any], probability: Any) -> None:
        """Leave on the disk what the epoch came to, the checkpoint last: until then, the epoch is repeated."""
        epoch, artifact_writer, at = self._cursor.epoch, self._artifact_writer, self._step()
        self._cursor = Cursor(epoch + 1)
        self._clock = Clock(self._config.input.batch_size)
        state = self.state_dict()
        if artifact_writer is None:
            return
        validation, new_best = self._fold_data.validation, self._progress.best_epoch == epoch
        artifact_writer.tensorboard.epoch(at, record, validation, probability, new_best)
        best = artifact_writer.best(epoch, self._train_step.evaluation_model(), probability) if new_best else None
        artifact_writer.save(self._cursor, state, self._progress.best_epoch, best)
        if self._unit.reports_to_scheduler:
            artifact_writer.wait()  # what is decided upon is on the disk, unless the disk refuses
        if record["skipped_steps"]:
            self._note(f"epoch {epoch + 1}: {record['skipped_steps']} steps skipped, their gradient was not finite")

    def _train(self) -> bool:
        """The steps that are left of the epoch. Returns whether the unit is to be left there."""
        cursor = self._cursor
        self._train_step.begin_epoch(frozen=cursor.epoch < self._config.optimizer.freeze_epochs)
        for batch in self._clock.measure_waits(self._batches.epoch(cursor.epoch, cursor.step)):
            self._train_step.step(batch, self._step(), self._rate(self._step()))
            self._cursor = replace(self._cursor, step=self._cursor.step + 1)
            if self._world.is_main:
                self._tell_step()
            request = self._coordinator.exchange(self._request())
            if request is not Request.CONTINUE:
                self._save(last=request is Request.PAUSE)
            if request is Request.PAUSE:
                self._report(Paused(self._unit.fold, self._cursor.describe(self._batches.steps)))
                return True
        if self._world.gpu is not None:
            torch.cuda.synchronize(self._world.gpu)
        return False

    def _request(self) -> Request:
        """What this rank wants done after a step: only the main one wants anything."""
        if self._stop_requested():
            return Request.PAUSE
        return Request.SAVE if self._artifact_writer is not None and self._artifact_writer.due() else Request.CONTINUE

    def _tell_step(self) -> None:
        done, steps = self._cursor.step, self._batches.steps
        draw = done % max(1, steps // _POINTS_PER_EPOCH) == 0
        if not (draw or self._clock.due()):
            return
        taken = max(1, done - self._train_step.skipped())
        loss, speed = self._train_step.running_loss() * self._world.size / taken, self._clock.speed(done)
        epoch, epochs = self._cursor.epoch + 1, self._config.schedule.epochs
        self._report(StepDone(self._unit.fold, epoch, epochs, done, steps, **speed, loss=loss))
        if draw and self._artifact_writer is not None:
            self._artifact_writer.tensorboard.step(self._step(), loss, self._rate(self._step() - 1), speed)

    def _rate(self, step: int) -> float:
        steps, reduction = self._batches.steps, self._progress.reduction
        return self._config.optimizer.lr * schedule_factor(self._config.schedule, step, steps, reduction)

    def _judge(self, probability: Any) -> dict[str, Any]:
        """The figures of a validation, computed by the main rank and the same on all."""
        found = None
        if self._world.is_main and np.isfinite(probability).all():
            found = figures(self._fold_data.validation.targets, probability, self._labels, self._config.threshold)
        found = broadcast_value(found, self._world)
        if found is None:
            raise TrainingError("The model predicts NaN for validation images: its weights are worthless. Lower --lr.")
        return dict(found)

    def _save(self, last: bool) -> None:
        """Save where the training stands, at once where it is the ``last`` time. Called by every rank."""
        self._train_step.check_skipped()
        state = self.state_dict()
        if self._artifact_writer is not None:
            save = self._artifact_writer.save_now if last else self._artifact_writer.save
            save(self._cursor, state, self._progress.best_epoch)

    def _tell(self, record: dict[str, Any]) -> bool:
        """Report an epoch. Returns, on every rank alike, whether the unit is to stop there."""
        answer = self._report(EpochDone.of(self._unit.fold, self._config.schedule.epochs, record))
        return broadcast_value(answer, self._world) is not None

    def _finish(self, artifact_writer: ArtifactWriter, reason: str) -> None:
        artifact_writer.finish(self._fold_data, self._history, self._progress.best_epoch)
        self._report(UnitDone(self._unit.fold, self._progress.best, self._progress.best_epoch + 1, reason))
