"""Intervals by resampling lesions: images of one lesion are no independent evidence, so they are drawn together.

The predictions stay as they are. So an interval says what other lesions would change, not what another training would:
that is what ``spread`` tells.

Shapes: n images, L labels, G groups, R resamples, C columns.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from melanoma_dist.errors import ConfigError, DataError
from melanoma_dist.evaluate.figures import Settings
from melanoma_dist.evaluate.weighted import Weighted

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]
RESAMPLES = 2000
BLOCK = 32  # resamples at a time, whose counts fit a cache; each block has a random stream of its own


@dataclass(frozen=True)
class Bootstrap:
    """Every figure of every resample."""

    columns: tuple[tuple[str, str], ...]
    """What each row of ``samples`` is: (a label, macro, micro or official; figure)."""
    estimate: Floats
    """Of all images, [C], NaN where not defined."""
    samples: Floats
    """Of each resample, [C, R], NaN where not defined."""
    drawn: str
    """Fingerprint of truth, groups and draws: two with the same are paired, resample by resample."""

    def intervals(self, level: float = 0.95) -> dict[str, dict[str, dict[str, Any]]]:
        """``estimate``, ``low``, ``high`` of each figure by row and name, and its number of ``undefined`` resamples.

        Percentile intervals, over the resamples that define the figure. None where the estimate is not defined.
        """
        if not 0 < level < 1:
            raise ConfigError.of("level", level, "must be above 0 and below 1")
        nested: dict[str, dict[str, dict[str, Any]]] = {}
        for (row, figure), estimate, values in zip(self.columns, self.estimate, self.samples, strict=True):
            defined = values[np.isfinite(values)]
            told = np.isfinite(estimate) and len(defined) > 0
            low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2]).tolist() if told else (None, None)
            nested.setdefault(row, {})[figure] = {
                "estimate": float(estimate) if np.isfinite(estimate) else None,
                "low": low,
                "high": high,
                "undefined": len(values) - len(defined),
            }
        return nested


def bootstrap(
    truth: Floats,
    probability: Floats,
    group: npt.NDArray[Any],
    labels: tuple[str, ...],
    settings: Settings,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Bootstrap:
    """Resample groups within their strata (see ``strata_of``), and compute all figures of ``figures`` each time.

    Truth and probability are [n, L], ``group`` [n] any names. The same truth, groups and seed draw the same groups,
    whatever the probabilities. Prevalence is that of the data, as strata keep it. Raises ConfigError for no resamples
    and DataError for no images.
    """
    if resamples < 1:
        raise ConfigError.of("resamples", resamples, "must be at least 1")
    if not len(truth):
        raise DataError("There are no predictions to resample.")
    number, names = pd.factorize(np.asarray(group), sort=True)
    strata = strata_of(truth, number)
    weighted = Weighted(truth, probability, number, labels, settings)
    sizes = [min(BLOCK, resamples - start) for start in range(0, resamples, BLOCK)]
    blocks = [weighted.of(draw(strata, size, np.random.default_rng([seed, at]))) for at, size in enumerate(sizes)]
    estimate = weighted.of(np.ones((len(names), 1), dtype=np.float32))[:, 0]
    drawn = hashlib.sha256(f"{seed} {resamples}".encode() + number.tobytes() + truth.tobytes()).hexdigest()
    return Bootstrap(tuple(weighted.columns), estimate, np.concatenate(blocks, axis=1), drawn)


def difference(first: Bootstrap, second: Bootstrap) -> Bootstrap:
    """First less second, resample by resample: the paired bootstrap of two sets of predictions of the same images.

    Raises DataError unless both drew the same groups and have the same figures.
    """
    if first.drawn != second.drawn or first.columns != second.columns:
        raise DataError("Only predictions of the same images, labels and resamples can be compared in pairs.")
    return Bootstrap(first.columns, first.estimate - second.estimate, first.samples - second.samples, first.drawn)


def strata_of(truth: Floats, group: Ints) -> Ints:
    """The stratum of each group, [G], for truth [n, L] and numbers of groups [n].

    A group lies in the stratum of the rarest label that one of its images has (rarest by groups; the first of equally
    rare ones), or in that of none. So where each lesion has one diagnosis, a resample has as many lesions of each as
    the data. A stratum of one group is drawn as it is: its label's figures vary with the others alone.
    """
    groups = int(group.max()) + 1
    present = np.zeros((groups, truth.shape[1]), dtype=bool)
    np.logical_or.at(present, group, truth == 1)
    order = np.argsort(present.sum(axis=0), kind="stable")
    return np.where(present.any(axis=1), order[np.argmax(present[:, order], axis=1)], -1)


def draw(strata: Ints, resamples: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """How often each group is drawn in each resample, [G, R]: with replacement, as many of each stratum as it has."""
    weights = np.empty((len(strata), resamples), dtype=np.float32)
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        chosen = rng.integers(len(members), size=(len(members), resamples)) * resamples + np.arange(resamples)
        counts = np.bincount(chosen.ravel(), minlength=len(members) * resamples)
        weights[members] = counts.reshape(len(members), resamples)
    return weights
