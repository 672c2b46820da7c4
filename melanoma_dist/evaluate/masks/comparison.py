"""`compare` of segmentation runs: the paired bootstrap over lesions of the scores of the same images."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pandas as pd

from melanoma_dist import console
from melanoma_dist.artifacts.mask_comparison import ComparedSegmenter, Scores, SegmenterComparison, SegmenterPair
from melanoma_dist.artifacts.run_record import current_environment, now
from melanoma_dist.config.evaluate import CompareConfig
from melanoma_dist.data.manifest import SYNTHETIC
from melanoma_dist.evaluate.comparison.consistency import same_models
from melanoma_dist.evaluate.comparison.output import create_folder, default_folder, show_conclusions, write_results
from melanoma_dist.evaluate.comparison.paired import LEVEL, SIGNIFICANT, resamples_for
from melanoma_dist.evaluate.masks.compared import ScoredRun, read_scored_runs
from melanoma_dist.evaluate.masks.scores import SHOWN, in_words, score_cell
from melanoma_dist.metrics.bootstrap import draws, means
from melanoma_dist.metrics.intervals import Undefined
from melanoma_dist.metrics.segmentation import FAILURE, FAILURES, METRICS
from melanoma_dist.pages.environment import render
from melanoma_dist.pages.tables import Table, plain
from melanoma_dist.storage import atomic

_MODELS = (
    "Intervals are over lesions, for these very models. Another seed or other training images may give another order: "
    "train both with several seeds before you choose."
)
_PIXELS = "Masks of experts differ too: a Jaccard index between two of them is itself far from 1."
Values = dict[str, npt.NDArray[np.float64]]


def compare_masks(settings: CompareConfig) -> None:
    """Compare segmentation runs, write ``comparison.json`` and ``comparison.html``, and show the results."""
    runs = read_scored_runs(settings.runs, settings.holdout)
    out = settings.out or default_folder(settings.runs, settings.holdout)
    create_folder(out)
    comparison = describe(runs, settings.holdout)
    write_results(out, comparison, lambda page: atomic.write_text(page, _page(comparison)))
    for table in _tables(comparison):
        console.table(*table)
    show_conclusions(comparison, out)


def describe(runs: Sequence[ScoredRun], holdout: str | None = None) -> SegmenterComparison:
    """Compare runs that scored the same images: their scores, and the differences of each pair."""
    number, lesions = pd.factorize(runs[0].table["group"].to_numpy(), sort=True)
    values = [_values(run.table) for run in runs]
    count = len(runs) * (len(runs) - 1) // 2
    resamples, level = resamples_for(count, len(lesions)), 1 - SIGNIFICANT / count
    # The same draws for all: the difference of two means is the mean of the differences, resample by resample.
    weights = list(draws(np.zeros(len(lesions), dtype=np.int64), resamples, seed=0))

    def pair(first: int, second: int) -> SegmenterPair:
        apart = {name: values[first][name] - values[second][name] for name in values[0]}
        return SegmenterPair(
            runs[first].name, runs[second].name, same_models(runs[first].folder, runs[second].folder),
            means(apart, number, weights, LEVEL), means(apart, number, weights, level),
        )  # fmt: skip

    comparison = SegmenterComparison(
        synthetic=any(run.summary.synthetic for run in runs),
        holdout=holdout,
        images=len(number),
        lesions=len(lesions),
        data=runs[0].record.data.fingerprint if runs[0].record else runs[0].summary.data.fingerprint,
        resamples=resamples,
        simultaneous_level=level,
        runs=tuple(_run(run, means(each, number, weights, LEVEL)) for run, each in zip(runs, values, strict=True)),
        pairs=tuple(pair(first, second) for first, second in combinations(range(len(runs)), 2)),
        conclusions=(),
        limits=(),
        environment=current_environment(),
        finished=now(),
    )
    return replace(comparison, conclusions=tuple(_conclusions(comparison)), limits=tuple(_limits(comparison)))


def _values(table: pd.DataFrame) -> Values:
    values = {name: table[name].to_numpy(dtype=np.float64) for name in METRICS}
    return values | {FAILURES: (values["jaccard"] < FAILURE).astype(np.float64)}


def _run(run: ScoredRun, scores: Scores) -> ComparedSegmenter:
    return ComparedSegmenter(
        name=run.name,
        folder=run.folder.resolve().name,
        encoder=run.summary.encoder,
        seed=run.summary.seed,
        evaluation=run.record.number if run.record else None,
        ordinal=run.record.ordinal if run.record else 1,
        scores=scores,
    )


def _conclusions(comparison: SegmenterComparison) -> Iterator[str]:
    for pair in comparison.pairs:
        yield _conclusion(pair, len(comparison.pairs))


def _conclusion(pair: SegmenterPair, pairs: int) -> str:
    difference, held = pair.differences["jaccard"], pair.simultaneous["jaccard"]
    if pair.same_models:
        return f"{pair.first} and {pair.second} hold the same models."
    if isinstance(difference, Undefined) or isinstance(held, Undefined):
        return f"The Jaccard indices of {pair.first} and {pair.second} cannot be compared: {in_words(difference)}."
    at_once = f"; {held.low:+.3f} to {held.high:+.3f} for all {pairs} pairs at once" if pairs > 1 else ""
    ends = f"(95 % interval {difference.low:+.3f} to {difference.high:+.3f}{at_once})"
    if held.low <= 0 <= held.high:
        apart = f"by {difference.estimate:+.3f} {ends}"
        return f"The mean Jaccard index of {pair.first} differs from that of {pair.second} {apart}: it may be chance."
    better, worse = (pair.first, pair.second) if difference.estimate > 0 else (pair.second, pair.first)
    text = f"{better} has a higher mean Jaccard index than {worse}, by {abs(difference.estimate):.3f}"
    return f"{text} ({pair.first} minus {pair.second}: {difference.estimate:+.3f} {ends})."


def _limits(comparison: SegmenterComparison) -> Iterator[str]:
    again = [run for run in comparison.runs if run.ordinal > 1]
    if again:
        listed = ", ".join(f"{run.name} (evaluation {run.ordinal})" for run in again)
        yield f"These images had been evaluated before: {listed}. What was chosen since makes the scores optimistic."
    if comparison.synthetic:
        yield SYNTHETIC
    yield _MODELS
    yield _PIXELS


def _tables(comparison: SegmenterComparison) -> list[Table]:
    where = comparison.holdout or "out of fold"
    mark = f" — {SYNTHETIC}" if comparison.synthetic else ""
    about = f"{where}: {comparison.images} images of {comparison.lesions} lesions, with 95 % intervals{mark}"
    names = [run.name for run in comparison.runs]
    scores = [
        [plain(title), *(score_cell(run.scores[name]) for run in comparison.runs)] for name, title in SHOWN.items()
    ]
    header = [f"{pair.first} minus {pair.second}" for pair in comparison.pairs]
    pairs = [
        [plain(title), *(score_cell(pair.differences[name]) for pair in comparison.pairs)]
        for name, title in SHOWN.items()
    ]
    return [
        Table(about, ["score", *names], scores),
        Table(f"Differences, paired by lesion{mark}", ["score", *header], pairs),
    ]


def _page(comparison: SegmenterComparison) -> str:
    record = asdict(comparison)
    keep = ("data", "resamples", "simultaneous_level", "environment", "finished")
    scores, differences = _tables(comparison)
    return render(
        "evaluate/masks/comparison.html.j2",
        c=comparison,
        names=" and ".join(run.name for run in comparison.runs),
        synthetic=SYNTHETIC if comparison.synthetic else "",
        scores=scores,
        differences=differences,
        record=json.dumps({name: record[name] for name in keep}, indent=1),
    )
