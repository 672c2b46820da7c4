"""The ``compare`` command: read the runs, refuse what cannot be compared, compare, write and show the results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from melanoma_dist import console
from melanoma_dist.artifacts.run_record import current_environment, now
from melanoma_dist.config.evaluate import CompareConfig
from melanoma_dist.config.saved import is_segmenter
from melanoma_dist.data.manifest import SYNTHETIC
from melanoma_dist.errors import ConfigError
from melanoma_dist.evaluate.comparison.conclusions import conclusions, limits
from melanoma_dist.evaluate.comparison.cost import cost, differences
from melanoma_dist.evaluate.comparison.holdout import read_holdout_runs
from melanoma_dist.evaluate.comparison.output import create_folder, default_folder, show_conclusions, write_results
from melanoma_dist.evaluate.comparison.page import write_page
from melanoma_dist.evaluate.comparison.paired import pair_up
from melanoma_dist.evaluate.comparison.records import ComparedEvaluation, Comparison, RunMetrics, RunRecord
from melanoma_dist.evaluate.comparison.runs import ComparedRun, read_out_of_fold_runs
from melanoma_dist.evaluate.comparison.tables import cost_table, metrics_table, pairs_table
from melanoma_dist.evaluate.masks.comparison import compare_masks


def compare(settings: CompareConfig) -> None:
    """Compare finished runs, write ``comparison.json`` and ``comparison.html``, and show the results."""
    segmenters = [is_segmenter(run) for run in settings.runs]
    if any(segmenters) and not all(segmenters):
        raise ConfigError("compare: some runs are of classifiers and some of segmenters. Name runs of one kind.")
    if any(segmenters):
        return compare_masks(settings)
    if settings.holdout is None:
        runs = read_out_of_fold_runs(settings.runs)
    else:
        runs = read_holdout_runs(settings.runs, settings.holdout)
    out = settings.out or default_folder(settings.runs, settings.holdout)
    create_folder(out)
    comparison = describe(runs, settings.holdout)
    write_results(out, comparison, lambda page: write_page(comparison, page))
    _show(comparison, out)


def describe(runs: Sequence[ComparedRun], holdout: str | None = None, resamples: int | None = None) -> Comparison:
    """Compare runs: their metrics, pairs and differences, the conclusions and their limits."""
    metrics, pairs, settings = pair_up(runs, resamples)
    first = runs[0]
    comparison = Comparison(
        schema=3,
        synthetic=any(run.summary.synthetic or (run.evaluation and run.evaluation.synthetic) for run in runs),
        holdout=holdout,
        headline=first.summary.headline,
        labels=list(first.labels),
        images=len(first.table),
        lesions=int(first.table["group"].nunique()),
        positives={label: int((first.table[f"{label}_true"] == 1).sum()) for label in first.labels},
        data=(first.evaluation or first.summary).data,
        runs=[_record(run, each) for run, each in zip(runs, metrics, strict=True)],
        pairs=pairs,
        bootstrap=settings,
        groups=first.groups,
        differences=differences(runs),
        environment=current_environment(),
        finished=now(),
    )
    return replace(comparison, conclusions=conclusions(comparison), limits=limits(comparison))


def _record(run: ComparedRun, metrics: RunMetrics) -> RunRecord:
    summary, evaluation = run.summary, run.evaluation
    compared = None
    if evaluation is not None and evaluation.results is not None:
        compared = ComparedEvaluation(evaluation.number, evaluation.results.finished, evaluation.tta)
    return RunRecord(
        **vars(metrics),
        folder=run.folder.resolve().name,
        backbone=summary.backbone,
        seed=summary.seed,
        repeats=summary.repeats,
        data=summary.data.fingerprint,
        trained=summary.finished,
        thresholds=dict(zip(run.labels, run.thresholds, strict=True)),
        evaluation=compared,
        earlier=evaluation.earlier if evaluation else (),
        cost=cost(run),
    )


def _show(comparison: Comparison, out: Path) -> None:
    mark = f" — {SYNTHETIC}" if comparison.synthetic else ""
    where = comparison.holdout or "out of fold"
    title = f"{comparison.label}, {where}: {comparison.images} images of {comparison.lesions} {comparison.groups}{mark}"
    pairs = pairs_table(comparison)
    for table in (
        metrics_table(comparison, title),
        pairs._replace(caption=pairs.caption + mark),
        cost_table(comparison)._replace(caption="Cost"),
    ):
        console.table(*table)
    if comparison.synthetic:
        console.info(SYNTHETIC)
    show_conclusions(comparison, out)
