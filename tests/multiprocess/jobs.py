"""What the ranks of the tests do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from melanoma_dist.config.run import RunConfig
from melanoma_dist.data.labels import LABEL_SETS
from melanoma_dist.data.manifest import load_dataset
from melanoma_dist.errors import RankError
from melanoma_dist.input.loader import EvaluationLoader, TrainingBatch, TrainingLoader
from melanoma_dist.metrics.validation import ValidationMetrics, validation_metrics
from melanoma_dist.models.classifier import build_classifier
from melanoma_dist.train.collective import broadcast_value, gather, sum_over_ranks
from melanoma_dist.train.events import EpochDone, Event
from melanoma_dist.train.loop import FoldTrainer, train_unit
from melanoma_dist.train.loss import MaskedLoss
from melanoma_dist.train.step import TrainStep
from melanoma_dist.train.unit import Unit
from melanoma_dist.world import World

from ..unit.samples import FRAME, all_samples

Arrays = dict[str, npt.NDArray[Any]]


def build_train_step(world: World, config: RunConfig, targets: npt.NDArray[np.float32]) -> TrainStep:
    """As the loop builds it: only the main rank reads the weights."""
    labels = LABEL_SETS[config.data.labels]
    weights = None if world.is_main else "none"
    model = build_classifier(config.model, FRAME.size, len(labels), config.seed, weights)
    return TrainStep(model, MaskedLoss(config.loss, targets), config, world)


def loader_of(world: World, config: RunConfig, data: Path) -> tuple[TrainingLoader, Any]:
    samples = all_samples(load_dataset(data), config.data.labels)
    chosen = config.input
    return TrainingLoader(
        samples, FRAME, chosen.batch_size, chosen.augment, chosen.balance, config.seed, world
    ), samples


def arrays(model: nn.Module) -> Arrays:
    return {key: value.detach().numpy().copy() for key, value in model.state_dict().items()}


@dataclass
class Steps:
    """What a rank saw and learnt in its first steps."""

    samples: list[npt.NDArray[np.int64]]
    known: list[int]
    loss: float  # summed over the steps, of all ranks
    state: Arrays
    average: Arrays | None


def first_steps(world: World, config: RunConfig, data: Path, steps: int, frozen: bool = False) -> Steps:
    loader, samples = loader_of(world, config, data)
    train_step = build_train_step(world, config, samples.targets)
    train_step.begin_epoch(frozen)
    samples, known = [], []
    batches = loader.epoch(0)
    for number in range(steps):
        batch = next(batches)
        train_step.step(batch, number, config.optimizer.lr)
        samples.append(batch.samples)
        known.append(batch.known)
    loss = sum_over_ranks(train_step.running_loss(), world)
    train_step.check_skipped(most=0)
    average = None if train_step.average is None else arrays(train_step.average.module)
    return Steps(samples, known, loss, arrays(train_step.model), average)


def first_steps_of_each(world: World, configs: Sequence[RunConfig], data: Path, steps: int) -> list[Steps]:
    return [first_steps(world, config, data, steps) for config in configs]


def validation(world: World, config: RunConfig, data: Path) -> tuple[npt.NDArray[np.float32], ValidationMetrics]:
    samples = all_samples(load_dataset(data), config.data.labels)
    model = build_classifier(config.model, FRAME.size, len(LABEL_SETS[config.data.labels]), config.seed)
    train_step = TrainStep(model, MaskedLoss(config.loss, samples.targets), config, world)
    probability = train_step.predict(EvaluationLoader(samples, FRAME, 7, world).batches, len(samples.rows))
    return probability, validation_metrics(samples.targets, probability, LABEL_SETS[config.data.labels], 0.5)


def statistics(world: World, config: RunConfig, data: Path, frozen: bool) -> dict[str, Arrays | None]:
    """The model as it stands after two steps, before and after its statistics are averaged; and the moving average."""
    loader, samples = loader_of(world, config, data)
    train_step = build_train_step(world, config, samples.targets)
    train_step.begin_epoch(frozen)
    initial = arrays(train_step.model)
    batches = loader.epoch(0)
    for number in range(2):
        train_step.step(next(batches), number, config.optimizer.lr)
    before = arrays(train_step.model)
    train_step.sync_buffers()
    samples_seen = EvaluationLoader(samples, FRAME, 7, World())
    train_step.evaluation_model().eval()
    images, _ = next(iter(samples_seen))
    with torch.inference_mode():
        logits = train_step.evaluation_model()(images).numpy()
    return {"initial": initial, "before": before, "after": arrays(train_step.model), "logits": {"logits": logits}}


def one_rank_meets_nan(world: World, config: RunConfig, data: Path, victim: int) -> tuple[int, Arrays]:
    """How many steps of an epoch a rank skipped, and its model, when one rank is given NaN in the third."""
    loader, samples = loader_of(world, config, data)
    train_step = build_train_step(world, config, samples.targets)
    train_step.begin_epoch(frozen=False)
    for number, batch in enumerate(loader.epoch(0)):
        if number == 2 and world.rank == victim:
            spoilt = batch.images.clone()
            spoilt[0] = torch.nan
            batch = replace(batch, images=spoilt)
        train_step.step(batch, number, config.optimizer.lr)
    train_step.check_skipped()
    return train_step.skipped(), arrays(train_step.model)


class Stopped(Exception):
    """The process was meant to end here."""


def whole_unit(world: World, unit: Unit, stop_at: int | None = None) -> list[Event]:
    """Train a unit, or end before step ``stop_at`` as a killed process would."""
    events: list[Event] = []
    with before_step(partial(stop, stop_at)):
        train_unit(unit, world, events.append)
    return events


def seen_by_unit(world: World, unit: Unit, stop_at: int | None = None) -> dict[int, list[int]]:
    """The same; which samples this rank took in which step."""
    samples: dict[int, list[int]] = {}

    def note(batch: TrainingBatch, number: int) -> None:
        stop(stop_at, batch, number)
        samples[number] = batch.samples.tolist()

    with before_step(note), suppress(Stopped):
        train_unit(unit, world, lambda event: None)
    return samples


def stop(stop_at: int | None, _: TrainingBatch, number: int) -> None:
    if number == stop_at:
        raise Stopped(f"before step {number}")


@contextmanager
def before_step(act: Callable[[TrainingBatch, int], None]) -> Iterator[None]:
    """Do something before each step of a train_step."""
    step = TrainStep.step

    def acting(train_step: TrainStep, batch: TrainingBatch, number: int, rate: float) -> None:
        act(batch, number)
        step(train_step, batch, number, rate)

    TrainStep.step = acting  # type: ignore[method-assign]
    try:
        yield
    finally:
        TrainStep.step = step  # type: ignore[method-assign]


def train_and_pause(world: World, unit: Unit, patience: int) -> list[Event]:
    """Train a unit and pause it after so many steps."""
    events: list[Event] = []
    calls = iter(range(10**6))
    train_unit(unit, world, events.append, lambda: next(calls) >= patience)
    return events


def saving_unit(world: World, unit: Unit) -> list[int]:
    """Train a unit; after which steps of their epochs it was saved."""
    saved: list[int] = []
    save = FoldTrainer._save

    def noting(training: FoldTrainer, last: bool) -> None:
        saved.append(training._cursor.step)
        save(training, last)

    FoldTrainer._save = noting  # type: ignore[method-assign]
    try:
        train_unit(unit, world, lambda event: None)
    finally:
        FoldTrainer._save = save  # type: ignore[method-assign]
    return saved


def collectives(world: World) -> tuple[list[int], float, Any]:
    local = np.array([10 * world.rank, 10 * world.rank + 1])
    return (
        gather(local, world).tolist(),
        sum_over_ranks(0.1 * (world.rank + 1), world),
        broadcast_value({"rank": world.rank}, world),
    )


def train_with_scheduler(world: World, unit: Unit, stop_after: int) -> list[Event]:
    """Train a unit whose scheduler stops it after ``stop_after`` epochs."""
    events: list[Event] = []

    def report(event: Event) -> str | None:
        events.append(event)
        return "enough" if isinstance(event, EpochDone) and event.epoch >= stop_after else None

    train_unit(unit, world, report)
    return events


def hanging_unit(world: World, unit: Unit, victim: int, at: int) -> str:
    """Train a unit one of whose ranks hangs; what each rank's error says."""

    def hang(_: TrainingBatch, number: int) -> None:
        if world.rank == victim and number == at:
            time.sleep(3 * unit.config.fault_tolerance.collective_timeout_s)

    try:
        with before_step(hang):
            train_unit(unit, world, lambda event: None)
    except RankError as error:
        return str(error)
    return "finished"
