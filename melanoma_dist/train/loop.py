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
from melanoma_dist.errors import TrainingError
from melanoma_dist.mirror.courier import Courier
from melanoma_dist.mirror.of_run import Part
from melanoma_dist.models.classifier import build_classifier
from melanoma_dist.train.agreement import Agreement, Wish
from melanoma_dist.train.checkpoint import Checkpoints, Cursor
from melanoma_dist.train.clock import Clock, Rhythm
from melanoma_dist.train.collective import from_main, gather_values, total
from melanoma_dist.train.events import EpochDone, Event, Left, Note, StepDone, UnitDone, Validating
from melanoma_dist.train.learner import Learner, shared_out
from melanoma_dist.train.material import frame_of, load_material, loaders
from melanoma_dist.train.metrics import figures
from melanoma_dist.train.result import about, leave_result, write_metrics
from melanoma_dist.train.saving import Saver
from melanoma_dist.train.schedule import Progress, schedule_factor
from melanoma_dist.train.tensorboard import Board
from melanoma_dist.train.unit import Unit
from melanoma_dist.world import World

Report = Callable[[Event], str | None]
"""Takes an event; answers an ``EpochDone`` with the reason to stop the unit there, or None."""
_POINTS_PER_EPOCH = 50  # of the curves over steps
_LEAVING_S, _LAST_WAIT_S = 20.0, 600.0  # for what a mirror still lacks


def train_unit(unit: Unit, world: World, report: Report, asked_to_leave: Callable[[], bool] = lambda: False) -> None:
    """Train one fold to its end, going on from its last checkpoint, and write its predictions.

    Where ``asked_to_leave`` says so, which the main rank asks after every step, it saves and returns unfinished.
    """
    if not world.is_main:
        report, asked_to_leave = _say_nothing, lambda: False
    agreement = Agreement(world, unit.config.hardware.collective_timeout_s)
    with agreement.kept():
        Training(unit, world, report, asked_to_leave, agreement).run()


def _say_nothing(_: Event) -> None:
    """What a rank reports that is not the main one."""


class Training:
    """One unit in training on one rank; all of its state is in ``state_dict``."""

    def __init__(
        self, unit: Unit, world: World, report: Report, asked_to_leave: Callable[[], bool], agreement: Agreement
    ) -> None:
        self._unit, self._config, self._world, self._report = unit, unit.config, world, report
        self._asked_to_leave, self._agreement = asked_to_leave, agreement
        self._labels = LABEL_SETS[unit.config.data.labels]
        self._material = load_material(unit, self._note)
        self._batches, self._unseen = loaders(unit, self._material, world)
        self._board = Board(unit, self._labels, self._note) if world.is_main else None
        self._checkpoints = Checkpoints(unit.folder / "checkpoints", self._note)
        self._saver = Saver(self._checkpoints, self._note)
        self._courier: Courier | None = None
        if world.is_main and unit.mirror is not None:
            self._courier = Part(unit.mirror, unit.run, unit.fold).courier(self._note)
        self._rhythm = Rhythm(*unit.config.hardware.checkpoint_interval)
        self._cursor, self._progress = Cursor(), Progress()
        self._history: list[dict[str, Any]] = []
        self._clock = Clock(self._config.input.batch_size)
        self._learner = self._build_learner()

    def run(self) -> None:
        """Epoch after epoch until a reason to stop; told to stop or to leave, it is left unfinished."""
        stopped = self._resume()
        while not stopped and self._reason() is None:
            stopped = self._epoch()
        if not stopped:
            self._finish(self._reason() or "")
        else:
            self._close(_LEAVING_S)

    def state_dict(self) -> dict[str, Any]:
        """Everything a training goes on from. Called by every rank.

        Order and random numbers are functions of epoch and step and need no state.
        """
        return {
            "cursor": self._cursor.state_dict(),
            "learner": self._learner.state_dict(),
            "ranks": gather_values(self._learner.own_state(), self._world),
            "progress": self._progress.state_dict(),
            "history": self._history,
            "clock": self._clock.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what ``state_dict`` gave. Raises TrainingError for another number of ranks, unless asked for."""
        own, size = state["ranks"], self._world.size
        if len(own) != size:
            self._require_resize(len(own))
            own = shared_out(own, size)
        self._cursor = Cursor(**state["cursor"])
        self._learner.load_state_dict(state["learner"])
        self._learner.load_own_state(own[self._world.rank])
        self._progress = Progress(**state["progress"])
        self._history = state["history"]
        self._clock = Clock(self._config.input.batch_size, state["clock"])

    def _require_resize(self, ranks: int) -> None:
        if not self._config.hardware.allow_resize:
            raise TrainingError(
                f"Fold {self._unit.fold} was begun on {ranks} ranks and cannot go on alike on {self._world.size}. Give "
                f"--gpus-per-unit (with --gpus 0: --ranks-per-unit) {ranks}, or --allow-resize: each global batch then "
                "holds the same images, and figures differ in their last digits."
            )
        self._note(f"goes on with {self._world.size} ranks where there were {ranks} (--allow-resize)")

    def _note(self, text: str) -> None:
        self._report(Note(self._unit.fold, text))

    def _build_learner(self) -> Learner:
        config, world = self._config, self._world
        # Only the main rank reads the weights; DistributedDataParallel hands its parameters to the others.
        weights = None if world.is_main else "none"
        model = build_classifier(config.model, frame_of(self._unit).size, len(self._labels), config.seed, weights)
        return Learner(model, self._material.training.targets, config, world)

    def _reason(self) -> str | None:
        return self._progress.reason_to_stop(self._config.schedule)

    def _resume(self) -> bool:
        """Go on from the last checkpoint, if there is one. Returns whether the unit is to stop right there."""
        name = from_main(self._checkpoints.newest() if self._world.is_main else None, self._world)
        if name is not None:
            self.load_state_dict(self._checkpoints.load(name))
            self._note(f"goes on after {self._cursor.told(self._batches.steps)}")
        if self._board is not None:
            self._board.open(self._step(), validated=self._cursor.step == 0)
            self._write_metrics()  # the process may have ended before it had
        # ... or between the checkpoint and the report of its epoch.
        between = name is not None and self._cursor.step == 0
        return between and self._unit.judged and self._tell(self._history[-1])

    def _step(self) -> int:
        """How many steps the whole training has taken."""
        return self._cursor.epoch * self._batches.steps + self._cursor.step

    def _epoch(self) -> bool:
        """Train what is left of the epoch and validate it. Returns whether the unit is to stop there."""
        if self._train():
            return True
        epoch, steps = self._cursor.epoch, self._batches.steps
        speed = self._clock.speed(steps)
        loss = total(self._learner.take_loss(), self._world) / steps
        self._learner.check_finite()
        self._report(Validating(self._unit.fold, epoch + 1))
        self._learner.agree()
        probability = self._learner.predict(self._unseen, len(self._material.validation.rows))
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
            "best_auc": self._progress.best,
            "best_epoch": self._progress.best_epoch + 1,
            "validation": found,
        }
        self._history.append(record)
        self._conclude_epoch(record, probability)
        return self._tell(record)

    def _conclude_epoch(self, record: dict[str, Any], probability: Any) -> None:
        """Leave on the disk what the epoch came to, the checkpoint last: until then, the epoch is repeated."""
        epoch = self._cursor.epoch
        if self._world.is_main and self._progress.best_epoch == epoch:
            weights, kept = self._learner.trained().state_dict(), {"probability": torch.from_numpy(probability)}
            self._saver.save_best(epoch, weights, kept, about(self._unit, epoch))
        if self._board is not None:
            validation = self._material.validation
            self._board.epoch(self._step(), record, validation, probability, new_best=self._progress.waited == 0)
        self._cursor = Cursor(epoch + 1)
        self._clock = Clock(self._config.input.batch_size)
        self._save()
        self._write_metrics()

    def _train(self) -> bool:
        """The steps that are left of the epoch. Returns whether the unit is to be left there."""
        cursor = self._cursor
        self._learner.begin_epoch(frozen=cursor.epoch < self._config.optimizer.freeze_epochs)
        for batch in self._clock.timed(self._batches.epoch(cursor.epoch, cursor.step)):
            self._learner.step(batch, self._step(), self._rate(self._step()))
            self._cursor = replace(self._cursor, step=self._cursor.step + 1)
            if self._world.is_main:
                self._tell_step()
            wish = self._agreement.on(self._wish())
            if wish is not Wish.GO_ON:
                self._save(urgent=wish is Wish.LEAVE)
            if wish is Wish.LEAVE:
                self._report(Left(self._unit.fold, self._cursor.told(self._batches.steps)))
                return True
        if self._world.gpu is not None:
            torch.cuda.synchronize(self._world.gpu)
        return False

    def _wish(self) -> Wish:
        """What this rank wants done after a step: only the main one wants anything."""
        if self._asked_to_leave():
            return Wish.LEAVE
        due = self._world.is_main and (self._rhythm.due() or self._saver.due())
        return Wish.SAVE if due else Wish.GO_ON

    def _tell_step(self) -> None:
        done, steps = self._cursor.step, self._batches.steps
        draw = self._board is not None and done % max(1, steps // _POINTS_PER_EPOCH) == 0
        if not (draw or self._clock.due()):
            return
        loss, speed = self._learner.running_loss() * self._world.size / done, self._clock.speed(done)
        epoch, epochs = self._cursor.epoch + 1, self._config.schedule.epochs
        self._report(StepDone(self._unit.fold, epoch, epochs, done, steps, **speed, loss=loss))
        if draw and self._board is not None:
            self._board.step(self._step(), loss, self._rate(self._step() - 1), speed)

    def _rate(self, step: int) -> float:
        steps, reduction = self._batches.steps, self._progress.reduction
        return self._config.optimizer.lr * schedule_factor(self._config.schedule, step, steps, reduction)

    def _judge(self, probability: Any) -> dict[str, Any]:
        """The figures of a validation, computed by the main rank and the same on all."""
        found = None
        if self._world.is_main and np.isfinite(probability).all():
            found = figures(self._material.validation.targets, probability, self._labels, self._config.threshold)
        found = from_main(found, self._world)
        if found is None:
            raise TrainingError("The model predicts NaN for validation images: its weights are worthless. Lower --lr.")
        return dict(found)

    def _save(self, urgent: bool = False) -> None:
        """Save where the training stands. Called by every rank; the main one writes, where the storage takes it.

        Raises TrainingError where it does not and the save is ``urgent``: there is no later one.
        """
        self._learner.check_finite()
        state = self.state_dict()
        if self._world.is_main:
            if self._board is not None:
                self._board.flush()
            saved = self._saver.save(self._cursor, state, self._progress.best_epoch, urgent)
            if urgent and not saved:
                raise TrainingError(f"{self._unit.name} could not be saved; its last checkpoint is intact.")
            self._nudge()
        self._rhythm.saved()

    def _write_metrics(self) -> None:
        if self._world.is_main:
            self._saver.attempt(lambda: write_metrics(self._unit, self._history))
            self._nudge()

    def _nudge(self) -> None:
        """There is something new to mirror."""
        if self._courier is not None:
            self._courier.nudge()

    def _close(self, wait_s: float) -> None:
        """End the curves, and wait so long for the mirror."""
        if self._board is not None:
            self._board.close()
        if self._courier is not None:
            self._courier.close(wait_s)

    def _tell(self, record: dict[str, Any]) -> bool:
        """Report an epoch. Returns, on every rank alike, whether the unit is to stop there."""
        found = record["validation"]
        answer = self._report(
            EpochDone(
                fold=self._unit.fold,
                epoch=record["epoch"],
                epochs=self._config.schedule.epochs,
                train_loss=record["train_loss"],
                auc=found["labels"][HEADLINE]["auc"],
                macro_auc=found["macro"]["auc"],
                best_auc=record["best_auc"],
                best_epoch=record["best_epoch"],
                images_per_s=record["images_per_s"],
                wait_share=record["wait_share"],
                seconds=record["seconds"],
            )
        )
        return from_main(answer, self._world) is not None

    def _finish(self, reason: str) -> None:
        if not self._world.is_main:
            return
        self._saver.insist(self._leave_result)
        self._close(_LAST_WAIT_S)
        self._report(UnitDone(self._unit.fold, self._progress.best, self._progress.best_epoch + 1, reason))

    def _leave_result(self) -> None:
        weights, kept = self._checkpoints.best(self._progress.best_epoch)
        write_metrics(self._unit, self._history)
        leave_result(self._unit, self._material, self._labels, weights, kept["probability"].numpy())
