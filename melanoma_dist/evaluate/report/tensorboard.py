"""Write TensorBoard events of a whole run: fold means, out-of-fold curves, the hyperparameter view."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from melanoma_dist.artifacts.predictions import arrays
from melanoma_dist.artifacts.summary import RunSummary
from melanoma_dist.config.run import RunConfig, differences
from melanoma_dist.data.manifest import SYNTHETIC
from melanoma_dist.evaluate.report.figures import headline_figures
from melanoma_dist.evaluate.report.run_results import RunResults
from melanoma_dist.evaluate.report.training_figures import training_figures
from melanoma_dist.evaluate.summary import header_by_label, rows_by_label
from melanoma_dist.pages.svg import PageFigure

_EXCLUDED = ("precision_recall", "learning")  # TensorBoard has its own views of them
_FIRST = ("model.backbone", "optimizer.lr")  # columns of the hyperparameter view
_VIEW = ".hparams"  # suffix of the hyperparameter view, which a sweep rewrites


def write_run_events(results: RunResults) -> None:
    """Write the run's events, replacing those of an earlier call."""
    summary, folder = results.summary, results.folder
    _remove_events(folder)
    truth, probability = arrays(results.table, summary.labels)
    with SummaryWriter(str(folder)) as writer:
        writer.add_text("out_of_fold/metrics", _markdown([header_by_label(summary), *rows_by_label(summary)]), 0)
        for column, label in enumerate(summary.labels):
            known = ~np.isnan(truth[:, column])
            writer.add_pr_curve(f"out_of_fold/{label}", truth[known, column], probability[known, column], 0)
        for figure in _figures(results):
            writer.add_figure(f"out_of_fold/{figure.name}", figure.figure, 0, close=False)  # not one of pyplot
        if summary.synthetic:
            writer.add_text("data", SYNTHETIC, 0)
    write_hyperparameters(_hyperparameters(results.config), _metrics(summary), folder)


def write_hyperparameters(values: Mapping[str, object], metrics: Mapping[str, float | None], folder: Path) -> None:
    """Write the hyperparameter view of a run, replacing an earlier one.

    Writes into the run's own folder: ``add_hparams`` would make a new one at each call.
    """
    _remove_events(folder, _VIEW)
    known = {name: value for name, value in metrics.items() if value is not None}
    plain = {key: value if isinstance(value, bool | int | float | str) else str(value) for key, value in values.items()}
    with SummaryWriter(str(folder), filename_suffix=_VIEW) as writer:
        file_writer = writer._get_file_writer()
        for part in hparams(plain, known):
            file_writer.add_summary(part)
        for name, value in known.items():
            writer.add_scalar(name, value, 0)


def _hyperparameters(config: RunConfig) -> dict[str, object]:
    """Select what tells runs apart: backbone and learning rate, then the other fields that are not the defaults."""
    identity = config.identity()
    return {key: identity[key] for key in (*_FIRST, *differences(config)) if key in identity}


def _markdown(rows: Iterable[Iterable[str]]) -> str:
    header, *body = [list(row) for row in rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *body))


def _figures(results: RunResults) -> list[PageFigure]:
    """Return the report's figures of the run alone, without its evaluations."""
    alone = replace(results, evaluations=())
    figures = [each for each in headline_figures(alone) if isinstance(each, PageFigure)]
    return [each for each in (*figures, *training_figures(alone)) if each.name not in _EXCLUDED]


def _remove_events(folder: Path, which: str = "") -> None:
    for old in folder.glob(f"events.*{which}"):
        old.unlink()


def _metrics(summary: RunSummary) -> dict[str, float | None]:
    pooled, headline = summary.out_of_fold.by_image, summary.label_set.headline
    return {
        "hparam/auc_mean_over_folds": summary.over_folds[headline].auc.mean,
        "hparam/auc_out_of_fold": pooled.labels[headline].auc,
        "hparam/macro_auc_out_of_fold": pooled.macro.auc,
    }
