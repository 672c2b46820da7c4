"""A sweep resumes from its journal, cut off after any line, and decides as if nothing had happened."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from melanoma_dist.errors import DataError
from melanoma_dist.sweep.controller import Controller
from melanoma_dist.sweep.journal import (
    ConfigDropped,
    EpochFinished,
    Journal,
    Record,
    SessionStarted,
    UnitStarted,
    UnitStopped,
    UnitWaits,
    as_written,
    read_journal,
)
from melanoma_dist.sweep.replay import add_missing_records, replay

from ..hostile import fuzz_reader
from .player import controller_of, play, settings_of


def decisions(records: list[Record]) -> list[dict[str, Any]]:
    """The records without times: a stopped unit's seconds are the clock's, where its end was added later."""
    return [
        {key: value for key, value in asdict(record).items() if key not in ("time", "seconds")} for record in records
    ]


def whole(folder: Path, side_by_side: int, **settings: Any) -> list[Record]:
    """The journal of an undisturbed sweep."""
    folder.mkdir()
    journal = Journal(folder / "journal.jsonl")
    controller = controller_of(settings_of(**settings), folder)
    play(controller, journal, side_by_side)
    assert controller.is_finished()
    return journal.records


@pytest.mark.parametrize("scheduler", ["halving", "asha", "hyperband", "median", "none"])
@pytest.mark.parametrize("searcher", ["random", "optuna"])
def test_a_journal_cut_off_after_any_line_leads_to_the_same_decisions(
    scheduler: str, searcher: str, tmp_path: Path
) -> None:
    """One unit at a time: the replay restores rungs, racing and searcher, whatever end of the journal was lost."""
    settings = {"scheduler": scheduler, "searcher": searcher}
    expected = whole(tmp_path / "whole", 1, **settings)
    stride = max(1, len(expected) // 10)
    for cut in range(0, len(expected), stride):
        folder = tmp_path / str(cut)
        folder.mkdir()
        text = (tmp_path / "whole" / "journal.jsonl").read_text().splitlines(keepends=True)
        (folder / "journal.jsonl").write_text("".join(text[:cut]) + '{"what": "epo')  # an incomplete line
        journal = Journal(folder / "journal.jsonl")
        assert len(journal.records) == cut
        controller = controller_of(settings_of(**settings), folder)
        replay(journal.records, controller, folder / "journal.jsonl")
        add_missing_records(journal, controller)
        assert controller_after(journal, folder, settings).running.keys() == controller.running.keys()
        play(controller, journal, 1)
        assert decisions(journal.records) == decisions(expected)
        assert decisions(read_journal(folder / "journal.jsonl")) == decisions(expected)
        shutil.rmtree(folder)


def controller_after(journal: Journal, folder: Path, settings: dict[str, Any]) -> Controller:
    """The controller of a later command, after one that trained nothing."""
    controller = controller_of(settings_of(**settings), folder)
    replay(journal.records, controller, folder / "journal.jsonl")
    add_missing_records(journal, controller)
    return controller


def test_infinity_survives_the_journal(tmp_path: Path) -> None:
    values = {"optimizer.clip_norm": float("inf"), "optimizer.lr": 0.1}
    Journal(tmp_path / "journal.jsonl").write(UnitStarted(0.0, 0, 0, as_written(values)))
    record = read_journal(tmp_path / "journal.jsonl")[0]
    assert isinstance(record, UnitStarted)
    assert record.values == as_written(values) != values


def test_with_two_units_at_a_time_a_sweep_resumes_after_any_tick_with_the_same_decisions(tmp_path: Path) -> None:
    settings = settings_of(scheduler="asha")
    folder = tmp_path / "whole"
    folder.mkdir()
    journal, controller = Journal(folder / "journal.jsonl"), controller_of(settings, folder)
    ticks: list[int] = []
    play(controller, journal, 2, lambda: ticks.append(len(journal.records)))
    for tick in ticks[:: max(1, len(ticks) // 6)]:
        other = tmp_path / str(tick)
        other.mkdir()
        lines = (folder / "journal.jsonl").read_text().splitlines(keepends=True)
        (other / "journal.jsonl").write_text("".join(lines[:tick]))
        again, second = Journal(other / "journal.jsonl"), controller_of(settings, other)
        replay(again.records, second, other / "journal.jsonl")
        play(second, again, 2)
        assert decisions(again.records) == decisions(journal.records)
        assert second.racing.incumbent() == controller.racing.incumbent()


def test_an_edited_journal_is_refused(tmp_path: Path) -> None:
    records = whole(tmp_path / "whole", 1)
    path = tmp_path / "whole" / "journal.jsonl"
    position = next(number for number, record in enumerate(records) if isinstance(record, UnitStopped | UnitWaits))
    lines = path.read_text().splitlines()
    better = json.loads(lines[position - 1])
    better["best_score"] = 0.99
    path.write_text("\n".join([*lines[: position - 1], json.dumps(better), *lines[position:]]) + "\n")
    with pytest.raises(DataError, match=f"line {position + 1}: another decision follows now"):
        replay(Journal(path).records, controller_of(settings_of(), tmp_path), path)


def test_another_seed_or_space_is_noticed(tmp_path: Path) -> None:
    records = whole(tmp_path / "whole", 1)
    first = records[0]
    assert isinstance(first, UnitStarted)
    assert first.values is not None
    other = replace(first, values={**first.values, "optimizer.lr": 0.123})
    with pytest.raises(DataError, match="line 1"):
        replay([other, *records[1:]], controller_of(settings_of(), tmp_path), tmp_path / "journal.jsonl")


def test_more_trials_later_resume_the_same_sweep(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    folder.mkdir()
    journal, controller = Journal(folder / "journal.jsonl"), controller_of(settings_of(), folder, trials=4)
    journal.write(SessionStarted(0.0, 4, "GPU", per_unit=1.0, ranks=1, share=1.0, side_by_side=1))
    play(controller, journal, 1)
    before = decisions(journal.records)
    again = Journal(folder / "journal.jsonl")
    more = controller_of(settings_of(), folder, trials=6)
    replay(again.records, more, folder / "journal.jsonl")
    more.trials = 6
    assert not more.is_finished()
    play(more, again, 1)
    assert decisions(again.records)[: len(before)] == before
    assert len(more.values) == 6


def test_the_error_names_a_corrupt_line(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    start = '{"what": "start", "time": 1, "configuration": 0, "fold": 0}\n'
    path.write_text(f"{start}rubbish\n{start}")
    with pytest.raises(DataError, match=r"journal\.jsonl: line 2 is corrupt"):
        Journal(path)


def test_every_line_is_on_the_disk_at_once(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.write(ConfigDropped(1.5, 1, "because"))
    assert read_journal(path) == [ConfigDropped(1.5, 1, "because")]
    assert path.read_text().startswith('{"what": "drop", "time": 1.5, ')
    with pytest.raises(ValueError, match="Out of range float"):
        journal.write(EpochFinished(0.0, 0, 0, 1, float("nan"), 0.5, 1.0))


EPOCH = {
    "what": "epoch",
    "time": 1,
    "configuration": 0,
    "fold": 0,
    "epoch": 1,
    "score": 0.5,
    "best_score": 0.5,
    "seconds": 1,
}


@pytest.mark.parametrize(
    "change",
    [
        {"what": "era"}, {"what": None}, {"what": ["epoch"]}, {"time": "1"}, {"time": True}, {"configuration": 0.0},
        {"fold": "0"}, {"fold": 1}, {"epoch": True}, {"epoch": 1.0}, {"best_score": None}, {"seconds": "1"},
    ],
    ids=str,
)  # fmt: skip
def test_a_record_of_an_unknown_kind_or_with_a_wrong_value_is_corrupt(change: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    start = '{"what": "start", "time": 1, "configuration": 0, "fold": 0}'
    path.write_text(f"{start}\n{json.dumps(EPOCH)}\n")
    assert len(read_journal(path)) == 2
    path.write_text(f"{start}\n{json.dumps({**EPOCH, **change})}\n")
    with pytest.raises(DataError, match=r"line 2 is corrupt"):
        read_journal(path)
    for field in EPOCH:
        path.write_text(f"{start}\n{json.dumps({key: value for key, value in EPOCH.items() if key != field})}\n")
        with pytest.raises(DataError, match=r"line 2 is corrupt"):
            read_journal(path)


def test_a_mutated_journal_is_replayed_or_refused(tmp_path: Path) -> None:
    settings = {"scheduler": "asha", "searcher": "random"}
    whole(tmp_path / "whole", 1, **settings)
    path = tmp_path / "whole" / "journal.jsonl"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        replay(read_journal(path), controller_of(settings_of(**settings), tmp_path), path)

    fuzz_reader(read, path.read_bytes(), DataError)
