"""The four backbones of the literature complete two folds on real images at their own input size."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import Launch

SIZES = {"resnet152v2": 299, "inceptionv3": 299, "densenet201": 224, "inceptionresnetv2": 299}


# The one that trains fastest is enough for every change.
MARKS = dict.fromkeys(SIZES, pytest.mark.long) | {"densenet201": pytest.mark.slow}


@pytest.mark.parametrize("backbone", [pytest.param(name, marks=MARKS[name]) for name in SIZES])
def test_two_folds_of_a_backbone(backbone: str, real_data: Path, launch: Launch, tmp_path: Path) -> None:
    flags = (
        f"--backbone {backbone} --weights none --labels isic2017 --gpus 0 --folds 2 --epochs 1 --batch-size 9".split()
    )
    done = launch(*flags, "--data", real_data, "--runs", tmp_path, "--name", "run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{SIZES[backbone]}x{SIZES[backbone]} input" in done.stdout
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["synthetic"] is False
    assert 0 <= summary["out_of_fold"]["by_image"]["labels"]["MEL"]["auc"] <= 1
    assert len(pd.read_parquet(tmp_path / "run" / "predictions.parquet")) == 36
