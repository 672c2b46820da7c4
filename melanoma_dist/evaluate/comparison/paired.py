"""Compare runs on the same images: the metrics of each run, and the differences of each pair of runs.

Two kinds of chance are kept apart. Images: paired DeLong and the paired bootstrap, both over lesions, ask whether other
lesions of the same kind could reverse a difference between these very models. Trainings: the corrected resampled t
interval over folds asks whether other training images could. Only the headline label is tested, with Holm's correction
over all pairs, and with a bootstrap interval at the level (Bonferroni's) that holds for all pairs at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

from melanoma_dist.artifacts.predictions import arrays
from melanoma_dist.console import progress
from melanoma_dist.errors import DataError
from melanoma_dist.evaluate.comparison.consistency import same_models
from melanoma_dist.evaluate.comparison.records import (
    BootstrapSettings,
    DelongAuc,
    DelongTest,
    Estimate,
    FoldInterval,
    Metrics,
    NotDefined,
    Pair,
    RunMetrics,
)
from melanoma_dist.evaluate.comparison.runs import ComparedRun
from melanoma_dist.metrics.bootstrap import RESAMPLES, Bootstrap, bootstrap, difference
from melanoma_dist.metrics.classification import Settings
from melanoma_dist.metrics.cross_validation import compare, over_folds
from melanoma_dist.metrics.delong import Aucs, delong
from melanoma_dist.metrics.intervals import tail
from melanoma_dist.metrics.multiple_testing import holm

Floats = npt.NDArray[np.floating[Any]]

COMPARED = ("auc", "average_precision", "sensitivity", "specificity", "balanced_accuracy", "specificity_at_90", "brier")
"""Metrics that are compared; sensitivity, specificity and balanced accuracy at the threshold."""
LEVEL = 0.95
SIGNIFICANT = 0.05
_TAIL = 10  # resamples beyond an end of an interval; with fewer, the end depends on the seed
_MOST = 20_000  # resamples, where very few lesions would need more

_OF_POSITIVES = ("auc", "average_precision", "sensitivity", "balanced_accuracy", "specificity_at_90")
_OF_NEGATIVES = ("auc", "specificity", "balanced_accuracy", "specificity_at_90")


def resamples_for(pairs: int, groups: int) -> int:
    """The number of resamples for the ends of simultaneous intervals of so many pairs.

    ``groups``: lesions with the headline label, or without it where those are fewer; see ``bootstrap.tail``.
    """
    if groups < 2:  # no test is possible
        return RESAMPLES
    share = max(tail(1 - SIGNIFICANT / pairs, groups), _TAIL / _MOST)
    return max(RESAMPLES, round(_TAIL / share))


def pair_up(
    runs: Sequence[ComparedRun], resamples: int | None = None, seed: int = 0
) -> tuple[list[RunMetrics], list[Pair], BootstrapSettings]:
    """Compute the metrics of each run and the differences of each pair of runs.

    The runs have the same images, groups and truth (``runs.require_same_truth``).
    """
    labels, count = runs[0].labels, len(runs) * (len(runs) - 1) // 2
    truth, _ = arrays(runs[0].table, labels)
    group = runs[0].table["group"].to_numpy()
    headline = truth[:, labels.headline_column]
    fewest = min(len(np.unique(group[headline == answer])) for answer in (0, 1))
    resamples = resamples or resamples_for(count, fewest)
    absent = _absent(truth, labels, runs)
    boots = [
        bootstrap(truth, arrays(run.table, labels)[1], group, labels, Settings(run.thresholds), resamples, seed)
        for run in progress(runs, len(runs), f"{resamples} resamples of each run")
    ]
    aucs = {label: _aucs(runs, label) for label in labels}
    simultaneous = 1 - SIGNIFICANT / count
    pairs = [
        _pair(runs, boots, aucs, absent, (first, second), simultaneous)
        for first, second in combinations(range(len(runs)), 2)
    ]
    metrics = [
        _run_metrics(run, boot, {label: _delong_auc(aucs[label], at) for label in labels}, absent)
        for at, (run, boot) in enumerate(zip(runs, boots, strict=True))
    ]
    return metrics, _correct(pairs), BootstrapSettings(resamples, seed, LEVEL, simultaneous)


def _run_metrics(
    run: ComparedRun,
    boot: Bootstrap,
    delong_aucs: dict[str, DelongAuc | NotDefined],
    absent: dict[tuple[str, str], str],
) -> RunMetrics:
    _, probability = arrays(run.table, run.labels)
    constant = [label for at, label in enumerate(run.labels) if len(np.unique(probability[:, at])) == 1]
    return RunMetrics(
        name=run.name,
        metrics=_metrics(boot, run.labels, absent),
        delong=delong_aucs,
        folds=None if run.evaluation else fold_aucs(run),
        constant=[label for label in constant if (label, "brier") not in absent],
    )


def _pair(
    runs: Sequence[ComparedRun],
    boots: list[Bootstrap],
    aucs: dict[str, Aucs | str],
    absent: dict[tuple[str, str], str],
    positions: tuple[int, int],
    simultaneous: float,
) -> Pair:
    """The difference of two runs, not corrected yet."""
    first, second = (runs[at] for at in positions)
    labels, paired = first.labels, difference(boots[positions[0]], boots[positions[1]])
    tests = {label: _delong_test(aucs[label], *positions) for label in labels}
    headline = tests[labels.headline]
    return Pair(
        first=first.name,
        second=second.name,
        identical=np.array_equal(arrays(first.table, labels)[1], arrays(second.table, labels)[1]),
        same_models=same_models(first.folder, second.folder),
        metrics=_metrics(paired, labels, absent),
        delong=tests,
        folds=_over_folds(first, second),
        simultaneous=_metrics(paired, labels, absent, simultaneous)[labels.headline]["auc"],
        p=None if isinstance(headline, NotDefined) else headline.p,
    )


def _correct(pairs: list[Pair]) -> list[Pair]:
    """Add to each pair its corrected p value, whether the headline AUC is separated, and which run is better.

    Separated: the corrected p value is below 0.05 and the simultaneous interval excludes 0. Both are required, because
    DeLong's normal distribution and the bootstrap's percentiles err in different places where positives are few.
    """
    tested = [at for at, pair in enumerate(pairs) if pair.p is not None]
    corrected = dict(zip(tested, holm([pair.p for pair in pairs if pair.p is not None]), strict=True))
    return [_separate(pair, corrected.get(at)) for at, pair in enumerate(pairs)]


def _separate(pair: Pair, p: float | None) -> Pair:
    interval = pair.simultaneous
    if isinstance(interval, NotDefined) or p is None or p >= SIGNIFICANT or interval.low <= 0 <= interval.high:
        return replace(pair, p_corrected=p)
    return replace(pair, p_corrected=p, separated=True, better=pair.first if interval.low > 0 else pair.second)


def _aucs(runs: Sequence[ComparedRun], label: str) -> Aucs | str:
    """The AUCs of all runs with their covariance, or the reason why they are not defined."""
    truth = arrays(runs[0].table, (label,))[0][:, 0]
    scores = np.stack([run.table[label].to_numpy(dtype=np.float64) for run in runs], axis=1)
    try:
        return delong(truth, scores, runs[0].table["group"].to_numpy())
    except DataError as error:
        return str(error)


def _delong_auc(aucs: Aucs | str, at: int) -> DelongAuc | NotDefined:
    if isinstance(aucs, str):
        return NotDefined(aucs)
    return DelongAuc(float(aucs.auc[at]), *aucs.interval(at, LEVEL), float(np.sqrt(aucs.covariance[at, at])))


def _delong_test(aucs: Aucs | str, first: int, second: int) -> DelongTest | NotDefined:
    """The paired DeLong test. Two AUCs that differ but have no variance (0.5 of a constant, 1) allow none."""
    if isinstance(aucs, str):
        return NotDefined(aucs)
    test = aucs.difference(first, second, LEVEL)
    if test.p == 0 and test.standard_error < 1e-12:
        return NotDefined("The estimated variance of the difference is 0, which allows no test.")
    return DelongTest(test.difference, test.low, test.high, test.standard_error, test.p)


def _metrics(
    boot: Bootstrap, labels: tuple[str, ...], absent: dict[tuple[str, str], str], level: float = LEVEL
) -> Metrics:
    """Every compared metric of each label and of the macro mean, or the reason why it is not defined."""
    rows = boot.intervals(level).rows

    def estimate(row: str, metric: str) -> Estimate | NotDefined:
        interval = rows[row].of(metric)
        if interval.estimate is None or interval.low is None or interval.high is None:
            return NotDefined(absent.get((row, metric), "No label has it."))
        return Estimate(interval.estimate, interval.low, interval.high, interval.undefined_resamples)

    return {row: {metric: estimate(row, metric) for metric in COMPARED} for row in (*labels, "macro")}


def _absent(truth: Floats, labels: tuple[str, ...], runs: Sequence[ComparedRun]) -> dict[tuple[str, str], str]:
    """The reason why a metric of a label is not defined, by (label, metric); it depends on the truth alone."""
    reasons = {}
    recorded = runs[0].evaluation.labels_absent if runs[0].evaluation else {}
    for column, label in enumerate(labels):
        has_positive, has_negative = (truth[:, column] == 1).any(), (truth[:, column] == 0).any()
        for metric in COMPARED:
            if not has_positive and not has_negative:
                reason = recorded.get(label, "Of no image is it known whether it has the label.")
            elif not has_positive and metric in _OF_POSITIVES:
                reason = "No image is known to have the label."
            elif not has_negative and metric in _OF_NEGATIVES:
                reason = "Every image with a known answer has the label."
            else:
                continue
            reasons[label, metric] = reason
    return reasons


def fold_aucs(run: ComparedRun) -> dict[str, float | None]:
    """The headline AUC of each fold; None for a fold without positives or without negatives."""
    aucs: dict[str, float | None] = {}
    for fold, rows in run.table.groupby("fold"):
        truth, probability = (values[:, 0] for values in arrays(rows, (run.labels.headline,)))
        known = ~np.isnan(truth)
        has_both = len(np.unique(truth[known])) == 2
        aucs[str(fold)] = float(roc_auc_score(truth[known], probability[known])) if has_both else None
    return aucs


def _over_folds(first: ComparedRun, second: ComparedRun) -> FoldInterval | NotDefined:
    """The corrected resampled t interval of the difference of the headline AUC over folds."""
    if first.evaluation:
        return NotDefined("The ensemble of all folds predicts these images.")
    if repeated := _over_seeds(first, second):
        return repeated
    firsts, seconds = fold_aucs(first), fold_aucs(second)
    both = {int(fold): (auc, seconds[fold]) for fold, auc in firsts.items()}
    pairs = {fold: (one, two) for fold, (one, two) in both.items() if one is not None and two is not None}
    if len(pairs) < 2:
        return NotDefined(f"{len(pairs)} of {len(firsts)} folds have this AUC, and an interval over folds needs 2.")
    result = compare({fold: one for fold, (one, _) in pairs.items()}, {fold: two for fold, (_, two) in pairs.items()})
    if result.low == result.high:
        return NotDefined(f"Every fold has the same difference, {result.difference:g}: that is no evidence of none.")
    return FoldInterval(result.difference, result.low, result.high, len(pairs), seeds=1)


def _over_seeds(first: ComparedRun, second: ComparedRun) -> FoldInterval | None:
    """The same over folds and seeds, for two runs that repeated every fold with the same seeds; None for others."""
    one, two = first.summary.seed_repeats, second.summary.seed_repeats
    if one is None or two is None or one.seeds != two.seeds:
        return None
    aucs = [np.array(repeats.auc[first.labels.headline], dtype=np.float64) for repeats in (one, two)]  # NaN for None
    differences = aucs[0] - aucs[1]  # [folds, seeds]
    if np.isnan(differences).any() or len(differences) < 2:
        return None
    folds, seeds = differences.shape
    result = over_folds(differences.ravel().tolist(), repeats=seeds)
    return FoldInterval(result.mean, result.low, result.high, folds, seeds)
