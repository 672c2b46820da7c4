"""A whole unit on two ranks: to its end, stopped and resumed, and refused to another number of ranks."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from melanoma_dist.artifacts.integrity import weights_sha256
from melanoma_dist.config.run import RunConfig, with_values
from melanoma_dist.data.folds import make_folds
from melanoma_dist.data.labels import LABEL_SETS
from melanoma_dist.data.manifest import load_dataset
from melanoma_dist.distributed.preflight import ModelSize, run_bytes
from melanoma_dist.errors import ResumeError
from melanoma_dist.input.pixels import AUGMENTATION
from melanoma_dist.models.classifier import build_classifier
from melanoma_dist.storage import atomic
from melanoma_dist.train.checkpoint import Checkpoints
from melanoma_dist.train.events import EpochDone, Finishing, Note, Paused, UnitDone
from melanoma_dist.train.unit import Unit
from melanoma_dist.world import World

from ..unit.samples import config, tiny
from . import jobs
from .harness import on_ranks

RUN = config(
    backbone="test_resnet", weights="none", image_size=32, batch_size=9, epochs=2, warmup_epochs=0.5, folds=3,
    labels="melanoma", ema_decay=0.9, optimizer="adam", lr=1e-3, gpus=0, ranks_per_unit=2, patience=5,
)  # fmt: skip

CLOCK = ("clock", "seconds", "images_per_s", "wait_share")
TIMED = ("images_per_s", "wait_share", "seconds_per_epoch")


def unit_in(
    folder: Path, data: Path, ranks: int = 2, every: str = "10m", config: RunConfig | None = None, **limits: Any
) -> Unit:
    dataset = load_dataset(data)
    folder.mkdir()
    hardware = replace(RUN.hardware, ranks_per_unit=ranks)
    faults = replace(RUN.fault_tolerance, checkpoint_every=every, **limits)
    make_folds(dataset.manifest, LABEL_SETS["melanoma"], 3, 0).to_parquet(folder / "folds.parquet")
    chosen = config or replace(RUN, hardware=hardware, fault_tolerance=faults)
    return Unit(chosen, 1, str(data), dataset.fingerprint, folder)


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
    last_epoch = max(at for at, event in enumerate(events) if isinstance(event, EpochDone))
    passes = [event.what for event in events[last_epoch:] if isinstance(event, Finishing)]
    assert list(dict.fromkeys(passes)) == ["predicting", "features"]


def test_the_estimated_room_is_what_the_unit_takes(finished: tuple[Unit, list[object]]) -> None:
    """No run with enough room is refused, and nearly every run without is."""
    unit, _ = finished
    model = build_classifier(unit.config.model, 32, 1, unit.config.seed)
    files = [*unit.folder.glob("checkpoints/*/*"), unit.model]
    taken = sum(path.stat().st_size for path in files)
    assert 0.7 * taken < run_bytes(unit.config, ModelSize.of(model)) / unit.config.data.folds <= taken


def test_hashes_are_as_other_programs_check_them(finished: tuple[Unit, list[object]]) -> None:
    unit, _ = finished
    check = ["sha256sum", "--check", "--strict", "weights.sha256", "features.sha256"]
    done = subprocess.run(check, cwd=unit.folder, capture_output=True, text=True)
    files = "../model/fold-1.safetensors: OK\nfeatures.safetensors: OK\n"
    assert (done.returncode, done.stdout) == (0, files), done.stderr
    assert weights_sha256(unit.folder, unit.model) == atomic.sha256(unit.model)
    best = max(unit.folder.glob("checkpoints/best-*"))
    assert unit.model.read_bytes() == (best / "model.safetensors").read_bytes()


def epoch_records(unit: Unit) -> list[dict[str, Any]]:
    """The records of the epochs without measured times."""
    lines = (unit.folder / "metrics.jsonl").read_text().splitlines()
    return [comparable(json.loads(line)) for line in lines]


def last_state(unit: Unit) -> dict[str, Any]:
    checkpoints = Checkpoints(unit.folder / "checkpoints", print)
    name = checkpoints.newest()
    assert name is not None
    return checkpoints.load(name)


def scalars(unit: Unit) -> dict[str, list[tuple[int, float]]]:
    """By tag, steps and values as TensorBoard shows them; of the clock's, the steps alone."""
    events = EventAccumulator(str(unit.folder), size_guidance={"scalars": 0}).Reload()
    return {
        tag: [(each.step, 0.0 if tag.endswith(TIMED) else each.value) for each in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def assert_same(unit: Unit, other: Unit) -> None:
    """Bit for bit: metrics, predictions, curves, published weights, and the last checkpoint."""
    assert epoch_records(unit) == epoch_records(other)
    assert unit.predictions.read_bytes() == other.predictions.read_bytes()
    assert unit.model.read_bytes() == other.model.read_bytes()
    assert scalars(unit) == scalars(other)
    assert comparable(last_state(unit)) == comparable(last_state(other))


def comparable(value: Any) -> Any:
    """A state without measured times, its tensors as bytes."""
    if isinstance(value, dict):
        return {key: comparable(each) for key, each in value.items() if key not in CLOCK}
    if isinstance(value, list | tuple):
        return [comparable(each) for each in value]
    return (value.dtype, value.shape, value.numpy().tobytes()) if isinstance(value, torch.Tensor) else value


@pytest.mark.parametrize(
    ("ranks", "every", "stops"), [(1, "1", (0, 1, 3, 4, 7)), (2, "2", (3, 4, 6)), (3, "3", (2, 5))]
)
def test_a_unit_killed_again_and_again_ends_as_one_that_never_was(
    ranks: int, every: str, stops: tuple[int, ...], data: Path, tmp_path: Path
) -> None:
    whole, killed = (unit_in(tmp_path / name, data, ranks, every) for name in ("whole", "killed"))
    on_ranks(ranks, jobs.whole_unit, whole)
    for stop in stops:
        ends = on_ranks(ranks, jobs.whole_unit, killed, stop)
        assert [type(each) for each in ends] == [jobs.Stopped] * ranks
        assert not killed.predictions.exists()
    events, *_ = on_ranks(ranks, jobs.whole_unit, killed)
    assert isinstance(events[-1], UnitDone)
    assert_same(killed, whole)


CHANGED = {
    "schedule.epochs": 3,
    "optimizer.freeze_epochs": 1,
    "schedule.changes": "lr=3e-3@2,dropout=0.5@2,clip_norm=0.5@2,weight_decay=0.1@3,layer_decay=0.5@3,"
    "head_lr_factor=1@3",
}


@pytest.mark.parametrize(("ranks", "stops"), [(1, (3, 4, 7, 8, 11)), (2, (5, 9))])
def test_a_unit_whose_hyperparameters_change_resumes_to_the_same_bytes(
    ranks: int, stops: tuple[int, ...], data: Path, tmp_path: Path
) -> None:
    """It is killed before and after the epochs that change them, and groups of parameters with them."""
    units = [unit_in(tmp_path / name, data, ranks, "1") for name in ("whole", "killed")]
    whole, killed = (replace(unit, config=with_values(unit.config, CHANGED)) for unit in units)
    on_ranks(ranks, jobs.whole_unit, whole)
    for stop in stops:
        assert type(on_ranks(ranks, jobs.whole_unit, killed, stop)[0]) is jobs.Stopped
    on_ranks(ranks, jobs.whole_unit, killed)
    assert_same(killed, whole)
    groups = last_state(whole)["train_step"]["optimizer"]["param_groups"]
    assert {group["weight_decay"] for group in groups} == {0.0, 0.1}
    assert {group["factor"] for group in groups} == {0.5**share for share in range(len({g["factor"] for g in groups}))}


def test_a_changed_epoch_is_one_of_a_run_that_has_these_values_from_its_start(data: Path, tmp_path: Path) -> None:
    """After the first epoch, another run with other hyperparameters continues from its checkpoint, without changes."""
    others = {"optimizer.lr": 3e-3, "model.dropout": 0.5, "optimizer.clip_norm": 0.5}
    changed, first = (unit_in(tmp_path / name, data, 1, "1") for name in ("changed", "first"))
    text = "lr=3e-3@2,dropout=0.5@2,clip_norm=0.5@2"
    on_ranks(1, jobs.whole_unit, replace(changed, config=with_values(changed.config, {"schedule.changes": text})))
    on_ranks(1, jobs.whole_unit, first, 4)  # an epoch has four steps
    on_ranks(1, jobs.whole_unit, replace(first, config=with_values(first.config, others)))
    assert_same(changed, first)
    peaks = [record["learning_rate"] for record in epoch_records(changed)]
    plain = unit_in(tmp_path / "plain", data, 1)
    on_ranks(1, jobs.whole_unit, plain)
    before = [record["learning_rate"] for record in epoch_records(plain)]
    assert peaks == pytest.approx([before[0], before[1] * 3])


def test_a_checkpoint_that_several_ranks_agree_on_is_taken_once(data: Path, tmp_path: Path) -> None:
    unit = unit_in(tmp_path / "run", data, 2, "1")
    assert on_ranks(2, jobs.saving_unit, unit) == [[2, 4, 2, 4]] * 2  # they answer a request one step later


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_unit_that_is_asked_to_leave_saves_and_goes_on_from_there(ranks: int, data: Path, tmp_path: Path) -> None:
    whole, left = (unit_in(tmp_path / name, data, ranks) for name in ("whole", "left"))
    on_ranks(ranks, jobs.whole_unit, whole)
    events, *_ = on_ranks(ranks, jobs.train_and_pause, left, 1)
    at = 2 if ranks == 1 else 3  # several ranks answer a request one step later
    assert events[-1] == Paused(1, f"step {at} of 4 of epoch 1")
    assert last_state(left)["cursor"] == {"epoch": 0, "step": at}
    events, *_ = on_ranks(ranks, jobs.whole_unit, left)
    assert events[0] == Note(1, f"resumes after step {at} of 4 of epoch 1")
    assert_same(left, whole)


def test_another_number_of_ranks_is_refused(data: Path, tmp_path: Path) -> None:
    unit = unit_in(tmp_path / "run", data, every="1")
    on_ranks(2, jobs.whole_unit, unit, 3)
    with pytest.raises(ResumeError, match=r"another number of ranks: 2 then, 1 now\. .*--ranks-per-unit\) 2, or"):
        jobs.whole_unit(World(), unit)


def test_other_arithmetic_is_refused_by_name(data: Path, tmp_path: Path) -> None:
    unit = unit_in(tmp_path / "run", data, 1, "1")
    on_ranks(1, jobs.whole_unit, unit, 3)
    state = last_state(unit)
    expected = {"device": "CPU", "decode_threads": 1, "compile": False, "augmentation": AUGMENTATION}
    assert state["arithmetic"] == expected
    other = replace(unit, config=replace(unit.config, hardware=replace(unit.config.hardware, compile=True)))
    with pytest.raises(ResumeError, match=r"compile False then, by block now\. .*--accept-changes"):
        jobs.whole_unit(World(), other)
    with pytest.raises(
        ResumeError, match=r"decode_threads 1 then, 2 now\. Type its flags as then, or --accept-changes"
    ):
        jobs.whole_unit(World(threads=2), unit)


def test_from_one_rank_to_two_and_back_in_the_middle_of_an_epoch(data: Path, tmp_path: Path) -> None:
    """Each global batch holds the same images; a model without batch statistics ends the same within float sums."""
    config = tiny(labels="melanoma", folds=3, epochs=2, batch_size=9, checkpoint_every="1", allow_resize=True)
    whole, resized = (unit_in(tmp_path / name, data, config=config) for name in ("whole", "resized"))
    (expected,) = on_ranks(1, jobs.seen_by_unit, whole)
    first = on_ranks(1, jobs.seen_by_unit, resized, 2)
    second = on_ranks(2, jobs.seen_by_unit, resized, 6)
    third = on_ranks(1, jobs.seen_by_unit, resized)
    # Several ranks agree on a checkpoint one step later: the second stop leaves the one after step 5.
    assert [list(each) for each in (*first, *second, *third)] == [[0, 1], [2, 3, 4, 5], [2, 3, 4, 5], [6, 7]]
    for ranks in (first, second, third):
        for step in ranks[0]:
            assert sorted(sample for rank in ranks for sample in rank[step]) == sorted(expected[step])
    for ours, theirs in zip(epoch_records(resized), epoch_records(whole), strict=True):
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-5)
        assert ours["validation"]["labels"]["MEL"] == pytest.approx(theirs["validation"]["labels"]["MEL"], abs=1e-4)
    weights, expected = last_state(resized)["train_step"]["model"], last_state(whole)["train_step"]["model"]
    assert max(float((weights[key] - value).abs().max()) for key, value in expected.items()) < 1e-5


def test_a_model_with_batch_statistics_goes_on_with_more_ranks(data: Path, tmp_path: Path) -> None:
    """Its metrics differ, because each rank normalises a smaller share; all is finite and every epoch is there once."""
    unit = unit_in(tmp_path / "run", data, 1, "1", allow_resize=True)
    on_ranks(1, jobs.whole_unit, unit, 2)
    events, *_ = on_ranks(2, jobs.whole_unit, unit)
    assert Note(1, "resumes on another number of ranks: 1 then, 2 now (--allow-resize)") in events
    assert [record["epoch"] for record in epoch_records(unit)] == [1, 2]
    assert pd.read_parquet(unit.predictions)["MEL"].between(0, 1).all()


def test_another_number_of_ranks_may_have_other_threads(data: Path, tmp_path: Path) -> None:
    unit = unit_in(tmp_path / "run", data, 2, "1", allow_resize=True)
    on_ranks(2, jobs.whole_unit, unit, 3)
    events = jobs.whole_unit(World(threads=2), unit)
    assert Note(1, "resumes on another number of ranks: 2 then, 1 now (--allow-resize)") in events
    assert unit.predictions.is_file()


def test_every_rank_stops_when_the_scheduler_answers_an_epoch_with_a_reason(data: Path, tmp_path: Path) -> None:
    unit = replace(unit_in(tmp_path / "run", data), reports_to_scheduler=True)
    main, other = on_ranks(2, jobs.train_with_scheduler, unit, 1)
    assert [event.epoch for event in main if isinstance(event, EpochDone)] == [1]
    assert other == []
    assert not unit.predictions.exists()
    # Started again, it reports the epoch again, in case its end was lost, and stops there again.
    main, _ = on_ranks(2, jobs.train_with_scheduler, unit, 1)
    assert [event.epoch for event in main if isinstance(event, EpochDone)] == [1]
    assert len((unit.folder / "metrics.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize(("ranks", "victim"), [(2, 0), (3, 2)])
def test_a_rank_that_hangs_is_named_by_the_others_in_time(ranks: int, victim: int, data: Path, tmp_path: Path) -> None:
    unit = unit_in(tmp_path / "run", data, ranks, "1", collective_timeout_s=5)
    ends = on_ranks(ranks, jobs.hanging_unit, unit, victim, 2, group_s=5)
    by_main = f"of {ranks} ranks, lost or hanging: {victim}; no answer within 5 s (--collective-timeout-s)"
    by_others = f"rank 0 of {ranks} is lost or hangs, or a rank that it waits for: no answer within 5 s"
    for rank in set(range(ranks)) - {victim}:
        assert ends[rank].startswith(by_others if rank else by_main)
