"""The ``compare`` command: read the runs, refuse what cannot be compared, compare, write and show the results."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from melanoma_dist import console
from melanoma_dist.artifacts.mask_comparison import SegmenterComparison
from melanoma_dist.artifacts.records import write_record
from melanoma_dist.artifacts.run_record import current_environment, now
from melanoma_dist.config.evaluate import CompareConfig
from melanoma_dist.config.saved import is_segmenter
from melanoma_dist.data.manifest import SYNTHETIC
from melanoma_dist.errors import ConfigError
from melanoma_dist.evaluate.comparison.conclusions import conclusions, limits
from melanoma_dist.evaluate.comparison.cost import cost, differences
from melanoma_dist.evaluate.comparison.holdout import read_holdout_runs
from melanoma_dist.evaluate.comparison.page import write_page
from melanoma_dist.evaluate.comparison.paired import pair_up
from melanoma_dist.evaluate.comparison.records import ComparedEvaluation, Comparison, RunMetrics, RunRecord
from melanoma_dist.evaluate.comparison.runs import ComparedRun, read_out_of_fold_runs
from melanoma_dist.evaluate.comparison.tables import cost_table, metrics_table, pairs_table

_LONGEST = 150  # characters of a folder's name; file systems take 255 bytes


def compare(settings: CompareConfig) -> None:
    """Compare finished runs, write ``comparison.json`` and ``comparison.html``, and show the results."""
    segmenters = [is_segmenter(run) for run in settings.runs]
    if any(segmenters) and not all(segmenters):
        raise ConfigError("compare: some runs are of classifiers and some of segmenters. Name runs of one kind.")
    if any(segmenters):
        from melanoma_dist.evaluate.masks.comparison import compare_masks

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


def write_results(out: Path, comparison: Comparison | SegmenterComparison, write_page: Callable[[Path], None]) -> None:
    """Write ``comparison.json`` and ``comparison.html``. Raises ConfigError where they cannot be written."""
    try:
        write_record(out / "comparison.json", comparison)
        write_page(out / "comparison.html")
    except OSError as error:
        raise _unwritable(out, error) from error


def default_folder(runs: Sequence[Path], holdout: str | None) -> Path:
    """The folder beside the runs, named after them: the same comparison uses the same folder."""
    folders = [run.resolve() for run in runs]
    name = "-".join(["compare", *(folder.name for folder in folders), *(["on", holdout] if holdout else [])])
    if len(name) > _LONGEST:
        name = f"compare-{len(folders)}-runs-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return Path(os.path.commonpath([folder.parent for folder in folders])) / name


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


def create_folder(out: Path) -> None:
    """Create the folder before minutes of work. Raises ConfigError if that fails, or it is the folder of a run."""
    if (out / "record.json").exists():
        raise ConfigError.of("out", out, "is the folder of a run or a sweep", "Name another folder.")
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not os.access(out, os.W_OK):
            raise PermissionError("Permission denied")
    except OSError as error:
        raise _unwritable(out, error) from error


def _unwritable(out: Path, error: OSError) -> ConfigError:
    """The error for a folder that a comparison cannot be written into."""
    return ConfigError.of("out", out, f"cannot be written ({error.strerror or error})", "Name a writable folder.")


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


def show_conclusions(comparison: Comparison | SegmenterComparison, out: Path) -> None:
    """Print what a comparison shows, what it does not, and where its files are."""
    for line in comparison.conclusions:
        console.info(line)
    console.info("What this does not say:")
    for line in comparison.limits:
        console.info(f"- {line}")
    console.places({"page": out / "comparison.html", "metrics": out / "comparison.json"})
