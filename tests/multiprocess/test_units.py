"""A whole unit on two ranks: to its end, stopped and resumed, and refused to another number of ranks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from melanoma_dist.data.folds import make_folds
from melanoma_dist.data.labels import LABEL_SETS
from melanoma_dist.data.manifest import load_dataset
from melanoma_dist.errors import TrainingError
from melanoma_dist.train.checkpoint import Checkpoints
from melanoma_dist.train.events import EpochDone, UnitDone
from melanoma_dist.train.unit import Unit
from melanoma_dist.world import World

from ..unit.samples import config
from . import jobs
from .harness import on_ranks

RUN = config(
    backbone="test_resnet", weights="none", image_size=32, batch_size=9, epochs=2, warmup_epochs=0.5, folds=3,
    labels="melanoma", ema_decay=0.9, optimizer="adam", lr=1e-3, gpus=0, ranks_per_unit=2, patience=5,
)  # fmt: skip


def unit_in(folder: Path, data: Path) -> Unit:
    dataset = load_dataset(data)
    folder.mkdir()
    make_folds(dataset.manifest, LABEL_SETS["melanoma"], 3, 0).to_parquet(folder / "folds.parquet")
    return Unit(RUN, 1, str(data), dataset.fingerprint, folder)


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Unit, list[object]]:
    unit = unit_in(tmp_path_factory.mktemp("finished") / "run", data)
    main, other = on_ranks(2, jobs.whole_unit, unit)
    assert other == []  # only the main rank reports
    return unit, main


def test_a_unit_leaves_what_it_promises(finished: tuple[Unit, list[object]]) -> None:
    unit, events = finished
    assert isinstance(events[-1], UnitDone)
    assert [event.epoch for event in events if isinstance(event, EpochDone)] == [1, 2]
    folds = pd.read_parquet(unit.run / "folds.parquet")
    table = pd.read_parquet(unit.predictions)
    assert sorted(table["image_id"]) == sorted(folds.loc[folds["fold"] == 1, "image_id"])
    assert table["MEL"].between(0, 1).all()
    assert (unit.folder / "metrics.jsonl").read_text().count("\n") == 2
    assert len(list((unit.folder / "checkpoints").glob("epoch-*"))) == 2
    assert list(unit.folder.glob("events.*"))


def told(unit: Unit) -> list[dict[str, object]]:
    """The epochs' records without what the clock says."""
    lines = (unit.folder / "metrics.jsonl").read_text().splitlines()
    clock = ("seconds", "images_per_s", "wait_share")
    return [{key: value for key, value in json.loads(line).items() if key not in clock} for line in lines]


def test_a_stopped_unit_goes_on_as_if_it_had_not_been(
    finished: tuple[Unit, list[object]], data: Path, tmp_path: Path
) -> None:
    unit = unit_in(tmp_path / "run", data)
    stopped = on_ranks(2, jobs.whole_unit, unit, 1)
    assert [type(each) for each in stopped] == [jobs.Stopped] * 2
    assert not unit.predictions.exists()
    with pytest.raises(TrainingError, match=r"begun on 2 ranks and cannot go on alike on 1\..*--ranks-per-unit\) 2"):
        jobs.whole_unit(World(), unit)
    events, _ = on_ranks(2, jobs.whole_unit, unit)
    assert [event.epoch for event in events if isinstance(event, EpochDone)] == [2]
    assert told(unit) == told(finished[0])
    expected = pd.read_parquet(finished[0].predictions)
    pd.testing.assert_frame_equal(pd.read_parquet(unit.predictions), expected, check_exact=True)
    kept = [Checkpoints(each.folder / "checkpoints", print) for each in (unit, finished[0])]
    ours, theirs = (checkpoints.load(checkpoints.newest() or "none") for checkpoints in kept)
    for part in ("model", "average"):
        for key, value in theirs["learner"][part].items():
            assert value.equal(ours["learner"][part][key]), f"{part} {key}"


def test_every_rank_of_a_judged_unit_stops_when_the_answer_to_an_epoch_is_a_reason(data: Path, tmp_path: Path) -> None:
    unit = replace(unit_in(tmp_path / "run", data), judged=True)
    main, other = on_ranks(2, jobs.judged_unit, unit, 1)
    assert [event.epoch for event in main if isinstance(event, EpochDone)] == [1]
    assert other == []
    assert not unit.predictions.exists()
    # Started again, it tells the epoch again, in case its end was lost, and goes no further than it is told.
    main, _ = on_ranks(2, jobs.judged_unit, unit, 1)
    assert [event.epoch for event in main if isinstance(event, EpochDone)] == [1]
    assert len((unit.folder / "metrics.jsonl").read_text().splitlines()) == 1
