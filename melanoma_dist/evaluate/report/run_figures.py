"""The plots of a run as a whole: learning curves, the spread over folds and seeds, subgroups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from melanoma_dist.data.folds import HEADLINE
from melanoma_dist.evaluate.report import groups, plots
from melanoma_dist.evaluate.report.cells import Cell, Table, number, plain, span, undefined
from melanoma_dist.evaluate.report.figures import ReportFigure
from melanoma_dist.evaluate.report.run_results import RunResults


def run_figures(evidence: RunResults) -> list[ReportFigure]:
    """Learning curves, the spread over folds and, where there are repeats, over seeds."""
    made = [_learning(evidence)] if evidence.histories else []
    made.append(_spread(evidence))
    if evidence.summary["repeats_of"] is not None:
        made += _seeds(evidence.summary["repeats_of"])
    return made


def forest(
    title: str, subgroups: Sequence[Mapping[str, Any]], overall: float | None, table: Table, called: str
) -> ReportFigure:
    """Subgroups by their AUC; ``called`` says where those of the table's sensitivity were called positive."""
    said = groups.flagged(subgroups)
    alt = f"{title}: AUC of {len(subgroups)} subgroups of {HEADLINE}. {said}"
    caption = f"AUC with 95 % intervals; dotted: all images. {said} In the table, images are called at {called}."
    return ReportFigure("subgroups", title, plots.forest_plot(subgroups, overall), alt, caption, table)


def _learning(evidence: RunResults) -> ReportFigure:
    rows = []
    for name, epochs in evidence.histories.items():
        for epoch in epochs:
            cells = [plain(name), plain(epoch.epoch), Cell(number(epoch.train_loss, 4))]
            rows.append([*cells, Cell(number(epoch.score))])
    kept = ", ".join(f"{name} {epochs[-1].best_epoch} of {len(epochs)}" for name, epochs in evidence.histories.items())
    table = Table("Epochs", ["training", "epoch", "training loss", f"validation AUC of {HEADLINE}"], rows)
    figure = plots.learning_plot(evidence.histories, f"AUC of {HEADLINE}")
    caption = f"Dots mark the epochs that were kept: {kept}."
    return ReportFigure(
        "learning", "Learning curves", figure, f"Training loss and validation AUC by epoch. {caption}", caption, table
    )


def _spread(evidence: RunResults) -> ReportFigure:
    over = evidence.summary["over_folds"]
    values, rows = {}, []
    for label in [*evidence.labels, *(["macro"] if len(evidence.labels) > 1 else [])]:
        parts = [
            (fold, found["macro"] if label == "macro" else found["labels"][label])
            for fold, found in evidence.summary["folds"].items()
        ]
        values[label] = [entry["auc"] for _, entry in parts if entry["auc"] is not None]
        cells = [
            undefined("these images do not define it") if e["auc"] is None else Cell(number(e["auc"])) for _, e in parts
        ]
        rows.append([plain(label), *cells])
    intervals = {
        label: (found["auc"]["mean"], found["auc"]["low"], found["auc"]["high"])
        for label, found in over.items()
        if found.get("auc") is not None and found["auc"].get("low") is not None
    }
    key = "; ".join(
        f"{label} mean {mean:.3f}, 95 % interval {span(low, high)}" for label, (mean, low, high) in intervals.items()
    )
    header = ["AUC", *(f"fold {fold}" for fold in evidence.summary["folds"])]
    figure = plots.spread_plot(values, intervals)
    caption = "A dot is a fold; the line is the corrected 95 % interval of their mean (Nadeau and Bengio 2003)."
    alt = f"AUC of each fold by label. {key or 'No label is defined by two folds'}"
    return ReportFigure("fold_spread", "AUC by fold", figure, alt, caption, Table("AUC by fold", header, rows))


def _seeds(repeats: Mapping[str, Any]) -> list[ReportFigure]:
    aucs, seeds = repeats["auc"].get(HEADLINE), repeats["seeds"]
    if not aucs or any(value is None for fold in aucs for value in fold):
        return []
    rows = [[plain(f"fold {fold}"), *(Cell(number(value)) for value in found)] for fold, found in enumerate(aucs)]
    table = Table(f"AUC of {HEADLINE}", ["", *(f"seed {seed}" for seed in seeds)], rows)
    title = f"AUC of {HEADLINE} by fold and seed"
    alt = f"{title}: {len(aucs)} folds, each trained with {len(seeds)} seeds"
    caption = "Dots in a row differ by the seed alone; rows differ by the images they are judged by, too."
    return [ReportFigure("seeds", title, plots.seeds_plot(aucs, seeds), alt, caption, table)]
