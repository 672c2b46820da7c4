"""A unit starts from the checkpoint of another one, if that one trained alike so far."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from melanoma_dist.config.run import RunConfig, with_values
from melanoma_dist.train.checkpoint import Checkpoints, Cursor
from melanoma_dist.train.fallbacks import Fallbacks, read_fallbacks
from melanoma_dist.train.inherit import inherit
from melanoma_dist.train.unit import Unit

from ..samples import tiny

PARENT = tiny(epochs=9, changes="lr=0.02@3")
CHILD = with_values(PARENT, {"schedule.changes": "lr=0.02@3,lr=0.05@5", "name": "child"})


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    """The fold of a parent that has trained five epochs, the second of which was the best."""
    folder = tmp_path / "parent" / "fold-0"
    checkpoints = Checkpoints(folder / "checkpoints", print)
    checkpoints.save_best(1, {"weights": torch.ones(3)})
    for epoch in (4, 5):
        checkpoints.save(Cursor(epoch), {"epoch": epoch}, keep_best=1)
    return folder


@pytest.fixture
def unit(tmp_path: Path) -> Unit:
    return Unit(CHILD, 0, "", "", tmp_path / "child")


def test_the_state_of_that_epoch_and_its_best_weights_are_copied(parent: Path, unit: Unit) -> None:
    fallbacks = {"accumulate": 2, "corrupt": ["ISIC_0000001"]}
    (parent / "fallbacks.json").write_text(json.dumps(fallbacks))
    assert inherit(unit, PARENT, parent, 4)
    checkpoints = Checkpoints(unit.folder / "checkpoints", print)
    assert checkpoints.newest() == Cursor(4).name
    assert checkpoints.load(Cursor(4).name) == {"epoch": 4}
    assert checkpoints.best(1).read_bytes() == (parent / "checkpoints/best-0001/model.safetensors").read_bytes()
    assert read_fallbacks(unit.folder) == Fallbacks(2, ("ISIC_0000001",))


def test_a_unit_keeps_its_own_checkpoints(parent: Path, unit: Unit) -> None:
    own = Checkpoints(unit.folder / "checkpoints", print)
    own.save(Cursor(2, 3), {"epoch": 2}, keep_best=0)
    assert inherit(unit, PARENT, parent, 4)
    assert own.newest() == Cursor(2, 3).name


def test_what_a_kill_left_of_a_copy_is_no_checkpoint(parent: Path, unit: Unit) -> None:
    for name in ("checkpoints/best-0000", ".checkpoints.tmp/epoch-00004-step-0000000"):
        (unit.folder / name).mkdir(parents=True)
    assert inherit(unit, PARENT, parent, 4)
    assert sorted(path.name for path in (unit.folder / "checkpoints").iterdir()) == ["best-0001", Cursor(4).name]


@pytest.mark.parametrize("file", ["epoch-00004-step-0000000/state.pt", "best-0001/model.safetensors"])
def test_a_corrupt_checkpoint_is_not_copied(file: str, parent: Path, unit: Unit) -> None:
    (parent / "checkpoints" / file).write_bytes(b"torn")
    assert not inherit(unit, PARENT, parent, 4)
    assert not unit.folder.exists()


@pytest.mark.parametrize(
    "other",
    [
        with_values(PARENT, {"schedule.changes": "lr=0.03@3"}),
        with_values(PARENT, {"optimizer.lr": 0.5}),
        with_values(PARENT, {"seed": 1}),
        with_values(PARENT, {"schedule.changes": "lr=0.02@3,dropout=0.5@4"}),
    ],
    ids=["change", "rate", "seed", "more changes"],
)
def test_a_parent_that_trained_otherwise_is_refused(other: RunConfig, parent: Path, unit: Unit) -> None:
    assert not inherit(unit, other, parent, 4)
    assert not inherit(replace(unit, config=other), PARENT, parent, 4)


def test_there_is_nothing_to_copy_of_another_epoch(parent: Path, unit: Unit) -> None:
    assert not inherit(unit, PARENT, parent, 3)
