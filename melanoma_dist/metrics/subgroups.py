"""How a model does for some patients and images and not for others, with counts and intervals.

A gap is the AUC of a subgroup less that of all others, resampled together. Many subgroups are looked at, so a gap is
flagged only where it holds after Holm's correction over all of them, and its interval leaves out zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import norm

from melanoma_dist.data.labels import TRUE
from melanoma_dist.metrics.bootstrap import RESAMPLES, draws, ratios, strata_of
from melanoma_dist.metrics.intervals import Interval, Undefined, interval
from melanoma_dist.metrics.multiple_testing import holm
from melanoma_dist.metrics.ranks import Ranks

Floats = npt.NDArray[np.floating[Any]]
Bools = npt.NDArray[np.bool_]
FEWEST = 5
"""Groups with the label, and without it, that a subgroup and the rest need for a gap."""
SIGNIFICANT = 0.05
UNKNOWN = "unknown"
_AGES = (0, 30, 50, 70)  # years at which a band begins
_MEGAPIXELS = (0.0, 0.5, 2.0)  # of the image as delivered


@dataclass(frozen=True)
class Gap:
    """The AUC of a subgroup less that of all other images."""

    difference: float
    low: float
    high: float
    p: float
    """Two-sided, after Holm's correction over all subgroups."""
    flagged: bool
    """Whether p is below 0.05 and the interval leaves out zero."""


@dataclass(frozen=True)
class Subgroup:
    """Metrics of one label on the images that share a value of an attribute."""

    attribute: str
    value: str
    images: int
    lesions: int
    """Groups: lesions, or patients where the tables name them."""
    positives: int
    negatives: int
    auc: Interval | Undefined
    sensitivity: Interval | Undefined
    specificity: Interval | Undefined
    gap: Gap | Undefined


def subgroups(
    table: pd.DataFrame, about: pd.DataFrame, label: str, threshold: float, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[Subgroup, ...]:
    """One label's metrics in every subgroup of a table of calibrated predictions.

    ``about`` has the manifest's row of every image, by image id. Sensitivity and specificity are at ``threshold``. An
    attribute that all images share makes no subgroups. Raises ConfigError for no resamples.
    """
    truth, probability = table[label + TRUE].to_numpy(), table[label].to_numpy()
    group = np.asarray(pd.factorize(table["group"].to_numpy(), sort=True)[0])
    groups = "patients" if "patient_id" in about else "lesions"
    weights = list(draws(strata_of(truth[:, None], group), resamples, seed))
    entries = []
    for attribute, value, inside in _members(about.loc[table["image_id"]]):
        side, rest = (_Side(truth[rows], probability[rows], group[rows], weights) for rows in (inside, ~inside))
        entries.append(
            Subgroup(
                attribute,
                value,
                images=len(side.truth),
                lesions=len(np.unique(side.group)),
                positives=int((side.truth == 1).sum()),
                negatives=int((side.truth == 0).sum()),
                auc=side.auc(),
                **side.calls(threshold),
                gap=_gap(side, rest, groups),
            )
        )
    return _flagged(entries)


def attributes(about: pd.DataFrame) -> pd.DataFrame:
    """What each image belongs to: sex, age, site, year, image size, metadata, as text, for rows of a manifest."""
    age = about["age"].astype(float)
    pixels = about["source_width"].astype(float) * about["source_height"].astype(float) / 1e6
    known = about[["sex", "age", "site"]].notna()
    return pd.DataFrame(
        {
            "sex": about["sex"].fillna(UNKNOWN),
            "age": _bands(age, _AGES, "years"),
            "site": about["site"].fillna(UNKNOWN),
            "year": about["years"],
            "image size": _bands(pixels, _MEGAPIXELS, "megapixels"),
            "metadata": np.where(known.all(axis=1), "complete", np.where(known.any(axis=1), "in part", "none")),
        }
    )


def _members(about: pd.DataFrame) -> Iterator[tuple[str, str, Bools]]:
    table = attributes(about)
    for attribute in table.columns:
        values = table[attribute].astype(str)
        if values.nunique() > 1:
            for value in sorted(values.unique(), key=lambda name: (name == UNKNOWN, name)):
                yield attribute, value, (values == value).to_numpy()


def _bands(values: pd.Series[float], begins: tuple[float, ...], unit: str) -> pd.Series[str]:
    names = [f"{low:g} to below {high:g} {unit}" for low, high in pairwise(begins)]
    banded = pd.cut(values, [*begins, np.inf], right=False, labels=[*names, f"{begins[-1]:g} {unit} and more"])
    return banded.astype(object).fillna(UNKNOWN).astype(str)


@dataclass(frozen=True)
class _Side:
    """Some of the images, [n]: a subgroup, or all that are not in it."""

    truth: Floats
    probability: Floats
    group: npt.NDArray[np.int_]
    weights: list[npt.NDArray[np.float32]]
    """Of all groups, also those without an image here, in blocks of resamples [G, B]."""

    @cached_property
    def fewer(self) -> int:
        """Groups with the label or groups without it, whichever are fewer."""
        return min(len(np.unique(self.group[self.truth == value])) for value in (0, 1))

    @cached_property
    def resampled(self) -> tuple[float, Floats]:
        """The AUC, and that of every resample, [R]."""
        groups = len(self.weights[0])
        ranks = Ranks(self.truth, self.probability, self.group, groups)
        whole = ranks.auc(np.ones((groups, 1), dtype=np.float32))
        return float(whole[0]), np.concatenate([ranks.auc(block) for block in self.weights])

    def auc(self) -> Interval | Undefined:
        """With its interval."""
        return interval(*self.resampled, self.fewer) if self.fewer else Undefined(_lacks(self.truth))

    def calls(self, threshold: float) -> dict[str, Interval | Undefined]:
        """Sensitivity and specificity."""
        called = self.probability >= np.asarray(threshold, dtype=self.probability.dtype)
        positive, negative = self.truth == 1, self.truth == 0
        parts = {"sensitivity": (positive & called, positive), "specificity": (negative & ~called, negative)}
        return ratios(parts, self.group, self.weights)


def _gap(side: _Side, rest: _Side, groups: str) -> Gap | Undefined:
    """With its p value before the correction."""
    fewest = min(side.fewer, rest.fewer)
    if fewest < FEWEST:
        return Undefined(f"it or the rest has fewer than {FEWEST} {groups} with the label, or without it")
    (first, of_first), (second, of_second) = side.resampled, rest.resampled
    samples = of_first - of_second
    gap = interval(first - second, samples, fewest)
    if isinstance(gap, Undefined):
        return gap
    deviation = float(np.nanstd(samples, ddof=1))
    p = float(2 * norm.sf(abs(first - second) / deviation)) if deviation > 0 else 1.0
    return Gap(gap.estimate, gap.low, gap.high, p, flagged=False)


def _flagged(entries: list[Subgroup]) -> tuple[Subgroup, ...]:
    """With corrected p values, and flags."""
    corrected = iter(holm([entry.gap.p for entry in entries if isinstance(entry.gap, Gap)]))

    def flag(gap: Gap | Undefined) -> Gap | Undefined:
        if isinstance(gap, Undefined):
            return gap
        p = next(corrected)
        return replace(gap, p=p, flagged=p < SIGNIFICANT and (gap.low > 0 or gap.high < 0))

    return tuple(replace(entry, gap=flag(entry.gap)) for entry in entries)


def _lacks(truth: Floats) -> str:
    if not ((truth == 1) | (truth == 0)).any():
        return "the truth of none of its images is known"
    return "none of its images has the label" if not (truth == 1).any() else "all of its images have the label"
