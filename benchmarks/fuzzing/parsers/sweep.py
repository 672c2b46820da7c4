"""The reader of a sweep's journal."""

from __future__ import annotations

from pathlib import Path

from fuzzing.parsers import Parser
from melanoma_dist.config.sweep import SweepConfig
from melanoma_dist.sweep.controller import Controller
from melanoma_dist.sweep.journal import Journal, replay
from melanoma_dist.sweep.ledger import make_ledger, milestones
from melanoma_dist.sweep.racing import FoldRacing, FoldTrial
from melanoma_dist.sweep.search import Stopper


class _Values:
    """A searcher that knows no values."""

    def suggest(self) -> dict[str, object] | None:
        return {"optimizer.lr": 0.1}

    def tell(self, configuration: int, auc: float | None) -> None:
        pass


def _conductor() -> Controller:
    return Controller(_Values(), Stopper(SweepConfig()), FoldRacing(2, "forgiving"), 3)


def _begin_sweep(place: Path) -> None:
    """The journal of a sweep of three configurations, of which two are dropped."""
    kept = Journal(place / "sweep.jsonl")
    conductor = _conductor()
    kept.write("session", trials=3, device="GPU", per_unit=1, ranks=1, share=1.0, side_by_side=1)
    while (unit := conductor.next()) is not None:
        at = {"configuration": unit.configuration, "fold": unit.fold}
        kept.write("start", **at)
        for epoch in (1, 2):
            auc = 0.9 - 0.1 * unit.configuration
            kept.write("epoch", **at, epoch=epoch, auc=auc, best_auc=auc, seconds=1.0)
            conductor.epoch(unit, epoch, auc)
        kept.write("end", **at, state="finished", seconds=3.0)
        for drop in conductor.finish(FoldTrial(unit.configuration, unit.fold)):
            kept.write("drop", configuration=drop.configuration, why=drop.why)


def _sweep(place: Path) -> None:
    path = place / "sweep.jsonl"
    records = Journal(path).records
    replay(records, _conductor(), path)
    make_ledger(records, 2), milestones(records, 2)


PARSERS: dict[str, Parser] = {"sweep-journal": Parser(_sweep, (), ("sweep.jsonl",), _begin_sweep)}
