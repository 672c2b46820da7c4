"""The training of one unit: load, train an epoch, validate, save, stop early, write the result.

Knows neither Ray nor what is learnt. The caller gives the rank's ``World``, where to report, and when to pause.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from melanoma_dist.artifacts.epochs import EpochRecord
from melanoma_dist.errors import ResumeError, TrainingError
from melanoma_dist.input.gpu_decoder import gpu_decoder
from melanoma_dist.train.artifact_writer import ArtifactWriter
from melanoma_dist.train.checkpoint import Checkpoints, Cursor, State
from melanoma_dist.train.clock import Clock, Speed
from melanoma_dist.train.collective import broadcast_value, gather_objects, sum_over_ranks
from melanoma_dist.train.coordinator import Request, StepCoordinator
from melanoma_dist.train.device import arithmetic, changed_arithmetic, gpu_load
from melanoma_dist.train.events import EpochDone, Note, Paused, Report, StepDone, UnitDone, Validating
from melanoma_dist.train.fallbacks import Fallbacks, convert_memory_errors, read_fallbacks
from melanoma_dist.train.predict import Predictions
from melanoma_dist.train.saving import Best
from melanoma_dist.train.schedule import Progress, schedule_factor
from melanoma_dist.train.step import TrainStep, redistribute_state
from melanoma_dist.train.task import build_task
from melanoma_dist.train.unit import Unit
from melanoma_dist.train.validation import Validation
from melanoma_dist.world import World

_POINTS_PER_EPOCH = 50  # of the curves over steps


def train_unit(unit: Unit, world: World, report: Report, stop_requested: Callable[[], bool] = lambda: False) -> None:
    """Train one fold to its end, resuming from its last checkpoint, and write its predictions.

    The main rank asks ``stop_requested`` after every step; then all ranks save and return, to be resumed another time.
    """
    if not world.is_main:
        report, stop_requested = (lambda event: None), (lambda: False)
    coordinator = StepCoordinator(world, unit.config.fault_tolerance.collective_timeout_s)
    fallbacks = read_fallbacks(unit.folder)
    unit = fallbacks.apply(unit)
    with coordinator.convert_rank_errors(), convert_memory_errors(unit, world):
        FoldTrainer(unit, world, report, stop_requested, coordinator, fallbacks).run()


class FoldTrainer:
    """Trains one unit on one rank. Its whole state is in ``state_dict``."""

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
        self._stop_requested, self._coordinator, self._fallbacks = stop_requested, coordinator, fallbacks
        for text in fallbacks.describe():
            self._note(text)
        if world.gpu is not None:
            self._note(gpu_decoder(world.gpu).describe())
        self._task = build_task(unit, world, report, fallbacks.corrupt)
        self._checkpoints = Checkpoints(unit.folder / "checkpoints", self._note)
        self._artifact_writer = ArtifactWriter(unit, self._checkpoints, self._note) if world.is_main else None
        self._cursor, self._progress = Cursor(), Progress()
        self._history: list[EpochRecord] = []
        self._clock = Clock(self._config.input.batch_size)
        # Only the main rank reads the weights. DistributedDataParallel broadcasts its parameters to the others.
        model = self._task.build_model(weights=None if world.is_main else "none")
        self._train_step = TrainStep(model, self._task.build_loss(), self._config, world, self._note)

    def run(self) -> None:
        """Train epochs until there is a reason to stop, then write the result; a paused unit writes none."""
        try:
            paused = self._resume()
            while not paused and self._progress.reason_to_stop(self._config.schedule) is None:
                paused = self._run_epoch()
            if not paused:
                self._finish()
            elif self._artifact_writer is not None:
                self._artifact_writer.pause()
        finally:
            if self._artifact_writer is not None:
                self._artifact_writer.close()

    def state_dict(self) -> State:
        """Return everything needed to resume. Every rank calls it.

        The order of samples and all random numbers are functions of epoch and step, so they need no state.
        """
        return {
            "arithmetic": arithmetic(self._config.hardware, self._world),
            "cursor": self._cursor.state_dict(),
            "train_step": self._train_step.state_dict(),
            "ranks": gather_objects(self._train_step.rank_state(), self._world),
            "progress": self._progress.state_dict(),
            "history": [asdict(record) for record in self._history],
            "clock": self._clock.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        """Restore what ``state_dict`` returned.

        Raises ResumeError for another number of ranks or other arithmetic, unless the configuration allows it.
        """
        ranks, size = state["ranks"], self._world.size
        resized = len(ranks) != size
        if resized:
            if not self._config.fault_tolerance.allow_resize:
                raise ResumeError(
                    f"Fold {self._unit.fold} cannot be resumed identically on another number of ranks: {len(ranks)} "
                    f"then, {size} now. Type --gpus-per-unit (with --gpus 0: --ranks-per-unit) {len(ranks)}, or "
                    "--allow-resize: each global batch then holds the same images, and metrics differ in their last "
                    "digits."
                )
            self._note(f"resumes on another number of ranks: {len(ranks)} then, {size} now (--allow-resize)")
            ranks = redistribute_state(ranks, size)
        self._require_arithmetic(state["arithmetic"], resized)
        self._cursor = Cursor(**state["cursor"])
        self._train_step.change(self._config.at_epoch(self._cursor.epoch_of_state))
        self._train_step.load_state_dict(state["train_step"])
        self._train_step.load_rank_state(ranks[self._world.rank])
        self._progress = Progress(**state["progress"])
        self._history = [EpochRecord(**record) for record in state["history"]]
        self._clock = Clock(self._config.input.batch_size, state["clock"])

    def _require_arithmetic(self, before: dict[str, object], resized: bool) -> None:
        changed = changed_arithmetic(before, arithmetic(self._config.hardware, self._world), resized)
        text = f"was started with other arithmetic: {'; '.join(changed)}"
        if changed and not self._config.fault_tolerance.accept_changes:
            remedy = "Type its flags as then, or --accept-changes: the result is then no longer that of one training."
            raise ResumeError(f"Fold {self._unit.fold} {text}. {remedy}")
        if changed:
            self._note(f"{text} (--accept-changes)")

    def _note(self, text: str) -> None:
        self._report(Note(self._unit.fold, text))

    def _resume(self) -> bool:
        """Resume from the last checkpoint, if there is one. Returns whether the scheduler stops it right there."""
        # One rank chooses: others might read the folder a moment later, when another checkpoint is the newest.
        name = broadcast_value(self._checkpoints.newest() if self._world.is_main else None, self._world)
        if name is not None:
            self.load_state_dict(self._checkpoints.load(name))
            self._note(f"resumes after {self._cursor.describe(self._task.steps)}")
        if self._artifact_writer is not None:
            self._artifact_writer.tensorboard.open(self._step(), validated=self._cursor.step == 0)
        # The process may have ended between the checkpoint of an epoch and its report: report the epoch again.
        return name is not None and self._cursor.step == 0 and self._unit.reports_to_scheduler and self._report_epoch()

    def _step(self) -> int:
        """How many steps the whole training has taken."""
        return self._cursor.epoch * self._task.steps + self._cursor.step

    def _run_epoch(self) -> bool:
        """Train the rest of the epoch and validate it. Returns whether the unit ends there without a result."""
        if self._train():
            return True
        epoch, steps = self._cursor.epoch, self._task.steps
        speed = self._clock.speed(steps)
        self._train_step.check_skipped(most=steps - 1)
        taken = steps - self._train_step.skipped()
        loss = sum_over_ranks(self._train_step.running_loss(), self._world) / taken
        norm = self._train_step.gradient_norm() / taken
        self._train_step.end_epoch()
        self._report(Validating(self._unit.fold, epoch + 1))
        self._train_step.sync_buffers()
        predictions = self._task.predict(self._train_step)
        validation = self._validate(predictions)
        self._progress = self._progress.after(epoch, validation.score, self._config.schedule)
        self._history.append(self._record(loss, norm, steps - taken, speed, validation))
        self._save_epoch(validation, predictions)
        return self._report_epoch()

    def _record(self, loss: float, norm: float, skipped: int, speed: Speed, validation: Validation) -> EpochRecord:
        on_gpu = self._world.gpu is not None
        return EpochRecord(
            epoch=self._cursor.epoch + 1,
            train_loss=loss,
            validation_loss=validation.loss,
            gradient_norm=norm,
            learning_rate=self._rate(self._step() - 1),
            images_per_s=speed.images_per_s,
            wait_share=speed.wait_share,
            seconds=self._clock.seconds(),
            devices=self._world.size * (1 if on_gpu else self._world.threads),
            device="GPU" if on_gpu else "CPU core",
            skipped_steps=skipped,
            accumulate=self._config.optimizer.accumulate,
            corrupt_images=len(self._fallbacks.corrupt),
            score_name=self._task.score_name,
            score=validation.score,
            best_score=self._progress.best,
            best_epoch=self._progress.best_epoch + 1,
            validation=validation.metrics,
            cuda_graph=self._train_step.replays,
        )

    def _save_epoch(self, validation: Validation, predictions: Predictions) -> None:
        """Save the epoch, the checkpoint last: until it is on the disk, a resumed unit repeats the epoch."""
        epoch, step, record = self._cursor.epoch, self._step(), self._history[-1]
        self._cursor, self._clock = Cursor(epoch + 1), Clock(self._config.input.batch_size)
        state = self.state_dict()  # on every rank, for it gathers
        writer, task = self._artifact_writer, self._task
        if writer is None:
            return
        new_best = self._progress.best_epoch == epoch
        writer.tensorboard.epoch(step, record, lambda board: task.draw(board, step, validation, predictions, new_best))
        best = Best.of(epoch, self._train_step.evaluation_model(), task.weights_metadata(epoch)) if new_best else None
        writer.save(self._cursor, state, self._history, self._progress.best_epoch, best)
        if self._unit.reports_to_scheduler:
            writer.wait()  # the scheduler decides on what is on the disk, unless the disk refuses
        if record.skipped_steps:
            self._note(f"epoch {epoch + 1}: {record.skipped_steps} steps skipped, their gradient was not finite")

    def _train(self) -> bool:
        """Train the remaining steps of the epoch. Returns whether the unit was paused."""
        cursor = self._cursor
        self._train_step.change(self._config.at_epoch(cursor.epoch))
        self._train_step.begin_epoch(frozen=cursor.epoch < self._config.optimizer.freeze_epochs)
        for batch in self._clock.measure_waits(self._task.batches(cursor.epoch, cursor.step)):
            self._train_step.step(batch, self._step(), self._rate(self._step()))
            self._cursor = replace(self._cursor, step=self._cursor.step + 1)
            if self._world.is_main:
                self._report_step()
            # What all ranks agreed on, not what this one wants: saving is collective, so no rank may save alone.
            request = self._coordinator.exchange(self._request())
            if request is not Request.CONTINUE:
                self._save(last=request is Request.PAUSE)
            if request is Request.PAUSE:
                self._report(Paused(self._unit.fold, self._cursor.describe(self._task.steps)))
                return True
        if self._world.gpu is not None:
            torch.cuda.synchronize(self._world.gpu)
        return False

    def _request(self) -> Request:
        """What this rank requests after a step. Only the main rank requests anything."""
        if self._stop_requested():
            return Request.PAUSE
        writer = self._artifact_writer
        return Request.SAVE if writer is not None and writer.due() else Request.CONTINUE

    def _report_step(self) -> None:
        done, steps = self._cursor.step, self._task.steps
        draw = done % max(1, steps // _POINTS_PER_EPOCH) == 0
        if not (draw or self._clock.due()):
            return
        taken = max(1, done - self._train_step.skipped())
        loss, speed = self._train_step.running_loss() * self._world.size / taken, self._clock.speed(done)
        epoch, epochs = self._cursor.epoch + 1, self._config.schedule.epochs
        self._report(StepDone(self._unit.fold, epoch, epochs, done, steps, *speed, loss))
        if draw and self._artifact_writer is not None:
            rate, load = self._rate(self._step() - 1), gpu_load(self._world.gpu)
            self._artifact_writer.tensorboard.step(self._step(), loss, rate, speed, load)

    def _rate(self, step: int) -> float:
        factor = schedule_factor(self._config.schedule, step, self._task.steps, self._progress.reduction)
        return self._train_step.peak_rate * factor

    def _validate(self, predictions: Predictions) -> Validation:
        """Compute the metrics on the main rank and broadcast them: every rank must stop after the same epoch."""
        usable = self._world.is_main and np.isfinite(predictions).all()
        validation = broadcast_value(self._task.validate(predictions) if usable else None, self._world)
        if validation is None:
            raise TrainingError("The model predicts NaN for validation images: its weights are worthless. Lower --lr.")
        return validation

    def _save(self, last: bool) -> None:
        """Save a checkpoint within an epoch, at once if it is the ``last``. Every rank calls it."""
        self._train_step.check_skipped()
        state, writer = self.state_dict(), self._artifact_writer
        if writer is not None and last:
            writer.save_now(self._cursor, state, self._progress.best_epoch)
        elif writer is not None:
            writer.save(self._cursor, state, self._history, self._progress.best_epoch)

    def _report_epoch(self) -> bool:
        """Report the last epoch. Returns, the same on every rank, whether the scheduler stops the unit there."""
        event = EpochDone.of(self._unit.fold, self._config.schedule.epochs, self._history[-1])
        return broadcast_value(self._report(event), self._world) is not None

    def _finish(self) -> None:
        """Predict with the weights of the best epoch, then write the result. Every rank calls it."""
        progress, writer = self._progress, self._artifact_writer
        weights = broadcast_value(Path() if writer is None else writer.best_weights(progress.best_epoch), self._world)
        self._train_step.load_weights(weights)
        write_result = self._task.finish(self._train_step, weights)
        if writer is not None:
            writer.finish(self._history, write_result)
            reason, name = progress.reason_to_stop(self._config.schedule) or "", self._task.score_name
            self._report(UnitDone(self._unit.fold, name, progress.best, progress.best_epoch + 1, reason))
