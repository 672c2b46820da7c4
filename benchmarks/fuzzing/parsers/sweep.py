"""The reader of a sweep's journal."""

from __future__ import annotations

from pathlib import Path

from fuzzing.parsers import Parser
from melanoma_dist.config.sweep import SweepConfig
from melanoma_dist.sweep.controller import Controller
from melanoma_dist.sweep.halving import Halving
from melanoma_dist.sweep.journal import ConfigDropped, EpochFinished, Journal, SessionStarted, UnitEnded, UnitStarted
from melanoma_dist.sweep.ledger import make_ledger, milestones
from melanoma_dist.sweep.racing import FoldRacing
from melanoma_dist.sweep.replay import replay
from melanoma_dist.sweep.search import Stopper


class _Values:
    """A searcher that suggests the same values every time."""

    def suggest(self) -> dict[str, object] | None:
        return {"optimizer.lr": 0.1}

    def report(self, configuration: int, score: float | None, folds: int, epoch: int) -> None:
        pass


def _controller() -> Controller:
    return Controller(_Values(), Stopper(SweepConfig()), Halving.of(SweepConfig()), FoldRacing(2, "forgiving"), 3)


def _write_sweep(folder: Path) -> None:
    """The journal of a sweep of three configurations, two of which are dropped."""
    journal = Journal(folder / "sweep.jsonl")
    controller = _controller()
    journal.write(SessionStarted(0.0, 3, "GPU", per_unit=1.0, ranks=1, share=1.0, side_by_side=1))
    while (trial := controller.next()) is not None:
        journal.write(UnitStarted(0.0, *trial))
        for epoch in (1, 2):
            auc = 0.9 - 0.1 * trial.configuration
            journal.write(EpochFinished(0.0, *trial, epoch, auc, auc, seconds=1.0))
            controller.report_epoch(trial, epoch, auc)
        journal.write(UnitEnded(0.0, *trial, "finished", seconds=3.0))
        for drop in controller.finish(trial):
            journal.write(ConfigDropped(0.0, drop.configuration, drop.reason))


def _sweep(folder: Path) -> None:
    path = folder / "sweep.jsonl"
    records = Journal(path).records
    replay(records, _controller(), path)
    make_ledger(records, 2), milestones(records, 2)


PARSERS: dict[str, Parser] = {"sweep-journal": Parser(_sweep, (), ("sweep.jsonl",), _write_sweep)}
