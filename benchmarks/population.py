"""Do populations find better paths of hyperparameters than constant ones, and does PB2 learn what PBT draws? Simulated.

    python benchmarks/population.py --repeats 100

The decisions are those of `launch.py sweep --scheduler pbt` and `pb2`; the trainings are formulas, whose assumptions
favour changes: an epoch closes a share of the gap between the score and 0.9. The share is highest (0.2) for a learning
rate that falls from 3e-3 to 1e-4 during the training and a weight decay of 1e-3, and lower by a bell curve (a standard
deviation of half a decade of the rate and one of the decay) for others. Scores vary around their curve (sd 0.008).
Prints the true score of the member whose last measured score is the highest, and paired differences to `constant`:
the same first members, trained to their ends. Cost: a quarter of an hour on one core for 60 repeats.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import tyro
from conditions import commit, machine, run_benchmark

from melanoma_dist import console
from melanoma_dist.config.run import RunConfig, with_values
from melanoma_dist.config.sweep import SweepConfig
from melanoma_dist.sweep.population import Population
from melanoma_dist.sweep.search import build_searcher
from melanoma_dist.sweep.space import Space, Values, read_space

_SPACE = """from ray import tune
SPACE = {"optimizer.lr": tune.loguniform(1e-5, 1e-1), "optimizer.weight_decay": tune.loguniform(1e-6, 1e-1)}
"""
_LIMIT, _SHARE, _NOISE = 0.9, 0.2, 0.008
_RATES, _DECAY = (3e-3, 1e-4), 1e-3


@dataclass(frozen=True)
class Settings:
    """How large the populations are, and how often to repeat."""

    sizes: tuple[int, ...] = (4, 8, 16)
    """Members."""
    epochs: int = 30
    """Epochs of a training."""
    interval: int = 3
    """Epochs between two exchanges."""
    repeats: int = 100
    """Simulated sweeps of each kind."""


def main() -> None:
    """Simulate and print."""
    settings = tyro.cli(Settings, description=__doc__)
    console.info(f"{machine()}; commit {commit()}; {settings}")
    rows = []
    with TemporaryDirectory() as folder:
        file = Path(folder, "space.py")
        file.write_text(_SPACE)
        space = read_space(file)
        for size in settings.sizes:
            scores = {
                kind: np.array([_simulate(space, settings, size, kind, seed) for seed in range(settings.repeats)])
                for kind in ("constant", "pbt", "pb2")
            }
            rows += [[str(size), kind, f"{values.mean():.4f}", _difference(values, scores["constant"])]
                     for kind, values in scores.items()]  # fmt: skip
    console.table("True score of the chosen member", ["members", "", "mean", "against constant (95 % interval)"], rows)


def _difference(values: np.ndarray, others: np.ndarray) -> str:
    gains = values - others
    margin = 1.96 * gains.std(ddof=1) / np.sqrt(len(gains))
    return f"{gains.mean():+.4f} ({gains.mean() - margin:+.4f} to {gains.mean() + margin:+.4f})"


def _simulate(space: Space, settings: Settings, size: int, kind: Literal["constant", "pbt", "pb2"], seed: int) -> float:
    """The true score that one sweep ends with."""
    run = with_values(RunConfig(), {"schedule.epochs": settings.epochs, "seed": seed})
    scheduler: Literal["pbt", "pb2"] = "pbt" if kind == "constant" else kind
    chosen = SweepConfig(scheduler=scheduler, trials=size, grace_epochs=settings.interval, run=run)
    population = Population.of(chosen, space)
    if population is None:
        raise RuntimeError(f"a sweep with {scheduler} has a population")
    searcher = build_searcher(chosen, space, seed)
    values = [each for _ in range(size) if (each := searcher.suggest()) is not None]
    scores, noise = dict.fromkeys(range(size), 0.5), np.random.default_rng(seed)
    for number in range(size):
        population.start(number)
    for epoch in range(settings.epochs):
        scores = {number: _trained(run, values[number], score, epoch) for number, score in scores.items()}
        measured = {number: score + noise.normal(0, _NOISE) for number, score in scores.items()}
        if kind != "constant":
            scores = _exchanged(population, values, scores, measured, epoch + 1)
    return scores[max(measured, key=lambda number: measured[number])]


def _trained(run: RunConfig, values: Values, score: float, epoch: int) -> float:
    """The score after one more epoch (from 0)."""
    optimizer = with_values(run, values).at_epoch(epoch).optimizer
    rate, decay = math.log10(optimizer.lr), math.log10(optimizer.weight_decay)
    start, end = (math.log10(each) for each in _RATES)
    best_rate = start + (end - start) * epoch / run.schedule.epochs
    fit = math.exp(-2 * (rate - best_rate) ** 2 - 0.5 * (decay - math.log10(_DECAY)) ** 2)
    return score + _SHARE * fit * (_LIMIT - score)


def _exchanged(
    population: Population, values: list[Values], scores: dict[int, float], measured: dict[int, float], epoch: int
) -> dict[int, float]:
    """The true scores of the members that continue. Appends the values of children."""
    reasons = [population.report(number, epoch, score) for number, score in measured.items()]
    if None in reasons:
        return scores
    for number in scores:
        population.release(number, epoch)
    for each in population.exchange(values):
        scores = {**scores, len(values): scores[each.parent]}
        values.append(each.values)
        del scores[each.loser]
    for number in population.waiting():
        population.resume(number)
    return scores


if __name__ == "__main__":
    run_benchmark(main)
