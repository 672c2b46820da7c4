"""Write ``sweep.html``: the leaderboard, plots and ledger of a sweep as one self-contained page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from matplotlib.figure import Figure

from melanoma_dist.config.changes import CHANGEABLE
from melanoma_dist.config.run import dotted, with_values
from melanoma_dist.metrics.intervals import Undefined
from melanoma_dist.pages.environment import render
from melanoma_dist.pages.numbers import UNDEFINED, number
from melanoma_dist.pages.svg import PageFigure
from melanoma_dist.pages.tables import Cell, Table, plain
from melanoma_dist.storage import atomic
from melanoma_dist.sweep import plots
from melanoma_dist.sweep.domains import Scale, scales
from melanoma_dist.sweep.importance import importances
from melanoma_dist.sweep.journal import Record
from melanoma_dist.sweep.leaderboard import Entry, searched_fields
from melanoma_dist.sweep.ledger import Ledger, Milestone, milestones
from melanoma_dist.sweep.space import Space
from melanoma_dist.sweep.work_source import SweepContext


def write_page(
    context: SweepContext,
    records: Sequence[Record],
    ledger: Ledger,
    entries: list[Entry],
    conclusions: list[str],
    cost: str,
    population: bool = False,
) -> None:
    """Write the page, whole or not at all. ``population``: the page of population-based training."""
    keys = searched_fields(entries)
    # Members of a population change the fields on the way, and share the first values with their parents.
    fields = {} if population else _fields(entries, keys, context.space)
    shares = importances(entries, fields)
    first, complete = milestones(records, context.config.data.folds)
    metric, score = context.config.score_in_words, context.config.score_name
    of_fields = _path_plots(entries, context) if population else _field_plots(entries, fields, shares, score)
    text = render(
        "sweep/page.html.j2",
        name=context.folder.name,
        synthetic=context.dataset.synthetic,
        conclusions=conclusions,
        cost=cost,
        folds=context.config.data.folds,
        population=population,
        metric=metric,
        pooled=context.config.task == "classification",
        score=score,
        leaderboard=_leaderboard(entries, keys, ledger.device, score),
        plots=_plots(records, ledger, entries, of_fields, first, complete, metric, score),
        no_importance=shares.reason if isinstance(shares, Undefined) and not population else "",
        milestones=_milestones(first, complete, ledger.device, score),
        ledger=_ledger(ledger, score),
        space=(context.folder / "space.py").read_text(),
        record=(context.folder / "sweep.json").read_text(),
    )
    atomic.write_text(context.folder / "sweep.html", text)


def _plots(
    records: Sequence[Record], ledger: Ledger, entries: list[Entry], of_fields: Iterable[tuple[str, str, Figure]],
    first: list[Milestone], complete: list[Milestone], metric: str, score: str,
) -> list[PageFigure]:  # fmt: skip
    if not entries:
        return []
    figures = [
        (
            f"{score} against cost",
            f"The best {metric} so far against the cost spent by then.",
            plots.cost_plot(first, complete, ledger.spent, ledger.device, metric),
        ),
        (
            "First folds",
            f"The best {score} so far of every first fold, by epoch.",
            plots.curves_plot(records, entries, metric),
        ),
        *of_fields,
    ]
    return [PageFigure("", title, figure, f"{title}: {caption}", caption) for title, caption, figure in figures]


def _field_plots(
    entries: list[Entry], fields: Mapping[str, Scale], shares: dict[str, float] | Undefined, score: str
) -> Iterator[tuple[str, str, Figure]]:
    """Yield title, caption and figure of each plot of the searched fields."""
    if not fields or all(entry.mean_score is None for entry in entries):
        return
    measure = f"Mean {score} over the finished folds, or the best of an unfinished first fold"
    effects = plots.effects_plot(entries, fields, score)
    yield "Effect of each hyperparameter", f"{measure} against each searched field.", effects
    if not isinstance(shares, Undefined):
        caption = (
            f"fANOVA (Optuna): share of the variance of the {score} that a field explains. {measure}; so early "
            "stopping adds to the differences. Fields that only some configurations set are left out. Few "
            "configurations give a rough picture."
        )
        yield "Importance of each hyperparameter", caption, plots.importance_plot(shares, score)
    caption = f"A line is a configuration, the darker the higher its {score}. {measure}. Below an axis: not active."
    yield "Parallel coordinates", caption, plots.parallel_plot(entries, fields, score)


def _path_plots(entries: list[Entry], context: SweepContext) -> Iterator[tuple[str, str, Figure]]:
    """Yield title, caption and figure of the hyperparameters of the members that trained to the end, by epoch."""
    epochs = range(context.config.schedule.epochs)
    complete = [with_values(context.config, entry.values) for entry in entries if entry.state == "complete"]
    by_epoch = [[dotted(config.at_epoch(epoch)) for epoch in epochs] for config in complete]
    varied = [key for key in CHANGEABLE if any(values[key] != path[0][key] for path in by_epoch for values in path)]
    if varied:
        paths = {key: [[values[key] for values in path] for path in by_epoch] for key in varied}
        caption = "The hyperparameters of the members that trained to the end, by epoch. The best member is blue."
        yield "Paths", caption, plots.paths_plot(paths, scales(context.space.domains))


def _fields(entries: list[Entry], keys: list[str], space: Space) -> dict[str, Scale]:
    """Return the scale of each field that varies: that of the space or, for a function in it, of the values drawn."""
    fields = scales(space.domains)
    for key in keys:
        values = list(dict.fromkeys(entry.values[key] for entry in entries if key in entry.values))
        if key not in fields and len(values) > 1:
            numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
            is_range = len(numbers) == len(values)
            fields[key] = Scale(bounds=(min(numbers), max(numbers))) if is_range else Scale(choices=tuple(values))
    return fields


def _leaderboard(entries: list[Entry], keys: list[str], device: str, score: str) -> Table:
    header = [
        "",
        "state",
        "folds",
        f"mean {score}",
        "sd",
        "worst fold",
        *map(_breakable, keys),
        "epochs",
        f"{device}-hours",
        "reason",
    ]
    rows = [
        [
            *map(plain, (f"c{entry.configuration:03d}", entry.state, entry.folds)),
            *(Cell(number(score, 4)) for score in (entry.mean_score, entry.sd_score, entry.worst_fold_score)),
            *(_value(entry.values.get(key)) for key in keys),
            *map(_value, (entry.epochs, entry.device_hours)),
            plain(entry.why, "text"),
        ]
        for entry in entries
    ]
    return Table("Configurations, best first", header, rows)


def _breakable(key: str) -> str:
    """Let a browser break the name of a field in a narrow column, at zero-width spaces."""
    return key.replace(".", ".\u200b").replace("_", "_\u200b")


def _milestones(first: list[Milestone], complete: list[Milestone], device: str, score: str) -> Table:
    rows = [
        [plain(measured_on), Cell(number(point.score, 4)), Cell(number(point.device_seconds / 3600)),
         plain(f"c{point.configuration:03d}")]
        for measured_on, line in (("first fold", first), ("mean over folds", complete))
        for point in line
    ]  # fmt: skip
    return Table(f"Each new best {score}", ["measured on", score, f"{device}-hours", "configuration"], rows)


def _ledger(ledger: Ledger, score: str) -> Table:
    header = ["configuration", "fold", "state", "epochs", f"best {score}", "seconds", "device seconds"]
    rows = [
        [
            *(_value(value) for value in (unit.configuration, unit.fold, unit.state, unit.epochs, unit.best_score)),
            *(_value(value) for value in (unit.seconds, unit.device_seconds, unit.saved_device_seconds)),
            plain(unit.why, "text"),
        ]
        for unit in ledger.units
    ]
    return Table("Units", [*header, "saved device seconds", "reason"], rows)


def _value(value: object) -> Cell:
    """Return a cell with a searched value or a cost, in four significant digits."""
    if value is None:
        return Cell(UNDEFINED)
    return Cell(f"{value:.4g}" if isinstance(value, float) else str(value))
