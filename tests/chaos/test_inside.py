"""Faults inside a training, by the real command: it continues with a fallback and reports it to the end."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from melanoma_dist.data.manifest import load_dataset

from .conftest import Command


@pytest.mark.slow
def test_steps_on_nan_are_skipped_and_too_large_micro_batches_halved(command: Command) -> None:
    """Promise e: no metric is computed from NaN, and the fallback is reported."""
    command.plan("train.step:TrainStep.step", 3, do="nan", fold=0)
    command.plan("train.step:TrainStep.step", 5, do="memory", fold=1)
    done = command.give("--checkpoint-every", "1s")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "epoch 1: 1 steps skipped, their gradient was not finite" in done.stdout
    assert "resumes from its last checkpoint, and splits each rank's batch into 2 micro-batches" in done.stdout
    assert "restart 1 of" not in done.stdout  # it is no crash
    assert incidents(command) == [
        "fold 0 skipped steps whose gradient was not finite: 1 in epoch 1.",
        "fold 1 computed each rank's share of a step in 2 micro-batches instead of 1 from epoch 1 on, for want of "
        "memory.",
    ]
    assert "note: fold 0 skipped steps" in done.stdout
    assert "fold 0 skipped steps" in (command.run / "report.html").read_text()
    assert "fold 0 skipped steps" in (command.run / "model" / "README.md").read_text()
    assert pd.read_parquet(command.run / "predictions.parquet").filter(regex="^[A-Z]+$").notna().all(axis=None)


@pytest.mark.long
def test_more_steps_on_nan_than_allowed_end_the_run_with_one_message(command: Command) -> None:
    command.plan("train.step:TrainStep.step", 3, do="nan", fold=0)
    done = command.give("--max-skipped-steps", "0")
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr.count("error:") == 1
    assert "lastly step 3, were skipped" in done.stderr
    assert not (command.run / "summary.json").exists()


@pytest.mark.long
def test_an_image_that_becomes_corrupt_is_named_and_excluded(command: Command, finished: Path, tmp_path: Path) -> None:
    """Promise e. The finished fold 0 validated on this image."""
    (demo,) = (Path(command.environment["XDG_CACHE_HOME"]) / "melanoma-dist").glob("demo-*/prepared")
    data = tmp_path / "data"
    shutil.copytree(demo, data)
    folds = pd.read_parquet(finished / "folds.parquet")
    name = folds.loc[folds["fold"] == 0, "image_id"].iloc[7]
    place = load_dataset(data).manifest.set_index("image_id").loc[name]
    middle = int(place["offset"]) + int(place["length"]) // 2
    command.plan("train.step:TrainStep.step", 4, do=f"spoil {middle} 40 {data / place['shard']}", fold=1)
    one_core = command.give("--data", str(data), program=("taskset", "--cpu-list", "0"))
    left_out = f"does not train on 1 corrupt images: {name}"
    assert left_out in one_core.stdout, one_core.stdout + one_core.stderr
    assert one_core.returncode in (0, 2)  # its report may want to show that very image
    shutil.copyfile(demo / place["shard"], data / place["shard"])
    done = command.give("--data", str(data))
    assert done.returncode == 0, done.stdout + done.stderr
    assert incidents(command) == [f"fold 1 did not train on 1 corrupt images: {name}."]


def incidents(command: Command) -> list[str]:
    incidents: list[str] = json.loads((command.run / "summary.json").read_text())["incidents"]
    return incidents
