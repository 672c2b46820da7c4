"""A training without enough room is refused before it starts; one with enough never is."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from melanoma_dist.distributed.preflight import (
    ModelSize,
    check_room,
    check_shared_memory,
    check_temporary,
    run_bytes,
    temporary_base,
)
from melanoma_dist.errors import ConfigError
from melanoma_dist.models.classifier import build_classifier
from melanoma_dist.train.step import TrainStep
from melanoma_dist.world import World

from ..samples import config

Usage = namedtuple("Usage", "total used free")
SIZE = ModelSize(state=110, parameters=100)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    mount = shutil.which("mount") or pytest.skip("no mount here")
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run([str(shutil.which("umount")), place], check=True)


@pytest.mark.parametrize(
    ("flags", "a_fold"),
    [
        ({"optimizer": "adam"}, 2 * (110 + 200) + 2 * 110),
        ({"optimizer": "sgd"}, 2 * (110 + 100) + 2 * 110),
        ({"optimizer": "sgd", "ema_decay": 0.9}, 2 * (220 + 100) + 2 * 110),
        ({"optimizer": "adamw", "epochs": 1}, (110 + 200) + 2 * 110),
        ({"optimizer": "adam", "epochs": 3, "freeze_epochs": 3}, 2 * 110 + 2 * 110),
    ],
)
def test_the_size_of_a_run_counts_checkpoints_weights_and_models(flags: dict[str, object], a_fold: int) -> None:
    assert run_bytes(config(folds=4, repeats=3, warmup_epochs=0.0, **flags), SIZE) == 12 * a_fold


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_the_estimated_size_of_a_checkpoint_is_right(optimizer: str, tmp_path: Path) -> None:
    """Saved by PyTorch itself; up to a tenth of the file may be overhead."""
    few = {"backbone": "test_resnet", "weights": "none", "epochs": 1, "warmup_epochs": 0.0, "folds": 2, "gpus": 0}
    chosen = config(**few, optimizer=optimizer, ema_decay=0.9)
    model = build_classifier(chosen.model, 32, 8, 0)
    learner = TrainStep(model, torch.nn.BCEWithLogitsLoss(), chosen, World())
    for group in learner.optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.ones_like(parameter)
    learner.optimizer.step()
    torch.save(learner.state_dict(), tmp_path / "state.pt")
    size = ModelSize.of(model)
    reckoned = run_bytes(chosen, size) // 2 - 2 * size.state
    assert reckoned <= (tmp_path / "state.pt").stat().st_size <= 1.1 * reckoned + 50_000


def test_sizes_are_bytes() -> None:
    assert ModelSize.of(nn.BatchNorm1d(10)) == ModelSize(state=4 * 40 + 8, parameters=80)
    assert ModelSize.of(nn.Linear(3, 5).half()) == ModelSize(state=40, parameters=40)


def test_a_full_disk_is_refused_before_anything_is_written(disk: Path) -> None:
    chosen, run = config(runs=disk / "runs", folds=2, epochs=1), disk / "runs" / "name"
    large = ModelSize(state=150_000, parameters=150_000)
    rule = re.escape(f"--runs {disk}/runs: the run writes at least 2 MB more there, and 1 MB are free. Make room")
    with pytest.raises(ConfigError, match=rule):
        check_room(chosen, large, run)
    assert list(disk.iterdir()) == []
    check_room(chosen, ModelSize(state=50_000, parameters=50_000), run)


def test_a_resumed_run_needs_room_for_the_rest_only(disk: Path) -> None:
    chosen, run = config(runs=disk, folds=2, epochs=1), disk / "name"
    (run / "fold-0" / "checkpoints").mkdir(parents=True)
    (run / "fold-0" / "checkpoints" / "state.pt").write_bytes(bytes(900_000))
    with pytest.raises(ConfigError, match=r"at least 600 KB more there, and \d+ KB are free"):
        check_room(chosen, ModelSize(state=150_000, parameters=150_000), run)
    check_room(chosen, ModelSize(state=100_000, parameters=100_000), run)  # 1 MB in all, and 0.1 are lacking


def test_an_unknown_disk_size_refuses_nothing() -> None:
    check_room(config(), ModelSize(10**12, 10**12), Path("/proc/none"))


def test_a_small_temporary_folder_is_refused(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(disk))
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setattr("melanoma_dist.distributed.preflight._MAX_LENGTH", 200)
    with pytest.raises(ConfigError, match=rf"TMPDIR {disk}: Ray needs 268 MB .* and 1 MB are free .* set TMPDIR to"):
        check_temporary()


def test_the_temporary_folder_leaves_room_for_the_names_of_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/" + 30 * "x")
    assert temporary_base() == "/tmp"  # noqa: S108  # that is the point
    monkeypatch.setenv("RAY_TMPDIR", "/short")
    assert temporary_base() == "/short"


def test_dockers_default_shared_memory_is_refused_for_several_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(2**26, 0, 2**26))
    check_shared_memory(2)
    rule = r"/dev/shm: 8 ranks .* need 268 MB .* 67 MB are free. In Docker: `docker run --shm-size=1g`"  # noqa: S108  # a message
    with pytest.raises(ConfigError, match=rule):
        check_shared_memory(8)
