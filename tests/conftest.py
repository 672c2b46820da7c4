"""The real command in its own processes, on data shared by all tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from melanoma_dist.data.prepare import Request, prepare

ROOT = Path(__file__).resolve().parents[1]
SMALL = [
    *("--data", "demo", "--gpus", "0", "--backbone", "test_resnet", "--weights", "none", "--image-size", "32"),
    *("--labels", "isic2018", "--augment", "light", "--lr", "1e-3", "--epochs", "2", "--folds", "2"),
    "--keep-checkpoints",  # tests compare them
]

Launch = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """One copy of the demo data for all tests, outside the user's cache."""
    return {**os.environ, "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache"))}


@pytest.fixture(scope="session")
def launch(environment: dict[str, str]) -> Launch:
    """Run launch.py to its end."""

    def run(*flags: str | Path, timeout: float = 500) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "launch.py"), *map(str, flags)]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment)

    return run


@pytest.fixture(scope="session")
def finished(launch: Launch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an undisturbed run of ``SMALL``."""
    runs = tmp_path_factory.mktemp("runs")
    done = launch(*SMALL, "--runs", runs, "--name", "whole")
    assert done.returncode == 0, done.stdout + done.stderr
    (runs / "whole" / "stdout.txt").write_text(done.stdout)
    return runs / "whole"


@pytest.fixture(scope="session")
def real_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 real images of ISIC 2017, prepared: 12 melanomas, 12 seborrheic keratoses, 12 nevi."""
    folder = os.environ.get("MELANOMA_DIST_ISIC")
    if not folder:
        pytest.skip("MELANOMA_DIST_ISIC names no folder with real ISIC images")
    raw = tmp_path_factory.mktemp("raw")
    table = pd.read_csv(Path(folder) / "2017" / "ISIC-2017_Training_Part3_GroundTruth.csv")
    few = table.groupby(["melanoma", "seborrheic_keratosis"]).head(12)
    (raw / "2017").mkdir()
    few.to_csv(raw / "2017" / "ISIC-2017_Training_Part3_GroundTruth.csv", index=False)
    (raw / "2017" / "ISIC-2017_Training_Data").mkdir()
    for name in few["image_id"]:
        part = f"ISIC-2017_Training_Data/{name}.jpg"
        (raw / "2017" / part).write_bytes((Path(folder) / "2017" / part).read_bytes())
    out = tmp_path_factory.mktemp("prepared") / "data"
    prepare(Request(raw, ("2017",)), out)
    return out
