"""Runs against each other on the same images: what each figure is, and by how much two runs differ in it.

Two kinds of chance are told apart. Images: paired DeLong and the paired bootstrap, both over lesions, ask whether other
lesions of the same kind could reverse a difference between these very models. Trainings: the corrected resampled t
interval over folds asks whether other training images could. Only the headline label is tested, with Holm's correction
over all pairs, and with a bootstrap interval at the level (Bonferroni's) that holds for all pairs at once.

A figure that is not defined is ``{"not_defined": why}``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

from melanoma_dist.artifacts.predictions import arrays
from melanoma_dist.console import progress
from melanoma_dist.data.folds import HEADLINE
from melanoma_dist.errors import DataError
from melanoma_dist.evaluate.comparison.consistency import same_models
from melanoma_dist.evaluate.comparison.runs import ComparedRun
from melanoma_dist.metrics.bootstrap import RESAMPLES, Bootstrap, bootstrap, difference, tail
from melanoma_dist.metrics.classification import Settings
from melanoma_dist.metrics.cross_validation import compare, over_folds
from melanoma_dist.metrics.delong import Aucs, delong
from melanoma_dist.metrics.multiple_testing import holm

Floats = npt.NDArray[np.floating[Any]]

COMPARED = ("auc", "average_precision", "sensitivity", "specificity", "balanced_accuracy", "specificity_at_90", "brier")
"""Figures of ``statistics.figures`` that are told; sensitivity, specificity and balanced accuracy at the threshold."""
LEVEL = 0.95
SIGNIFICANT = 0.05
_TAIL = 10  # resamples that must lie beyond an end of an interval, or the end is luck
_MOST = 20_000  # resamples, where very few lesions would ask for more

_OF_POSITIVES = ("auc", "average_precision", "sensitivity", "balanced_accuracy", "specificity_at_90")
_OF_NEGATIVES = ("auc", "specificity", "balanced_accuracy", "specificity_at_90")


def resamples_for(pairs: int, groups: int) -> int:
    """How many resamples the ends of simultaneous intervals of so many pairs need.

    ``groups`` with the headline label, or without it where those are fewer: see ``resample.tail``.
    """
    if groups < 2:  # no test follows
        return RESAMPLES
    share = max(tail(1 - SIGNIFICANT / pairs, groups), _TAIL / _MOST)
    return max(RESAMPLES, round(_TAIL / share))


def pair_up(contenders: Sequence[ComparedRun], resamples: int | None = None, seed: int = 0) -> dict[str, Any]:
    """Figures of each run (``runs``) and of each pair of runs (``pairs``), and what the intervals are (``bootstrap``).

    The contenders have the same images, groups and truth (``runs.require_same_truth``).
    """
    labels, count = contenders[0].labels, len(contenders) * (len(contenders) - 1) // 2
    truth, _ = arrays(contenders[0].table, labels)
    group = contenders[0].table["group"].to_numpy()
    headline = truth[:, labels.index(HEADLINE)]
    fewest = min(len(np.unique(group[headline == kind])) for kind in (0, 1))
    resamples = resamples or resamples_for(count, fewest)
    absent = _absent(truth, labels, contenders)
    boots = [
        bootstrap(truth, arrays(each.table, labels)[1], group, labels, Settings(each.thresholds), resamples, seed)
        for each in progress(contenders, len(contenders), f"{resamples} resamples of each run")
    ]
    aucs = {label: _aucs(contenders, label) for label in labels}
    simultaneous = 1 - SIGNIFICANT / count
    pairs = [
        _pair(contenders, boots, aucs, absent, (first, second), simultaneous)
        for first, second in combinations(range(len(contenders)), 2)
    ]
    _correct(pairs)
    return {
        "runs": [
            _single(each, boot, {label: _own(aucs[label], at) for label in labels}, absent)
            for at, (each, boot) in enumerate(zip(contenders, boots, strict=True))
        ],
        "pairs": pairs,
        "bootstrap": {"resamples": resamples, "seed": seed, "level": LEVEL, "simultaneous_level": simultaneous},
    }


def _single(
    contender: ComparedRun, boot: Bootstrap, own: dict[str, Any], absent: dict[tuple[str, str], str]
) -> dict[str, Any]:
    """One run: its figures by label and macro, its AUCs' DeLong intervals, its AUC fold by fold."""
    _, probability = arrays(contender.table, contender.labels)
    constant = [label for at, label in enumerate(contender.labels) if len(np.unique(probability[:, at])) == 1]
    return {
        "name": contender.name,
        "figures": _figures(boot, contender.labels, absent),
        "delong": own,
        "folds": None if contender.evaluation else fold_aucs(contender),
        "constant": [label for label in constant if (label, "brier") not in absent],
    }


def _pair(
    contenders: Sequence[ComparedRun],
    boots: list[Bootstrap],
    aucs: dict[str, Aucs | str],
    absent: dict[tuple[str, str], str],
    which: tuple[int, int],
    simultaneous: float,
) -> dict[str, Any]:
    """First less second of two runs."""
    first, second = (contenders[at] for at in which)
    labels, paired = first.labels, difference(boots[which[0]], boots[which[1]])
    same = np.array_equal(arrays(first.table, labels)[1], arrays(second.table, labels)[1])
    tests = {label: _test(aucs[label], *which) for label in labels}
    return {
        "first": first.name,
        "second": second.name,
        "identical": same,
        "same_models": same_models(first.folder, second.folder),
        "figures": _figures(paired, labels, absent),
        "delong": tests,
        "folds": _over_folds(first, second),
        "simultaneous": _figures(paired, labels, absent, simultaneous)[HEADLINE]["auc"],
        "p": tests[HEADLINE].get("p"),
    }


def _correct(pairs: list[dict[str, Any]]) -> None:
    """Add to each pair its corrected p value, and whether the headline figure is separated, and which run is better.

    Separated: the corrected p value is below 0.05 and the simultaneous interval leaves out 0. Both, because DeLong's
    normal distribution and the bootstrap's percentiles err in different places where positives are few.
    """
    tested = [pair for pair in pairs if pair["p"] is not None]
    for pair, corrected in zip(tested, holm([pair["p"] for pair in tested]), strict=True):
        pair["p_corrected"] = corrected
    for pair in pairs:
        pair.setdefault("p_corrected", None)
        found, p = pair["simultaneous"], pair["p_corrected"]
        leaves_out = "not_defined" not in found and (found["low"] > 0 or found["high"] < 0)
        pair["separated"] = bool(leaves_out and p is not None and p < SIGNIFICANT)
        pair["better"] = (pair["first"] if found["low"] > 0 else pair["second"]) if pair["separated"] else None


def _aucs(contenders: Sequence[ComparedRun], label: str) -> Aucs | str:
    """The AUCs of all runs with their covariance, or why there are none."""
    truth = arrays(contenders[0].table, (label,))[0][:, 0]
    scores = np.stack([each.table[label].to_numpy(dtype=np.float64) for each in contenders], axis=1)
    try:
        return delong(truth, scores, contenders[0].table["group"].to_numpy())
    except DataError as error:
        return str(error)


def _own(aucs: Aucs | str, which: int) -> dict[str, Any]:
    if isinstance(aucs, str):
        return {"not_defined": aucs}
    low, high = aucs.interval(which, LEVEL)
    deviation = float(np.sqrt(aucs.covariance[which, which]))
    return {"auc": float(aucs.auc[which]), "low": low, "high": high, "standard_error": deviation}


def _test(aucs: Aucs | str, first: int, second: int) -> dict[str, Any]:
    """The paired DeLong test. Two AUCs that differ but have no variance (0.5 of a constant, 1) allow none."""
    if isinstance(aucs, str):
        return {"not_defined": aucs}
    found = aucs.difference(first, second, LEVEL)
    if found.p == 0 and found.standard_error < 1e-12:
        return {"not_defined": "The estimated variance of the difference is 0, of which no test follows."}
    told = {"difference": found.difference, "low": found.low, "high": found.high}
    return {**told, "standard_error": found.standard_error, "p": found.p}


def _figures(
    boot: Bootstrap, labels: tuple[str, ...], absent: dict[tuple[str, str], str], level: float = LEVEL
) -> dict[str, dict[str, Any]]:
    """``estimate``, ``low``, ``high`` and ``undefined`` resamples of each label's and the macro figures."""
    told = boot.intervals(level)
    nothing = "No label has it."
    return {
        row: {
            figure: told[row][figure]
            if told[row][figure]["low"] is not None
            else {"not_defined": absent.get((row, figure), nothing)}
            for figure in COMPARED
        }
        for row in (*labels, "macro")
    }


def _absent(truth: Floats, labels: tuple[str, ...], contenders: Sequence[ComparedRun]) -> dict[tuple[str, str], str]:
    """Why a label does not have a figure, by (label, figure); it depends on the truth alone."""
    why = {}
    known_reasons = (contenders[0].evaluation or {}).get("labels_absent") or {}
    for column, label in enumerate(labels):
        positive, negative = (truth[:, column] == 1).any(), (truth[:, column] == 0).any()
        for figure in COMPARED:
            if not positive and not negative:
                reason = str(known_reasons.get(label, "It is not known of any image whether it has the label."))
            elif not positive and figure in _OF_POSITIVES:
                reason = "No image is known to have the label."
            elif not negative and figure in _OF_NEGATIVES:
                reason = "Every image of which it is known has the label."
            else:
                continue
            why[label, figure] = reason
    return why


def fold_aucs(contender: ComparedRun) -> dict[str, float | None]:
    """The headline AUC of each fold; None for a fold whose images are of one kind."""
    found: dict[str, float | None] = {}
    for fold, rows in contender.table.groupby("fold"):
        truth, probability = (values[:, 0] for values in arrays(rows, (HEADLINE,)))
        known = ~np.isnan(truth)
        both = len(np.unique(truth[known])) == 2
        found[str(fold)] = float(roc_auc_score(truth[known], probability[known])) if both else None
    return found


def _over_folds(first: ComparedRun, second: ComparedRun) -> dict[str, Any]:
    """The corrected resampled t interval of the difference of the headline AUC over folds."""
    if first.evaluation:
        return {"not_defined": "The ensemble of all folds predicts these images."}
    if repeated := _over_seeds(first, second):
        return repeated
    one, two = fold_aucs(first), fold_aucs(second)
    mine = {int(fold): auc for fold, auc in one.items() if auc is not None and two[fold] is not None}
    theirs = {int(fold): auc for fold, auc in two.items() if auc is not None and one[fold] is not None}
    if len(mine) < 2:
        return {"not_defined": f"{len(mine)} of {len(one)} folds have this AUC, and a spread needs 2."}
    found = compare(mine, theirs)
    return {"difference": found.difference, "low": found.low, "high": found.high, "folds": len(mine), "seeds": 1}


def _over_seeds(first: ComparedRun, second: ComparedRun) -> dict[str, Any] | None:
    """The same over folds and seeds, for two runs that repeated every fold with the same seeds; None for others."""
    one, two = (each.summary.get("repeats_of") for each in (first, second))
    if not one or not two or one["seeds"] != two["seeds"]:
        return None
    values = [np.array(each["auc"][HEADLINE], dtype=np.float64) for each in (one, two)]  # [folds, seeds], None is NaN
    differences = values[0] - values[1]
    if np.isnan(differences).any() or len(differences) < 2:
        return None
    folds, seeds = differences.shape
    found = over_folds(differences.ravel().tolist(), repeats=seeds)
    return {"difference": found.mean, "low": found.low, "high": found.high, "folds": folds, "seeds": seeds}
