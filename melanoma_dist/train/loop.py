"""The story of one unit: load, train an epoch, validate, remember the best, stop in time, leave the predictions.

Knows nothing of Ray: it is told its world and given a callable to report to.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from melanoma_dist import commit
from melanoma_dist.config import RunConfig
from melanoma_dist.data.copies import local_copy
from melanoma_dist.data.folds import HEADLINE, read_folds
from melanoma_dist.data.labels import LABEL_SETS, targets
from melanoma_dist.data.manifest import load_dataset
from melanoma_dist.data.shards import ShardReader
from melanoma_dist.errors import DataError, TrainingError
from melanoma_dist.input.graph import Frame
from melanoma_dist.input.loader import EvaluationLoader, Samples, TrainingLoader
from melanoma_dist.mirror.courier import Courier
from melanoma_dist.mirror.of_run import Part
from melanoma_dist.models.backbones import expectation
from melanoma_dist.models.classifier import build_classifier
from melanoma_dist.train.checkpoint import Checkpoints, Cursor
from melanoma_dist.train.clock import Clock
from melanoma_dist.train.collective import from_main, total
from melanoma_dist.train.events import EpochDone, Event, Note, StepDone, UnitDone, Validating
from melanoma_dist.train.learner import Learner
from melanoma_dist.train.metrics import figures
from melanoma_dist.train.predictions import predictions_table, write_predictions
from melanoma_dist.train.saving import Saver
from melanoma_dist.train.schedule import Progress, schedule_factor
from melanoma_dist.train.tensorboard import Board
from melanoma_dist.train.unit import Unit
from melanoma_dist.world import World

Report = Callable[[Event], str | None]
"""Takes an event; answers an ``EpochDone`` with the reason to stop the unit there, or None."""
_LARGEST_EVALUATION_BATCH = 64
_LEAVING_S, _LAST_WAIT_S = 20.0, 600.0  # for the mirror: of a unit that is told to stop, and of one at its end


def frame_of(unit: Unit) -> Frame:
    """The square input of a unit's backbone."""
    expected = expectation(unit.config.model.backbone)
    return Frame(unit.config.input.image_size or expected.size, expected.mean, expected.std)


def evaluation_batch(config: RunConfig) -> int:
    """Images of a batch that is only looked at."""
    return min(config.input.batch_size, _LARGEST_EVALUATION_BATCH)


def train_unit(unit: Unit, world: World, report: Report) -> None:
    """Train one fold to its end, going on from its last checkpoint, and write its predictions."""
    Training(unit, world, report if world.is_main else lambda event: None).run()


class Training:
    """One unit in training on one rank; all of its state is in ``state_dict``."""

    def __init__(self, unit: Unit, world: World, report: Report) -> None:
        self._unit, self._config, self._world, self._report = unit, unit.config, world, report
        self._labels = LABEL_SETS[unit.config.data.labels]
        self._load_data()
        self._board = Board(unit, self._labels, self._note) if world.is_main else None
        self._checkpoints = Checkpoints(unit.folder / "checkpoints", self._note)
        self._saver = Saver(self._checkpoints, self._note)
        self._courier: Courier | None = None
        if world.is_main and unit.mirror is not None:
            self._courier = Part(unit.mirror, unit.run, unit.fold).courier(self._note)
        self._progress = Progress()
        self._history: list[dict[str, Any]] = []
        self._learner = self._build_learner()

    def run(self) -> None:
        """Epoch after epoch until a reason to stop; told to stop by an answer to a report, it is left unfinished."""
        stopped = self._resume()
        while not stopped and self._reason() is None:
            stopped = self._epoch(self._progress.epoch + 1)
        if stopped:
            self._leave()
        else:
            self._finish(self._reason() or "")

    def state_dict(self) -> dict[str, Any]:
        """Everything a training goes on from; order and random numbers are functions of the epoch and need no state."""
        return {
            "learner": self._learner.state_dict(),
            "progress": self._progress.state_dict(),
            "history": self._history,
            "world_size": self._world.size,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what ``state_dict`` gave. Raises TrainingError for another number of ranks."""
        if state["world_size"] != self._world.size:
            raise TrainingError(
                f"Fold {self._unit.fold} was begun on {state['world_size']} ranks and cannot go on alike on "
                f"{self._world.size}. Give --gpus-per-unit (with --gpus 0: --ranks-per-unit) {state['world_size']}."
            )
        self._learner.load_state_dict(state["learner"])
        self._progress = Progress(**state["progress"])
        self._history = state["history"]

    def _note(self, text: str) -> None:
        self._report(Note(self._unit.fold, text))

    def _load_data(self) -> None:
        dataset = load_dataset(local_copy(self._unit.data, self._unit.fingerprint, self._note))
        if dataset.fingerprint != self._unit.fingerprint:
            raise DataError(
                f"{self._unit.data}: the data set changed after the run was planned. Run the command again."
            )
        self._manifest = dataset.manifest
        folds = read_folds(self._unit.run / "folds.parquet").set_index("image_id")["fold"]
        fold_of = dataset.manifest["image_id"].map(folds)
        shards = ShardReader(dataset)
        self._training = self._samples(shards, (fold_of.notna() & (fold_of != self._unit.fold)).to_numpy())
        self._validation = self._samples(shards, (fold_of == self._unit.fold).to_numpy())

    def _samples(self, shards: ShardReader, chosen: Any) -> Samples:
        rows = np.flatnonzero(chosen)
        images = self._manifest.iloc[rows]
        largest = int(images["width"].max()), int(images["height"].max())
        return Samples(shards, rows, targets(images, self._labels), largest)

    def _build_learner(self) -> Learner:
        unit, config, world = self._unit, self._config, self._world
        frame = frame_of(unit)
        chosen = config.input
        self._training_loader = TrainingLoader(
            self._training, frame, chosen.batch_size, chosen.augment, chosen.balance, config.seed, world
        )
        self._validation_loader = EvaluationLoader(self._validation, frame, evaluation_batch(config), world)
        # Only the main rank reads the weights; DistributedDataParallel hands its parameters to the others.
        weights = None if world.is_main else "none"
        model = build_classifier(config.model, frame.size, len(self._labels), config.seed, weights)
        return Learner(model, self._training.targets, config, world)

    def _reason(self) -> str | None:
        return self._progress.reason_to_stop(self._config.schedule)

    def _resume(self) -> bool:
        """Go on from the last checkpoint, if there is one. Returns whether the unit is to stop right there."""
        name = self._checkpoints.newest()
        if name is not None:
            self.load_state_dict(self._checkpoints.load(name))
            self._note(f"goes on after epoch {self._progress.epoch + 1}")
        if self._board is not None:
            self._board.open((self._progress.epoch + 1) * self._training_loader.steps)
        # The process may have ended between the checkpoint and the report of its epoch.
        return name is not None and self._unit.judged and self._tell(self._history[-1])

    def _epoch(self, epoch: int) -> bool:
        """Train and validate an epoch. Returns whether the unit is to stop there."""
        start = time.monotonic()
        speed = self._train(epoch)
        loss = total(self._learner.take_loss(), self._world) / self._training_loader.steps
        self._learner.check_finite()
        self._report(Validating(self._unit.fold, epoch + 1))
        self._learner.agree()
        probability = self._learner.predict(self._validation_loader, len(self._validation.rows))
        found = self._judge(probability)
        auc = found["labels"][HEADLINE]["auc"]
        self._progress = self._progress.after(epoch, auc, self._config.schedule)
        record: dict[str, Any] = {
            "epoch": epoch + 1,
            "train_loss": loss,
            "learning_rate": self._rate((epoch + 1) * self._training_loader.steps - 1),
            **speed,
            "seconds": time.monotonic() - start,
            "devices": self._world.size * (1 if self._world.gpu is not None else self._world.threads),
            "device": "CPU core" if self._world.gpu is None else "GPU",
            "best_auc": self._progress.best,
            "best_epoch": self._progress.best_epoch + 1,
            "validation": found,
        }
        self._history.append(record)
        self._save(epoch, probability)
        if self._board is not None:
            step = record["epoch"] * self._training_loader.steps
            self._board.epoch(step, record, self._validation, probability, new_best=self._progress.waited == 0)
        return self._tell(record)

    def _train(self, epoch: int) -> dict[str, float]:
        """The steps of an epoch. Returns images/s of the unit and the share of time that input was waited for."""
        self._learner.begin_epoch(frozen=epoch < self._config.optimizer.freeze_epochs)
        first = epoch * self._training_loader.steps
        clock = Clock(self._config.input.batch_size)
        for step, batch in enumerate(clock.timed(self._training_loader.epoch(epoch))):
            self._learner.step(batch, first + step, self._rate(first + step))
            if clock.due() and self._world.is_main:
                self._report_step(epoch, step, clock)
        if self._world.gpu is not None:
            torch.cuda.synchronize(self._world.gpu)
        return clock.speed()

    def _report_step(self, epoch: int, step: int, clock: Clock) -> None:
        loss = self._learner.running_loss() * self._world.size / (step + 1)
        steps, epochs = self._training_loader.steps, self._config.schedule.epochs
        self._report(StepDone(self._unit.fold, epoch + 1, epochs, step + 1, steps, **clock.speed(), loss=loss))
        if self._board is not None:
            number = epoch * steps + step
            self._board.step(number, loss, self._rate(number), clock.speed())

    def _rate(self, step: int) -> float:
        steps, reduction = self._training_loader.steps, self._progress.reduction
        return self._config.optimizer.lr * schedule_factor(self._config.schedule, step, steps, reduction)

    def _judge(self, probability: Any) -> dict[str, Any]:
        """The figures of a validation, computed by the main rank and the same on all."""
        found = None
        if self._world.is_main and np.isfinite(probability).all():
            found = figures(self._validation.targets, probability, self._labels, self._config.threshold)
        found = from_main(found, self._world)
        if found is None:
            raise TrainingError("The model predicts NaN for validation images: its weights are worthless. Lower --lr.")
        return dict(found)

    def _save(self, epoch: int, probability: Any) -> None:
        if not self._world.is_main:
            return
        if self._progress.best_epoch == epoch:
            weights = self._learner.trained().state_dict()
            self._saver.save_best(epoch, weights, {"probability": torch.from_numpy(probability)}, self._about(epoch))
        self._saver.save(Cursor(epoch + 1), self.state_dict(), keep_best=self._progress.best_epoch)
        self._saver.attempt(lambda: _write_lines(self._unit, self._history))
        if self._courier is not None:
            self._courier.nudge()

    def _about(self, epoch: int) -> dict[str, str]:
        """What somebody needs to use the weights: how to build the model and what to feed it."""
        model, frame = self._config.model, frame_of(self._unit)
        return {
            "backbone": model.backbone,
            "labels": ",".join(self._labels),
            "image_size": str(frame.size),
            "mean": ",".join(map(str, frame.mean)),
            "std": ",".join(map(str, frame.std)),
            "pooling": model.pooling,
            "hidden": str(model.hidden),
            "head_norm": model.head_norm,
            "fold": str(self._unit.fold),
            "epoch": str(epoch + 1),
            "data": self._unit.fingerprint,
        }

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

    def _leave(self) -> None:
        if self._board is not None:
            self._board.close()
        if self._courier is not None:
            self._courier.close(_LEAVING_S)

    def _finish(self, reason: str) -> None:
        if not self._world.is_main:
            return
        self._saver.insist(self._leave_result)
        if self._board is not None:
            self._board.close()
        if self._courier is not None:
            self._courier.close(_LAST_WAIT_S)
        self._report(UnitDone(self._unit.fold, self._progress.best, self._progress.best_epoch + 1, reason))

    def _leave_result(self) -> None:
        _write_lines(self._unit, self._history)
        weights, kept = self._checkpoints.best(self._progress.best_epoch)
        self._unit.model.parent.mkdir(exist_ok=True)
        commit.write_file(self._unit.model, lambda aside: shutil.copyfile(weights, aside))
        images = self._manifest.iloc[self._validation.rows]
        probability = kept["probability"].numpy()
        table = predictions_table(images, self._unit.fold, self._labels, probability, self._validation.targets)
        write_predictions(table, self._unit.predictions)


def _write_lines(unit: Unit, history: list[dict[str, Any]]) -> None:
    """``metrics.jsonl``, a line per epoch, written whole: no holes and no doubles after a resume."""
    commit.write_text(unit.folder / "metrics.jsonl", "".join(json.dumps(record) + "\n" for record in history))
