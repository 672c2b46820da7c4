"""The results of a sweep: leaderboard, ledger, the best configuration, TensorBoard curves and a page."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pandas as pd
import yaml

from melanoma_dist import console
from melanoma_dist.artifacts.run_folder import RunFolder, locate_run
from melanoma_dist.config.changes import NO_CHANGES
from melanoma_dist.config.run import RunConfig, dotted, nested, with_values
from melanoma_dist.data.manifest import Dataset, write_table
from melanoma_dist.errors import ConfigError, TrainingError
from melanoma_dist.evaluate.report.tensorboard import write_hyperparameters
from melanoma_dist.evaluate.tracking import open_tracker
from melanoma_dist.metrics.cross_validation import Comparison, compare
from melanoma_dist.pages import numbers
from melanoma_dist.storage import atomic
from melanoma_dist.sweep.controller import Controller
from melanoma_dist.sweep.journal import Journal
from melanoma_dist.sweep.leaderboard import Entry, as_table, best_two, leaderboard
from melanoma_dist.sweep.ledger import Ledger, make_ledger
from melanoma_dist.sweep.page import write_page
from melanoma_dist.sweep.work_source import SweepContext

OPTIMISTIC = (
    "The same folds chose the configuration and measure it here, so the winner's metrics are optimistic, the more so "
    "the more configurations were tried. Only holdout images, which no fold trains or validates on, give unbiased ones."
)
ONE_FOLD = (
    "Population-based training: all members trained fold 0 alone, and its validation images chose their "
    "hyperparameters on the way. So this score is optimistic, and no other fold has confirmed it. best.yaml has the "
    "path as a configuration: train it with all folds, and report that run. Its fold 0 repeats this training."
)
_WRITING_SHARE = 0.05  # of the command's time, at most, while units train
_SHOWN = 15  # rows of the leaderboard in the terminal

FinalizeRun = Callable[[RunConfig, Dataset, pd.DataFrame, RunFolder, float], Any]
"""Writes the results of a finished run: ``RunTask.finalize``."""


class Outcome:
    """Writes the files of a sweep from its journal."""

    def __init__(self, context: SweepContext, controller: Controller, journal: Journal) -> None:
        self._context, self._controller, self._journal = context, controller, journal
        self._changed: set[int] = set()  # configurations with a fold that ended since the last writing
        self._write_after = 0.0  # by the monotonic clock

    def update(self, configuration: int) -> None:
        """Write the tables after a fold of a configuration ended, and its hyperparameter row in TensorBoard.

        The tables cover all units, so the time to write them grows with the sweep, and this is called in the loop that
        answers ranks. So it may write later, with the next fold that ends or with ``write_tables``.
        """
        self._changed.add(configuration)
        if time.monotonic() >= self._write_after:
            self.write_tables()

    def write_tables(self) -> None:
        """Write the tables and what else ``update`` left."""
        start, folder, ledger = time.monotonic(), self._context.folder, self._ledger()
        write_table(folder / "ledger.parquet", ledger.table(self._context.config.score_name))
        table = as_table(self._leaderboard(ledger), self._context.config.score_name)
        atomic.write_file(folder / "leaderboard.csv", table.to_csv)
        for number in sorted(self._changed):
            self._show_in_tensorboard(number, ledger)
        self._changed.clear()
        now = time.monotonic()
        self._write_after = now + (now - start) / _WRITING_SHARE

    def finalize(self, finalize_run: FinalizeRun) -> None:
        """Write all files and show the leaderboard. Raises TrainingError if every configuration failed."""
        self.write_tables()
        ledger, population = self._ledger(), self._controller.has_population
        entries = self._leaderboard(ledger)
        for number in range(len(self._controller.values)):
            if self._controller.racing.is_complete(number) and not self._controller.has_population:
                config, run = self._run(number)
                if not run.finished():  # like any other run: out-of-fold predictions, metrics, report
                    summary = finalize_run(config, self._context.dataset, self._context.folds, run, 0.0)
                    with open_tracker(config, run, self._context.folder.name) as tracker:
                        tracker.finish(summary, run.report)
                self._show_in_tensorboard(number, ledger)
        best, runner_up = best_two(entries)
        if best is not None:
            chosen = with_values(self._context.config, {**best.values, "name": None})
            unread = {} if chosen.region.needs_lesions else {"region.lesions": None}
            text = yaml.safe_dump(nested(with_values(chosen, unread)), sort_keys=False)
            path = "# A path of hyperparameters that population-based training found on fold 0 alone.\n"
            atomic.write_text(self._context.folder / "best.yaml", path + text if population else text)
        conclusions, cost = self._conclusions(best, runner_up), cost_sentence(ledger, compare_folds=not population)
        write_page(self._context, self._journal.records, ledger, entries, conclusions, cost, population)
        _show_leaderboard(entries, ledger.device, self._context.config, population)
        for line in (*conclusions, cost):
            console.info(line)
        folder = self._context.folder
        files = {"page": "sweep.html", "leaderboard": "leaderboard.csv", "ledger": "ledger.parquet"}
        places = {title: folder / name for title, name in files.items()}
        console.places({**places, "curves": f"tensorboard --logdir {folder}"})
        if best is not None:
            program = console.program() + (" segment" if self._context.config.task == "segmentation" else "")
            console.info(f"train the best with all folds: {program} --config {folder / 'best.yaml'}")
        elif entries and all(entry.state == "failed" for entry in entries):
            raise TrainingError(f"Every configuration failed; {folder / 'leaderboard.csv'} has the reasons.")

    def _ledger(self) -> Ledger:
        return make_ledger(self._journal.records, self._controller.racing.folds)

    def _leaderboard(self, ledger: Ledger) -> list[Entry]:
        names = [self._context.name(number, values) for number, values in enumerate(self._controller.values)]
        return leaderboard(self._controller, ledger, names)

    def _conclusions(self, best: Entry | None, runner_up: Entry | None) -> list[str]:
        if best is None:
            return ["No configuration has finished all its folds yet: there is no best one."]
        if self._controller.has_population:
            score = f"{self._context.config.score_name} {best.mean_score:.4f} on fold 0 alone"
            return [f"best: {best.name}, {score}; changes: {best.values.get('schedule.changes', NO_CHANGES)}", ONE_FOLD]
        mean = f"mean {self._context.config.score_name} {best.mean_score:.4f} ± {best.sd_score:.4f}"
        lines = [f"best: {best.name}, {mean} over {best.folds} folds"]
        if runner_up is None:
            lines.append("No other configuration finished all folds, so the lead over the next one is unknown.")
        else:
            states = self._controller.racing.states
            comparison = compare(states[best.configuration].scores, states[runner_up.configuration].scores)
            lines.append(_lead(runner_up.name, comparison))
        return [*lines, OPTIMISTIC]

    def _run(self, number: int) -> tuple[RunConfig, RunFolder]:
        config = self._context.configured(number, self._controller.values[number])
        return config, locate_run(config, self._context.dataset)

    def _show_in_tensorboard(self, number: int, ledger: Ledger) -> None:
        """Write a row of the hyperparameter view: searched values, score and cost of a configuration."""
        state, units = self._controller.racing.states[number], ledger.of(number)
        score, population = self._context.config.score_name.lower(), self._controller.has_population
        metrics = {
            f"hparam/{score}_mean_over_folds": None if population or not state.scores else state.mean,
            f"hparam/{score}_first_fold": next((unit.best_score for unit in units if unit.fold == 0), None),
            "hparam/folds_finished": float(len(state.scores)),
            "hparam/device_hours": sum(unit.device_seconds for unit in units) / 3600,
        }
        try:
            config, folder = self._run(number)
        except ConfigError:  # its values do not fit together: it has no folder
            return
        values = dotted(config)
        write_hyperparameters({key: values[key] for key in self._context.space.domains}, metrics, folder.path)


def cost_sentence(ledger: Ledger, compare_folds: bool = True) -> str:
    """The cost of the sweep, compared with the estimated cost of all folds of all its configurations."""
    spent = f"this sweep cost {ledger.spent / 3600:.2f} {ledger.device}-hours"
    if not ledger.full or not compare_folds:
        return spent
    share = ledger.spent / ledger.full
    nothing = ", so stopping early saved nothing" if share >= 1 else ""
    return (
        f"{spent}; full cross-validation of the same configurations would have cost about {ledger.full / 3600:.2f} "
        f"(estimated from their time per epoch): {share:.0%}{nothing}"
    )


def _lead(name: str, comparison: Comparison) -> str:
    interval = f"{comparison.difference:+.4f}, 95 % interval {comparison.low:+.4f} to {comparison.high:+.4f}"
    if comparison.separable:
        return f"The next, {name}, is behind by more than the spread of the folds ({interval})."
    return f"WARNING: the folds cannot separate it from the next, {name} ({interval})."


def _show_leaderboard(entries: list[Entry], device: str, config: RunConfig, population: bool) -> None:
    header = ["configuration", "state", "folds", f"mean {config.score_name}", "sd", "epochs", f"{device}-hours"]
    rows = [
        [entry.name, entry.state, entry.folds,
         *(numbers.number(score, 4) for score in (entry.mean_score, entry.sd_score)),
         entry.epochs, f"{entry.device_hours:.3f}"]
        for entry in entries[:_SHOWN]
    ]  # fmt: skip
    configurations = f"{len(entries)} configuration{'' if len(entries) == 1 else 's'}"
    measured_on = "of fold 0 alone" if population else "over the folds"
    title = f"Leaderboard: {config.score_in_words} {measured_on} ({configurations})"
    console.table(title, header, rows)
    for entry in entries:
        if entry.state == "failed":
            console.info(f"{entry.name} {entry.why}")
