"""What 2,000 resamples of all figures cost, against a plain loop over scikit-learn.

    python benchmarks/evaluation.py

25,000 made-up predictions of eight labels (one diagnosis each, shares as in ISIC 2019) in 15,000 lesions. One core does
the work. The loop computes the same figures of the same draws on the images repeated as often as they were drawn; it is
timed for a few resamples, and what all would take is extrapolated. Both give the same figures of these few, or the
benchmark ends with an error.
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
from melanoma_dist.metrics.classification import Settings, figures
from melanoma_dist.metrics.delong import delong

_SHARES = (0.178, 0.508, 0.131, 0.034, 0.104, 0.009, 0.010, 0.026)  # of DIAGNOSES in ISIC 2019's training set
_FIGURES = Settings(prevalences=(0.1,))


@dataclass(frozen=True)
class Sizes:
    """How much is computed."""

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
    made = made_up(sizes)
    start, busy = time.perf_counter(), time.process_time()
    found = bootstrap.bootstrap(
        made.truth, made.probability, made.group, DIAGNOSES, _FIGURES, sizes.resamples, sizes.seed
    )
    found.intervals()
    fast, fast_busy = time.perf_counter() - start, time.process_time() - busy
    start, busy = time.perf_counter(), time.process_time()
    for at in range(sizes.loop):
        _check(found, at, _slowly(made, sizes, at))
    factor = sizes.resamples / sizes.loop
    slow, slow_busy = factor * (time.perf_counter() - start), factor * (time.process_time() - busy)
    start = time.perf_counter()
    delong(made.truth[:, 0], made.probability[:, 0], made.group)
    console.table(
        f"{sizes.resamples} resamples of {len(found.columns)} figures, {sizes.images} x {len(DIAGNOSES)} predictions",
        ["way", "seconds", "CPU seconds"],
        [
            ["bootstrap with its intervals", f"{fast:.1f}", f"{fast_busy:.1f}"],
            [f"loop over scikit-learn, from {sizes.loop} resamples", f"{slow:.0f}", f"{slow_busy:.0f}"],
            ["times as fast", f"{slow / fast:.0f}", f"{slow_busy / fast_busy:.0f}"],
        ],
    )
    console.info(f"variance of the AUC of {DIAGNOSES[0]} by DeLong and Obuchowski: {time.perf_counter() - start:.3f} s")


def made_up(sizes: Sizes) -> Predictions:
    """Scores are normal, 2.2 apart, with half of their variance between lesions."""
    rng = np.random.default_rng(sizes.seed)
    diagnosis = np.eye(len(DIAGNOSES))[rng.choice(len(DIAGNOSES), sizes.lesions, p=_SHARES)]
    more = rng.integers(sizes.lesions, size=sizes.images - sizes.lesions)
    group = np.concatenate([np.arange(sizes.lesions), more])
    of_lesion = 2.2 * diagnosis - 1.5 + rng.normal(0, 0.7, diagnosis.shape)
    probability = 1 / (1 + np.exp(-of_lesion[group] - rng.normal(0, 0.7, (sizes.images, len(DIAGNOSES)))))
    return Predictions(diagnosis[group].astype(np.float32), probability.astype(np.float32), group)


def _slowly(made: Predictions, sizes: Sizes, at: int) -> dict[tuple[str, str], float | None]:
    strata = bootstrap.strata_of(made.truth, made.group)
    weights = bootstrap.draw(strata, min(bootstrap.BLOCK, sizes.resamples), np.random.default_rng([sizes.seed, 0]))
    times = weights[made.group, at].astype(int)
    told = figures(np.repeat(made.truth, times, 0), np.repeat(made.probability, times, 0), DIAGNOSES, _FIGURES)
    rows = told["labels"] | {row: told[row] for row in ("macro", "micro", "official")}
    return {(row, figure): value for row, entry in rows.items() for figure, value in entry.items()}


def _check(found: bootstrap.Bootstrap, at: int, slow: dict[tuple[str, str], float | None]) -> None:
    for column, value in zip(found.columns, found.samples[:, at], strict=True):
        expected = slow[column]
        if not np.isclose(value, np.nan if expected is None else expected, rtol=1e-5, equal_nan=True):
            raise MelanomaDistError(f"Resample {at}, {column}: {value}, but scikit-learn has {expected}.")


if __name__ == "__main__":
    run_benchmark(main)
