"""Time 2,000 bootstrap resamples of all metrics against a plain loop over scikit-learn.

    python benchmarks/evaluation.py

25,000 random predictions of eight labels (one diagnosis each, shares as in ISIC 2019) in 15,000 lesions. One core does
the work. The loop repeats each image as often as it was drawn and computes the same metrics of the same draws. It is
timed for a few resamples and extrapolated to all. The benchmark fails unless both give the same metrics of these few.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import tyro
from conditions import commit, machine, run_benchmark

from melanoma_dist import console
from melanoma_dist.data.labels import DIAGNOSES
from melanoma_dist.errors import MelanomaDistError
from melanoma_dist.metrics import bootstrap
from melanoma_dist.metrics.classification import METRICS, Settings, compute_metrics
from melanoma_dist.metrics.delong import delong
from melanoma_dist.metrics.weighted import ISIC_SCORES

_SHARES = (0.178, 0.508, 0.131, 0.034, 0.104, 0.009, 0.010, 0.026)  # of DIAGNOSES in ISIC 2019's training set
_SETTINGS = Settings(prevalences=(0.1,))


@dataclass(frozen=True)
class Sizes:
    """Sizes of the benchmark."""

    images: int = 25_000
    """Predictions."""
    lesions: int = 15_000
    """Groups that are drawn."""
    resamples: int = 2000
    """Of the fast path."""
    loop: int = 3
    """Resamples of the plain loop."""
    seed: int = 0
    """Of the predictions and the draws."""


@dataclass(frozen=True)
class Predictions:
    """Truth and probability [images, labels], and each image's lesion."""

    truth: npt.NDArray[np.float32]
    probability: npt.NDArray[np.float32]
    group: npt.NDArray[np.int_]


def main() -> None:
    sizes = tyro.cli(Sizes, description=__doc__)
    console.info(f"{machine()}; commit {commit()}")
    predictions = random_predictions(sizes)
    start, busy = time.perf_counter(), time.process_time()
    resampled = bootstrap.bootstrap(
        predictions.truth, predictions.probability, predictions.group, DIAGNOSES, _SETTINGS, sizes.resamples, sizes.seed
    )
    resampled.intervals()
    fast, fast_busy = time.perf_counter() - start, time.process_time() - busy
    start, busy = time.perf_counter(), time.process_time()
    for at in range(sizes.loop):
        _check(resampled, at, _loop_metrics(predictions, sizes, at))
    factor = sizes.resamples / sizes.loop
    slow, slow_busy = factor * (time.perf_counter() - start), factor * (time.process_time() - busy)
    start = time.perf_counter()
    delong(predictions.truth[:, 0], predictions.probability[:, 0], predictions.group)
    console.table(
        f"{sizes.resamples} resamples, {len(resampled.columns)} metrics, {sizes.images} x {len(DIAGNOSES)} predictions",
        ["way", "seconds", "CPU seconds"],
        [
            ["bootstrap with its intervals", f"{fast:.1f}", f"{fast_busy:.1f}"],
            [f"loop over scikit-learn, from {sizes.loop} resamples", f"{slow:.0f}", f"{slow_busy:.0f}"],
            ["times as fast", f"{slow / fast:.0f}", f"{slow_busy / fast_busy:.0f}"],
        ],
    )
    console.info(f"variance of the AUC of {DIAGNOSES[0]} by DeLong and Obuchowski: {time.perf_counter() - start:.3f} s")


def random_predictions(sizes: Sizes) -> Predictions:
    """Scores are normal, 2.2 apart, with half of their variance between lesions."""
    rng = np.random.default_rng(sizes.seed)
    diagnosis = np.eye(len(DIAGNOSES))[rng.choice(len(DIAGNOSES), sizes.lesions, p=_SHARES)]
    more = rng.integers(sizes.lesions, size=sizes.images - sizes.lesions)
    group = np.concatenate([np.arange(sizes.lesions), more])
    of_lesion = 2.2 * diagnosis - 1.5 + rng.normal(0, 0.7, diagnosis.shape)
    probability = 1 / (1 + np.exp(-of_lesion[group] - rng.normal(0, 0.7, (sizes.images, len(DIAGNOSES)))))
    return Predictions(diagnosis[group].astype(np.float32), probability.astype(np.float32), group)


def _loop_metrics(predictions: Predictions, sizes: Sizes, at: int) -> dict[tuple[str, str], float | None]:
    strata = bootstrap.strata_of(predictions.truth, predictions.group)
    weights = bootstrap.draw(strata, min(bootstrap.BLOCK, sizes.resamples), np.random.default_rng([sizes.seed, 0]))
    times = weights[predictions.group, at].astype(int)
    truth, probability = np.repeat(predictions.truth, times, 0), np.repeat(predictions.probability, times, 0)
    metrics = compute_metrics(truth, probability, DIAGNOSES, _SETTINGS)
    rows = {**metrics.labels, "macro": metrics.macro, "micro": metrics.micro}
    values = {(row, metric): entry.value(metric) for row, entry in rows.items() for metric in METRICS}
    return values | {(ISIC_SCORES, score): value for score, value in metrics.isic_scores.items()}


def _check(resampled: bootstrap.Bootstrap, at: int, slow: dict[tuple[str, str], float | None]) -> None:
    for column, value in zip(resampled.columns, resampled.samples[:, at], strict=True):
        expected = slow[column]
        if not np.isclose(value, np.nan if expected is None else expected, rtol=1e-5, equal_nan=True):
            raise MelanomaDistError(f"Resample {at}, {column}: {value}, but scikit-learn has {expected}.")


if __name__ == "__main__":
    run_benchmark(main)
