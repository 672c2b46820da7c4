"""A checkpoint of a real model, cut at every block and flipped at random bits: it never loads, the one before does."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from melanoma_dist.config.model import ModelConfig
from melanoma_dist.errors import TrainingError
from melanoma_dist.models.classifier import build_classifier
from melanoma_dist.storage import atomic
from melanoma_dist.train.checkpoint import Checkpoints, Cursor

BLOCK = 4096
FLIPS = 200
DIGEST = "0" * 64
NEWEST = Cursor(1).name


class Trained:
    """Two checkpoints of one small model, and the warnings of the last search for the newest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.warnings: list[str] = []
        self.checkpoints = Checkpoints(folder, self.warnings.append)
        model = build_classifier(ModelConfig(backbone="test_efficientnet", weights="none"), 32, 8, 0)
        optimizer = torch.optim.Adam(model.parameters())
        for epoch in (0, 1):
            model(torch.rand(2, 3, 32, 32)).sum().backward()
            optimizer.step()
            self.checkpoints.save_best(epoch, model.state_dict())
            state = {"epoch": epoch, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
            self.checkpoints.save(Cursor(epoch), state, keep_best=epoch)

    def newest(self) -> int:
        self.warnings.clear()
        name = self.checkpoints.newest()
        assert name is not None
        return int(self.checkpoints.load(name)["epoch"])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(tmp_path_factory.mktemp("unit") / "checkpoints")


def cuts(path: Path) -> Iterator[int]:
    """Truncate the file at every block, from the last to the first; restore it afterwards."""
    whole = path.read_bytes()
    for size in range((len(whole) - 1) // BLOCK * BLOCK, -1, -BLOCK):
        os.truncate(path, size)
        yield size
    path.write_bytes(whole)


def flips(path: Path) -> Iterator[int]:
    """Flip one bit of the file, at random bits; restore it afterwards."""
    whole = path.read_bytes()
    for bit in np.random.default_rng(0).integers(8 * len(whole), size=FLIPS).tolist():
        turned = bytearray(whole)
        turned[bit // 8] ^= 1 << bit % 8
        path.write_bytes(turned)
        yield bit
    path.write_bytes(whole)


@pytest.mark.parametrize("corruptions", [cuts, flips])
@pytest.mark.parametrize("file", ["state.pt", "manifest.json", "best.txt"])
def test_no_corrupt_state_is_loaded(trained: Trained, file: str, corruptions: Any) -> None:
    count = 0
    for where in corruptions(trained.folder / NEWEST / file):
        assert trained.newest() == 0, where
        assert len(trained.warnings) == 1
        assert f"{NEWEST} is corrupt" in trained.warnings[0]
        count += 1
    assert count >= (FLIPS if corruptions is flips else 1)
    assert trained.newest() == 1
    assert trained.warnings == []


@pytest.mark.parametrize("corruptions", [cuts, flips])
@pytest.mark.parametrize("file", ["model.safetensors", "manifest.json"])
def test_no_corrupt_weights_are_loaded(trained: Trained, file: str, corruptions: Any) -> None:
    for _ in corruptions(trained.folder / "best-0001" / file):
        with pytest.raises(TrainingError, match="best-0001 is corrupt"):
            trained.checkpoints.best(1)
    assert trained.checkpoints.best(1).is_file()


@pytest.mark.parametrize("files", [
    {f"../{NEWEST}/state.pt": DIGEST},
    {"/etc/passwd": DIGEST},
    {f"{number}": DIGEST for number in range(20_000)},
    {"state.pt": 7, "best.txt": None},
    {"best.txt": DIGEST},
    ["state.pt"],
])  # fmt: skip
def test_a_foreign_manifest_is_corrupt(trained: Trained, files: Any) -> None:
    place = trained.folder / NEWEST / "manifest.json"
    whole = place.read_bytes()
    place.write_text(json.dumps({"files": files}))
    try:
        assert trained.newest() == 0
        assert f"{NEWEST} is corrupt (manifest.json" in trained.warnings[0]
    finally:
        place.write_bytes(whole)


def test_a_manifest_must_name_the_state(trained: Trained) -> None:
    place = trained.folder / NEWEST
    whole = (place / "manifest.json").read_bytes()
    (place / "manifest.json").write_text(json.dumps({"files": {"best.txt": atomic.sha256(place / "best.txt")}}))
    try:
        assert trained.newest() == 0
        assert "manifest.json does not name state.pt" in trained.warnings[0]
    finally:
        (place / "manifest.json").write_bytes(whole)
