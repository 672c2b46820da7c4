"""What TensorBoard shows of a whole run: fold means with their spread, out-of-fold curves, the hyperparameter view."""

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
from melanoma_dist.evaluate.report.figures import ReportFigure, exhibits
from melanoma_dist.evaluate.report.run_figures import run_figures
from melanoma_dist.evaluate.report.run_results import RunResults, read_run_results
from melanoma_dist.evaluate.summary import SHOWN

_ELSEWHERE = ("precision_recall", "learning")  # TensorBoard has views of its own for them
_VIEW = ".hparams"  # the hyperparameter view has a file of its own: a sweep renews it


def write_run_events(summary: dict[str, Any], table: pd.DataFrame, config: RunConfig, folder: Path) -> None:
    """Write the run's events beside its folds', replacing those of an earlier conclusion."""
    _remove_events(folder)
    labels = tuple(summary["labels"])
    truth, probability = arrays(table, labels)
    with SummaryWriter(str(folder)) as writer:
        for label in labels:
            for figure in SHOWN:
                value = summary["out_of_fold"]["by_image"]["labels"][label][figure]
                if value is not None:
                    writer.add_scalar(f"out_of_fold_{figure}/{label}", value, 0)
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
        for exhibit in _exhibits(read_run_results(folder, summary)):
            writer.add_figure(f"out_of_fold/{exhibit.name}", exhibit.figure, 0, close=False)  # none of pyplot's
        if summary["synthetic"]:
            writer.add_text("data", SYNTHETIC, 0)
    write_hyperparameters(config.identity(), _metrics(summary), folder)


def write_hyperparameters(values: Mapping[str, Any], metrics: Mapping[str, float | None], folder: Path) -> None:
    """What the hyperparameter view shows of a run; replaces what it showed before.

    In the run's own folder: ``add_hparams`` would put them into one of its own for each call.
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


def _exhibits(evidence: RunResults) -> list[ReportFigure]:
    """The plots of the report that are about the run alone."""
    alone = replace(evidence, evaluations=())
    made = [each for each in exhibits(alone) if isinstance(each, ReportFigure) and each.name not in _ELSEWHERE]
    return [*made, *(each for each in run_figures(alone) if each.name not in _ELSEWHERE)]


def _remove_events(folder: Path, which: str = "") -> None:
    for old in folder.glob(f"events.*{which}"):
        old.unlink()


def _metrics(summary: dict[str, Any]) -> dict[str, float | None]:
    return {
        "hparam/auc_mean_over_folds": summary["over_folds"][HEADLINE]["auc"]["mean"],
        "hparam/auc_out_of_fold": summary["out_of_fold"]["by_image"]["labels"][HEADLINE]["auc"],
        "hparam/macro_auc_out_of_fold": summary["out_of_fold"]["by_image"]["macro"]["auc"],
    }
