"""A sweep is its journal: told again, cut off anywhere, it goes on as if nothing had happened."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from melanoma_dist.errors import DataError
from melanoma_dist.sweep.controller import Controller
from melanoma_dist.sweep.journal import Journal, Record, as_written, read_journal, replay, settle

from ..hostile import fuzz_reader
from .player import conductor_of, play, settings_of


def decisions(records: list[Record]) -> list[dict[str, Any]]:
    """The records without times: what a stopped unit took is measured, where its end had to be added later."""
    return [{key: value for key, value in record.items() if key not in ("time", "seconds")} for record in records]


def whole(folder: Path, side_by_side: int, **settings: Any) -> list[Record]:
    """The journal of an undisturbed sweep."""
    folder.mkdir()
    journal = Journal(folder / "journal.jsonl")
    conductor = conductor_of(settings_of(**settings), folder)
    play(conductor, journal, side_by_side)
    assert conductor.over()
    return journal.records


@pytest.mark.parametrize("scheduler", ["asha", "hyperband", "median", "none"])
@pytest.mark.parametrize("searcher", ["random", "optuna"])
def test_cut_off_after_any_line_it_ends_alike(scheduler: str, searcher: str, tmp_path: Path) -> None:
    """One unit at a time: rungs, race and searcher stand where they stood, whatever was lost of the journal's end."""
    settings = {"scheduler": scheduler, "searcher": searcher}
    expected = whole(tmp_path / "whole", 1, **settings)
    stride = max(1, len(expected) // 10)
    for cut in range(0, len(expected), stride):
        folder = tmp_path / str(cut)
        folder.mkdir()
        text = (tmp_path / "whole" / "journal.jsonl").read_text().splitlines(keepends=True)
        (folder / "journal.jsonl").write_text("".join(text[:cut]) + '{"what": "epo')  # the line that was being written
        journal = Journal(folder / "journal.jsonl")
        assert len(journal.records) == cut
        conductor = conductor_of(settings_of(**settings), folder)
        replay(journal.records, conductor, folder / "journal.jsonl")
        settle(journal, conductor)
        assert told_again(journal, folder, settings).running.keys() == conductor.running.keys()
        play(conductor, journal, 1)
        assert decisions(journal.records) == decisions(expected)
        assert decisions(read_journal(folder / "journal.jsonl")) == decisions(expected)
        shutil.rmtree(folder)


def told_again(journal: Journal, folder: Path, settings: dict[str, Any]) -> Controller:
    """The conductor of a later command, after one that did nothing."""
    conductor = conductor_of(settings_of(**settings), folder)
    replay(journal.records, conductor, folder / "journal.jsonl")
    settle(journal, conductor)
    return conductor


def test_infinity_survives_the_journal(tmp_path: Path) -> None:
    values = {"optimizer.clip_norm": float("inf"), "optimizer.lr": 0.1}
    Journal(tmp_path / "journal.jsonl").write("start", configuration=0, fold=0, values=as_written(values))
    assert read_journal(tmp_path / "journal.jsonl")[0]["values"] == as_written(values) != values


def test_two_at_a_time_it_goes_on_alike_after_any_tick(tmp_path: Path) -> None:
    settings = settings_of(scheduler="asha")
    folder = tmp_path / "whole"
    folder.mkdir()
    journal, conductor = Journal(folder / "journal.jsonl"), conductor_of(settings, folder)
    ticks: list[int] = []
    play(conductor, journal, 2, lambda: ticks.append(len(journal.records)))
    for tick in ticks[:: max(1, len(ticks) // 6)]:
        other = tmp_path / str(tick)
        other.mkdir()
        lines = (folder / "journal.jsonl").read_text().splitlines(keepends=True)
        (other / "journal.jsonl").write_text("".join(lines[:tick]))
        again, second = Journal(other / "journal.jsonl"), conductor_of(settings, other)
        replay(again.records, second, other / "journal.jsonl")
        play(second, again, 2)
        assert decisions(again.records) == decisions(journal.records)
        assert second.race.incumbent() == conductor.race.incumbent()


def test_an_edited_journal_is_refused(tmp_path: Path) -> None:
    records = whole(tmp_path / "whole", 1)
    path = tmp_path / "whole" / "journal.jsonl"
    position = next(number for number, record in enumerate(records) if record["what"] == "stop")
    lines = path.read_text().splitlines()
    better = json.loads(lines[position - 1])
    better["best_auc"] = 0.99
    path.write_text("\n".join([*lines[: position - 1], json.dumps(better), *lines[position:]]) + "\n")
    with pytest.raises(DataError, match=f"line {position + 1}: another decision follows now"):
        replay(Journal(path).records, conductor_of(settings_of(), tmp_path), path)


def test_another_seed_or_space_is_noticed(tmp_path: Path) -> None:
    records = whole(tmp_path / "whole", 1)
    values = next(record for record in records if record["what"] == "start")["values"]
    values["optimizer.lr"] *= 1.01
    with pytest.raises(DataError, match="line 1"):
        replay(records, conductor_of(settings_of(), tmp_path), tmp_path / "journal.jsonl")


def test_more_trials_later_go_on_with_the_same_sweep(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    folder.mkdir()
    journal, conductor = Journal(folder / "journal.jsonl"), conductor_of(settings_of(), folder, trials=4)
    journal.write("session", trials=4, device="GPU", per_unit=1, ranks=1, share=1.0, side_by_side=1)
    play(conductor, journal, 1)
    before = decisions(journal.records)
    again = Journal(folder / "journal.jsonl")
    more = conductor_of(settings_of(), folder, trials=6)
    replay(again.records, more, folder / "journal.jsonl")
    more.trials = 6
    assert not more.over()
    play(more, again, 1)
    assert decisions(again.records)[: len(before)] == before
    assert len(more.values) == 6


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    start = '{"what": "start", "time": 1, "configuration": 0, "fold": 0}\n'
    path.write_text(f"{start}rubbish\n{start}")
    with pytest.raises(DataError, match=r"journal\.jsonl: line 2 is damaged"):
        Journal(path)


def test_every_line_is_on_the_disk_at_once(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.write("drop", configuration=1, why="because")
    assert [record["why"] for record in read_journal(path)] == ["because"]
    with pytest.raises(ValueError, match="Out of range float"):
        journal.write("epoch", auc=float("nan"))


def test_a_damaged_journal_is_told_again_or_refused(tmp_path: Path) -> None:
    settings = {"scheduler": "asha", "searcher": "random"}
    whole(tmp_path / "whole", 1, **settings)
    path = tmp_path / "whole" / "journal.jsonl"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        replay(read_journal(path), conductor_of(settings_of(**settings), tmp_path), path)

    fuzz_reader(read, path.read_bytes(), DataError)
