"""The conclusions of a comparison in plain sentences, and their limits."""

from __future__ import annotations

from collections.abc import Sequence

from melanoma_dist.evaluate.comparison.records import Comparison, Estimate, FoldInterval, NotDefined, Pair, RunRecord
from melanoma_dist.pages.numbers import signed


def conclusions(comparison: Comparison) -> list[str]:
    """State the highest AUC of more than two runs, then the difference of every pair."""
    leader = [_leader(comparison)] if len(comparison.runs) > 2 else []
    pairs = [_pair(pair, comparison) for pair in comparison.pairs]
    constant = [
        f"{run.name} gives every image the same probability of {' and '.join(run.constant)}: it learnt nothing there."
        for run in comparison.runs
        if run.constant
    ]
    return [*leader, *pairs, *constant]


def limits(comparison: Comparison) -> list[str]:
    """State what the conclusions do not show."""
    chosen = _holdout_limits(comparison) if comparison.holdout else _optimistic(comparison)
    return [*chosen, _seeds(comparison.runs), _tested(comparison), _thresholds(comparison), _cost(comparison)]


def _optimistic(comparison: Comparison) -> list[str]:
    return [_OPTIMISTIC, _MODELS_ALONE.format(groups=comparison.groups)]


_OPTIMISTIC = (
    "All runs are measured on the same images in the same folds. Each fold kept the epoch of its highest validation "
    "AUC, so every metric here is optimistic, and one run's may be more so than another's. Choosing a run by this page "
    "and then citing its metrics is optimistic once more. Only images that no fold trains or validates on avoid this "
    "(`evaluate`, then `compare --holdout`)."
)
_MODELS_ALONE = (
    "Intervals and p values come from the {groups}: they show whether other {groups} of the same kind could reverse a "
    "difference between these very models. They do not cover another training; the interval over folds does in part."
)


def _holdout_limits(comparison: Comparison) -> list[str]:
    runs = comparison.runs
    compared = {(run.folder, run.evaluation.number) for run in runs if run.evaluation}
    others = {(earlier.run, earlier.number) for run in runs for earlier in run.earlier} - compared
    history = (
        f"Earlier evaluations on the same images, besides those compared: {len(others)}. Any choice based on them "
        "makes the metrics here optimistic; evaluations made elsewhere cannot be known."
        if others
        else "This folder of runs records no other evaluation; evaluations made elsewhere cannot be known."
    )
    return [
        f"The last finished evaluation of each run is compared: {'; '.join(map(_evaluation, runs))}.",
        f"Each run is its ensemble: the mean of the calibrated probabilities of its folds, on the images of "
        f"{comparison.holdout}. {history}",
        f"Intervals and p values come from the {comparison.groups} of these images: they cover neither another "
        "training nor images from elsewhere.",
    ]


def _evaluation(run: RunRecord) -> str:
    evaluation = run.evaluation
    if evaluation is None:
        return run.name
    return f"{run.name}, evaluation {evaluation.number} of {evaluation.finished[:10]} with tta {evaluation.tta}"


def _leader(comparison: Comparison) -> str:
    headlines = {run.name: run.metrics[comparison.label]["auc"] for run in comparison.runs}
    aucs = {name: auc for name, auc in headlines.items() if isinstance(auc, Estimate)}
    if not aucs:
        reason = next(auc.not_defined for auc in headlines.values() if isinstance(auc, NotDefined))
        return f"No run has an {comparison.headline}: {reason}"
    best = max(aucs, key=lambda name: aucs[name].estimate)
    separated = {
        (pair.second if pair.first == best else pair.first): pair.separated
        for pair in comparison.pairs
        if best in (pair.first, pair.second)
    }
    behind = [name for name in aucs if separated.get(name) is True]
    level = [name for name in aucs if separated.get(name) is False]
    auc = aucs[best]
    highest = (
        f"Highest {comparison.headline}: {best}, {auc.estimate:.3f} (95 % interval {auc.low:.3f} to {auc.high:.3f})."
    )
    if not behind:
        return f"{highest} It is separated from none of the others: no run is shown to be the best."
    if not level:
        return f"{highest} It is separated from every other run."
    return f"{highest} It is separated from {_listed(behind)}, and not from {_listed(level)}."


def _pair(pair: Pair, comparison: Comparison) -> str:
    first, second, interval = pair.first, pair.second, pair.simultaneous
    where = f"on {comparison.holdout}" if comparison.holdout else "on these folds"
    if isinstance(interval, NotDefined):
        return f"{first} and {second} cannot be compared by {comparison.headline}: {interval.not_defined}"
    if pair.same_models:
        return (
            f"{first} and {second} are the same models: one is a copy of the other, or both came to the same weights. "
            "There is nothing to compare."
        )
    if pair.identical:
        return f"{first} and {second} cannot be separated {where}: they predict the same for every image."
    evidence = _evidence(pair, interval, comparison)
    if pair.separated:
        worse = second if pair.better == first else first
        sentence = (
            f"{_question(pair, worse, comparison)}{pair.better} is separated from {worse} {where}: its "
            f"{comparison.headline} is {abs(interval.estimate):.3f} higher ({evidence})."
        )
    else:
        most = max(abs(interval.low), abs(interval.high))
        sentence = (
            f"{first} and {second} cannot be separated {where}: {comparison.headline} differs by "
            f"{abs(interval.estimate):.3f} ({evidence}). This does not show that they are equal: these images "
            f"also agree with a difference of {most:.3f}."
        )
    return f"{sentence} {_folds(pair, comparison.groups)}".strip()


def _evidence(pair: Pair, interval: Estimate, comparison: Comparison) -> str:
    """The interval, of the better run less the worse where they are separated, and the p value."""
    pairs = len(comparison.pairs)
    low, high = (-interval.high, -interval.low) if pair.better == pair.second else (interval.low, interval.high)
    direction = "" if pair.separated else f", {pair.name}"
    ends = f"{'simultaneous ' if pairs > 1 else ''}95 % interval {signed(low)} to {signed(high)}{direction}"
    test = pair.delong[comparison.label]
    if pair.p_corrected is None:
        reason = test.not_defined if isinstance(test, NotDefined) else "not corrected"
        return f"{ends}; no test: {reason.rstrip('.')}"
    return f"{ends}; {'corrected ' if pairs > 1 else ''}p {p_value(pair.p_corrected)}"


def _question(pair: Pair, worse: str, comparison: Comparison) -> str:
    """The question that comes first where the images separate two runs and the interval over folds does not."""
    if isinstance(pair.folds, NotDefined) or _ends_over_folds(pair, pair.folds)[0] > 0:
        return ""
    backbones = {run.backbone for run in comparison.runs if run.name in (pair.better, worse)}
    subject = "the architectures" if len(backbones) > 1 else "the two ways of training"
    return f"Is {pair.better} better than {worse}? For these very models: yes; for {subject}: not shown. "


def _ends_over_folds(pair: Pair, folds: FoldInterval) -> tuple[float, float]:
    """The ends of the interval over folds, of the better run less the worse where they are separated."""
    return (-folds.high, -folds.low) if pair.better == pair.second else (folds.low, folds.high)


def _folds(pair: Pair, groups: str) -> str:
    """Whether the interval over folds agrees."""
    folds = pair.folds
    if isinstance(folds, NotDefined):
        return ""
    low, high = _ends_over_folds(pair, folds)
    interval = f"{signed(low)} to {signed(high)}"
    over = f"The interval over the {folds.folds} folds" + (f" and {folds.seeds} seeds" if folds.seeds > 1 else "")
    if pair.separated and low <= 0:
        return f"{over} does not confirm it ({interval}): other training images may remove the difference."
    if not pair.separated and (low > 0 or high < 0):
        return f"{over} alone excludes 0 ({interval}); the one over {groups} does not, so no difference is claimed."
    return f"{over} agrees ({interval})."


def _seeds(runs: Sequence[RunRecord]) -> str:
    repeats = [run.repeats for run in runs]
    seeds = _listed(sorted({str(run.seed) for run in runs}))
    if max(repeats) == 1:
        return (
            f"Each run is one training per fold, with one seed ({seeds}). "
            "Another seed can move an AUC as much as another backbone does; `--repeats` measures by how much."
        )
    counts = _listed([f"{run.name} with {count}" for run, count in zip(runs, repeats, strict=True)])
    return (
        f"Seeds: {counts}. Metrics and tests use the first seed of each; the interval over folds uses all seeds, where "
        "two runs have the same."
    )


def _tested(comparison: Comparison) -> str:
    pairs = len(comparison.pairs)
    corrected = f", over {pairs} pairs with Holm's correction" if pairs > 1 else ""
    return (
        f"One question was tested: {comparison.headline}{corrected}; “separated” needs both a DeLong p below 0.05 and "
        "an interval of the paired bootstrap without 0. The intervals of all other metrics are not corrected: among "
        "so many, some exclude 0 by chance."
    )


def _thresholds(comparison: Comparison) -> str:
    subject = "Sensitivity, specificity and balanced accuracy use"
    if comparison.holdout:
        return f"{subject} the frozen operating points of each run; specificity at sensitivity 0.90 does not."
    thresholds = _listed(sorted({f"{run.thresholds[comparison.label]:g}" for run in comparison.runs}))
    return (
        f"{subject} the threshold {thresholds} on the raw probability, where one run may call more images positive "
        "than another; AUC, average precision and specificity at sensitivity 0.90 depend on no threshold. The Brier "
        "score is of raw probabilities: runs with other class weights in training differ in it for that reason alone."
    )


def _cost(comparison: Comparison) -> str:
    devices = {run.cost.device for run in comparison.runs}
    machines = [key for key in comparison.differences if key.startswith("machine ")]
    if None in devices:
        return "The folds of a run were trained on different devices: costs are not comparable."
    if len(devices) > 1 or machines:
        return "The runs were trained on different machines or devices: their hours and speeds are not comparable."
    return "Hours and speeds are of the machine that trained each run, and of whatever else ran there."


def p_value(value: float) -> str:
    """A p value with two significant digits."""
    if value < 0.001:
        return "< 0.001"
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
