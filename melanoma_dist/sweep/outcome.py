"""What a sweep leaves for people: leaderboard, ledger, the best configuration, curves and a page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import yaml

from melanoma_dist import console
from melanoma_dist.artifacts.run_folder import RunFolder
from melanoma_dist.config.run import RunConfig, dotted, nested, with_values
from melanoma_dist.data.manifest import write_table
from melanoma_dist.errors import ConfigError, TrainingError
from melanoma_dist.evaluate.report.tensorboard import write_hyperparameters
from melanoma_dist.metrics.cross_validation import Comparison, compare
from melanoma_dist.storage import atomic
from melanoma_dist.sweep.controller import Controller
from melanoma_dist.sweep.journal import Journal
from melanoma_dist.sweep.leaderboard import best_and_next, leaderboard
from melanoma_dist.sweep.ledger import Ledger, make_ledger
from melanoma_dist.sweep.page import write_page
from melanoma_dist.sweep.work_source import SweepContext

OPTIMISTIC = (
    "The folds that chose a configuration are those it is measured on here, so the winner's figures are optimistic, "
    "the more so the more configurations were tried. Only images that no fold has seen give an unbiased figure."
)
_SHOWN = 15  # rows of the leaderboard in the terminal


class Outcome:
    """The files of a sweep, written anew from its journal."""

    def __init__(self, ground: SweepContext, conductor: Controller, journal: Journal) -> None:
        self._ground, self._conductor, self._journal = ground, conductor, journal

    def update(self, configuration: int | None = None) -> None:
        """Write the tables, and what TensorBoard shows of a configuration that has just ended a fold."""
        folder, ledger = self._ground.folder, self._ledger()
        table = self._standings(ledger)
        write_table(folder / "ledger.parquet", ledger.units)
        atomic.write_file(folder / "leaderboard.csv", table.to_csv)
        if configuration is not None:
            self._show_in_tensorboard(configuration, ledger)

    def finalize(self, conclude_run: Callable[..., Any]) -> None:
        """Write everything, and say how the sweep ended. Raises TrainingError where every configuration failed."""
        self.update()
        ledger = self._ledger()
        table = self._standings(ledger)
        for number in range(len(self._conductor.values)):
            if self._conductor.race.complete(number):
                self._conclude_run(number, conclude_run)
                self._show_in_tensorboard(number, ledger)
        best, runner_up = best_and_next(table)
        comparison = self._compare(best, runner_up)
        if best is not None:
            self._write_best(best)
        verdict, cost = _verdict(table, best, runner_up, comparison), cost_sentence(ledger)
        write_page(self._ground, self._journal.records, ledger, table, verdict, cost)
        _say_standings(table, ledger.device)
        for line in (*verdict, cost):
            console.info(line)
        folder = self._ground.folder
        files = {"page": "sweep.html", "leaderboard": "leaderboard.csv", "ledger": "ledger.parquet"}
        console.info("  ".join(f"{what}: {folder / name}" for what, name in files.items()))
        console.info(f"curves: tensorboard --logdir {folder}")
        if best is not None:
            console.info(f"train the best with all folds: python launch.py --config {folder / 'best.yaml'}")
        elif len(table) and (table["state"] == "failed").all():
            raise TrainingError(f"Every configuration failed; {folder / 'leaderboard.csv'} has the reasons.")

    def _ledger(self) -> Ledger:
        return make_ledger(self._journal.records, self._conductor.race.folds)

    def _standings(self, ledger: Ledger) -> pd.DataFrame:
        names = [self._ground.name(number, values) for number, values in enumerate(self._conductor.values)]
        return leaderboard(self._conductor, ledger, names)

    def _compare(self, best: int | None, runner_up: int | None) -> Comparison | None:
        if best is None or runner_up is None:
            return None
        runners = self._conductor.race.runners
        return compare(runners[best].aucs, runners[runner_up].aucs)

    def _run(self, number: int) -> tuple[RunConfig, RunFolder]:
        config = self._ground.configured(number, self._conductor.values[number])
        return config, self._ground.locate_run(config)

    def _conclude_run(self, number: int, conclude_run: Callable[..., Any]) -> None:
        """A complete configuration is a run like any other: out-of-fold predictions, figures, report."""
        config, folder = self._run(number)
        if not folder.finished():
            ground = self._ground
            conclude_run(config, ground.dataset, ground.folds, folder, 0.0)

    def _show_in_tensorboard(self, number: int, ledger: Ledger) -> None:
        """A row of the hyperparameter view: what varied, and how far the configuration came."""
        runner = self._conductor.race.runners[number]
        mine = ledger.units[ledger.units["configuration"] == number]
        first = mine.loc[mine["fold"] == 0, "best_auc"].dropna()
        metrics = {
            "hparam/auc_mean_over_folds": runner.mean if runner.aucs else None,
            "hparam/auc_first_fold": float(first.iloc[0]) if len(first) else None,
            "hparam/folds_finished": float(len(runner.aucs)),
            "hparam/device_hours": float(mine["device_seconds"].sum() / 3600),
        }
        try:
            config, folder = self._run(number)
        except ConfigError:  # its values do not go together: it has no folder
            return
        values = dotted(config)
        write_hyperparameters({key: values[key] for key in self._ground.varied}, metrics, folder.path)

    def _write_best(self, number: int) -> None:
        config = with_values(self._ground.config, {**self._conductor.values[number], "name": None})
        atomic.write_text(self._ground.folder / "best.yaml", yaml.safe_dump(nested(config), sort_keys=False))


def cost_sentence(ledger: Ledger) -> str:
    """What the sweep cost beside what it would have cost in full."""
    spent = f"this sweep cost {ledger.spent / 3600:.2f} {ledger.device}-hours"
    if not ledger.full:
        return spent
    share = ledger.spent / ledger.full
    return (
        f"{spent}; full cross-validation of the same configurations would have cost about {ledger.full / 3600:.2f} "
        f"(estimated from their time per epoch): {share:.0%}"
    )


def _verdict(table: pd.DataFrame, best: int | None, runner_up: int | None, comparison: Comparison | None) -> list[str]:
    """What can be said of the winner."""
    if best is None:
        return ["No configuration has finished all its folds yet: there is no best one."]
    row = table.loc[best]
    lines = [f"best: {row['name']}, mean AUC {row['mean_auc']:.4f} ± {row['sd_auc']:.4f} over {row['folds']} folds"]
    if comparison is None or runner_up is None:
        lines.append("No other configuration finished all folds: nothing tells how far the next one is.")
    else:
        interval = f"{comparison.difference:+.4f}, 95 % interval {comparison.low:+.4f} to {comparison.high:+.4f}"
        name = str(table["name"].loc[runner_up])
        lines.append(
            f"The next, {name}, is behind by more than the spread of the folds ({interval})."
            if comparison.separable
            else f"WARNING: the folds cannot tell it from the next, {name} ({interval})."
        )
    return [*lines, OPTIMISTIC]


def _say_standings(table: pd.DataFrame, device: str) -> None:
    header = ["configuration", "state", "folds", "mean AUC", "sd", "epochs", f"{device}-hours"]
    rows = [
        [row["name"], row["state"], row["folds"], *(_number(row[key]) for key in ("mean_auc", "sd_auc")),
         row["epochs"], f"{row['device_hours']:.3f}"]
        for _, row in table.head(_SHOWN).iterrows()
    ]  # fmt: skip
    console.table(f"Leaderboard: melanoma AUC over the folds ({len(table)} configurations)", header, rows)
    for _, row in table[table["state"] == "failed"].iterrows():
        console.info(f"{row['name']} {row['why']}")


def _number(value: float | None) -> str:
    return "–" if value is None or pd.isna(value) else f"{value:.4f}"
