"""Write ``comparison.html``: a comparison as one self-contained page, from its record alone."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from melanoma_dist.data.manifest import SYNTHETIC
from melanoma_dist.evaluate.comparison import plots, tables
from melanoma_dist.evaluate.comparison.records import Comparison
from melanoma_dist.pages.environment import render
from melanoma_dist.storage import atomic


def write_page(comparison: Comparison, path: Path) -> None:
    """Write the page, whole or not at all. The same comparison gives the same bytes."""
    record = asdict(comparison)
    where = comparison.holdout or "out of fold"
    text = render(
        "evaluate/comparison/page.html.j2",
        c=comparison,
        synthetic=SYNTHETIC if comparison.synthetic else None,
        where=where,
        level=f"{100 * comparison.bootstrap.simultaneous_level:.4g} %",
        metrics=tables.metrics_table(comparison, f"{comparison.label}, {where}, with 95 % intervals"),
        aucs=plots.auc_plot(comparison),
        differences=plots.difference_plot(comparison),
        pairs=[tables.pairs_table(comparison), tables.differences_table(comparison)],
        folds=tables.folds_table(comparison),
        labels=[tables.labels_table(comparison), tables.label_differences_table(comparison)],
        undefined=tables.undefined_metrics(comparison),
        cost=tables.cost_table(comparison),
        cost_plot=plots.cost_plot(comparison),
        runs=tables.runs_table(comparison),
        fields=tables.fields_table(comparison),
        record=json.dumps({key: record[key] for key in ("data", "bootstrap", "environment", "finished")}, indent=1),
    )
    atomic.write_text(path, text)
