"""A user's mistakes: one message, exit code 2, no traceback, nothing left behind."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tests.ray.conftest import SMALL, Launch


def test_mistakes_are_told_in_one_message(launch: Launch, tmp_path: Path) -> None:
    empty, partial, foreign = tmp_path / "empty", tmp_path / "partial", tmp_path / "foreign.safetensors"
    empty.mkdir()
    partial.mkdir()
    (partial / "manifest.parquet").write_bytes(b"half")
    save_file({"layer.weight": torch.zeros(3, 3)}, foreign)
    (tmp_path / "file").write_text("")
    cases = {
        "Near it: densenet201": ["--backbone", "densnet201"],
        "no data was named": ["--data", "None"],
        "no such folder": ["--data", str(tmp_path / "nowhere")],
        "the folder is empty": ["--data", str(empty)],
        "unfinished data set": ["--data", str(partial)],
        "must be 2 to 20": ["--folds", "500"],
        "Perhaps you meant": ["--backbon", "x"],
        "does not fit": ["--weights", str(foreign)],
        "cannot be written": ["--runs", str(tmp_path / "file")],
        "there is no GPU here": ["--gpus", "4"],
        "Nearest with weights": ["--backbone", "resnet152v2", "--weights", "imagenet"],
        "at most": ["--batch-size", "5000"],
    }
    if torch.cuda.is_available():
        del cases["there is no GPU here"]
    wrong = {}
    for expected, flags in cases.items():
        done = launch(*SMALL, "--runs", tmp_path / "runs", *flags)
        text = done.stdout + done.stderr
        if done.returncode != 2 or expected.lower() not in text.lower() or "Traceback" in text:
            wrong[expected] = (done.returncode, text[-1500:])
    assert wrong == {}
    assert not (tmp_path / "runs").exists()


@pytest.mark.usefixtures("real_data")
def test_labels_and_folds_that_the_data_cannot_give(launch: Launch, real_data: Path, tmp_path: Path) -> None:
    flags = [*SMALL, "--data", str(real_data), "--runs", tmp_path / "runs"]
    lacking = launch(*flags, "--labels", "isic2019")
    assert lacking.returncode == 2
    assert "isic2017" in lacking.stderr
    too_many = launch(*flags, "--labels", "isic2017", "--folds", "20")
    assert too_many.returncode == 2
    assert "At most --folds 12" in too_many.stderr
    damaged = tmp_path / "damaged"
    shutil.copytree(real_data, damaged)
    next(damaged.glob("shard-*.tar")).unlink()
    missing = launch(*flags, "--data", str(damaged), "--labels", "isic2017")
    assert missing.returncode == 2
    assert "shard" in missing.stderr
