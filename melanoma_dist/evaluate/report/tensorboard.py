"""Write TensorBoard events of a whole run: fold means, out-of-fold curves, the hyperparameter view."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from melanoma_dist.artifacts.predictions import arrays
from melanoma_dist.config.run import RunConfig
from melanoma_dist.data.folds import HEADLINE
from melanoma_dist.data.manifest import SYNTHETIC
from melanoma_dist.evaluate.report.figures import headline_figures, training_figures
from melanoma_dist.evaluate.report.run_results import RunResults, read_run_results
from melanoma_dist.evaluate.summary import SHOWN
from melanoma_dist.pages.svg import PageFigure

_EXCLUDED = ("precision_recall", "learning")  # TensorBoard has its own views of them
_VIEW = ".hparams"  # suffix of the hyperparameter view, which a sweep rewrites


def write_run_events(summary: dict[str, Any], table: pd.DataFrame, config: RunConfig, folder: Path) -> None:
    """Write the run's events, replacing those of an earlier call."""
    _remove_events(folder)
    labels = tuple(summary["labels"])
    truth, probability = arrays(table, labels)
    with SummaryWriter(str(folder)) as writer:
        for label in labels:
            for metric in SHOWN:
                value = summary["out_of_fold"]["by_image"]["labels"][label][metric]
                if value is not None:
                    writer.add_scalar(f"out_of_fold_{metric}/{label}", value, 0)
            ends = summary["out_of_fold"]["intervals"]["by_image"][label]["auc"]
            for name in ("low", "high"):
                if ends[name] is not None:
                    writer.add_scalar(f"out_of_fold_auc_{name}/{label}", ends[name], 0)
            spread = summary["over_folds"][label]["auc"]
            for name in ("mean", "sd", "low", "high"):
                if spread[name] is not None:
                    writer.add_scalar(f"over_folds_auc_{name}/{label}", spread[name], 0)
        for column, label in enumerate(labels):
            known = ~np.isnan(truth[:, column])
            writer.add_pr_curve(f"out_of_fold/{label}", truth[known, column], probability[known, column], 0)
        for figure in _figures(read_run_results(folder, summary)):
            writer.add_figure(f"out_of_fold/{figure.name}", figure.figure, 0, close=False)  # not one of pyplot
        if summary["synthetic"]:
            writer.add_text("data", SYNTHETIC, 0)
    write_hyperparameters(config.identity(), _metrics(summary), folder)


def write_hyperparameters(values: Mapping[str, Any], metrics: Mapping[str, float | None], folder: Path) -> None:
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


def _figures(results: RunResults) -> list[PageFigure]:
    """Return the report's figures of the run alone, without its evaluations."""
    alone = replace(results, evaluations=())
    figures = [each for each in headline_figures(alone) if isinstance(each, PageFigure)]
    return [each for each in (*figures, *training_figures(alone)) if each.name not in _EXCLUDED]


def _remove_events(folder: Path, which: str = "") -> None:
    for old in folder.glob(f"events.*{which}"):
        old.unlink()


def _metrics(summary: dict[str, Any]) -> dict[str, float | None]:
    return {
        "hparam/auc_mean_over_folds": summary["over_folds"][HEADLINE]["auc"]["mean"],
        "hparam/auc_out_of_fold": summary["out_of_fold"]["by_image"]["labels"][HEADLINE]["auc"],
        "hparam/macro_auc_out_of_fold": summary["out_of_fold"]["by_image"]["macro"]["auc"],
    }
