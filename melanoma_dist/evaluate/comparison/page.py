"""``comparison.html``: a comparison for people, one self-contained page made from its plain values alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from melanoma_dist.data.manifest import SYNTHETIC
from melanoma_dist.evaluate.comparison.plots import auc_plot, cost_plot, difference_plot
from melanoma_dist.evaluate.comparison.tables import (
    cost_table,
    differences_table,
    figures_table,
    folds_table,
    label_differences_table,
    labels_table,
    pairs_table,
    undefined,
)
from melanoma_dist.storage import atomic

_SHORT = 16  # characters of a fingerprint that are shown


def write_page(comparison: dict[str, Any], path: Path) -> None:
    """Write the page, whole or not at all."""
    page = Environment(
        loader=PackageLoader("melanoma_dist.evaluate.comparison", "."), autoescape=True, undefined=StrictUndefined
    ).get_template("page.html.j2")
    text = page.render(
        c=comparison,
        synthetic=SYNTHETIC if comparison["synthetic"] else None,
        where=comparison["holdout"] or "out of fold",
        level=f"{100 * comparison['bootstrap']['simultaneous_level']:.4g} %",
        plots={name: _plot(plot(comparison)) for name, plot in _PLOTS.items()},
        tables={name: table(comparison) for name, table in _TABLES.items()},
        undefined=undefined(comparison),
        compared=_compared(comparison),
        differing=_differing(comparison),
        record=json.dumps({key: comparison[key] for key in ("data", "bootstrap", "made_with", "finished")}, indent=1),
    )
    atomic.write_text(path, text)


_PLOTS = {"aucs": auc_plot, "differences": difference_plot, "cost": cost_plot}
_TABLES = {
    "figures": figures_table,
    "pairs": pairs_table,
    "labels": labels_table,
    "label_differences": label_differences_table,
    "differences": differences_table,
    "folds": folds_table,
    "cost": cost_table,
}


def _plot(svg: str | None) -> Markup | None:
    return None if svg is None else Markup(svg)  # noqa: S704  # nosec B704  # matplotlib escapes text


def _compared(comparison: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """What was compared, a row per run."""
    header = ["", "folder", "backbone", "seed", "data", "trained"]
    header += ["evaluation", "earlier looks"] if comparison["holdout"] else []
    rows = []
    for run in comparison["runs"]:
        row = [run["name"], run["folder"], run["backbone"], str(run["seed"]), str(run["data"])[:_SHORT]]
        row.append(str(run["trained"] or "–"))
        if run["evaluation"]:
            row += [f"{run['evaluation']['number']}, {run['evaluation']['finished']}", str(len(run["earlier"]))]
        rows.append(row)
    return header, rows


def _differing(comparison: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """What the runs differ in, a row per field."""
    header = ["field", *(run["name"] for run in comparison["runs"])]
    fields = comparison["differences"].items()
    return header, [[key, *("–" if value is None else _short(value) for value in values)] for key, values in fields]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:_SHORT]}…"
