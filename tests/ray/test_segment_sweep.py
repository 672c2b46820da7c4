"""A sweep of segmenters by the command, on real images: two encoders, and the best of them trained again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pandas as pd
import pytest
import yaml

import melanoma_dist
from melanoma_dist.artifacts.epochs import read_epochs
from melanoma_dist.data.prepare import Request, prepare
from tests.conftest import Launch

ENCODERS = ("test_resnet", "test_efficientnet")
SPACE = f"""from ray import tune
SPACE = {{"model.backbone": tune.choice({list(ENCODERS)})}}
"""
IMAGES, MASKS = "2018/ISIC2018_Task1-2_Training_Input", "2018/ISIC2018_Task1_Training_GroundTruth"


@pytest.fixture(scope="module")
def lesions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 real images of ISIC 2018 Task 1 with their masks, prepared."""
    folder = os.environ.get("MELANOMA_DIST_ISIC")
    if not folder:
        pytest.skip("MELANOMA_DIST_ISIC names no folder with real ISIC images")
    raw = tmp_path_factory.mktemp("raw")
    for part in (IMAGES, MASKS):
        (raw / part).mkdir(parents=True)
    for image in sorted((Path(folder) / IMAGES).glob("*.jpg"))[::40][:24]:
        for part in (f"{IMAGES}/{image.name}", f"{MASKS}/{image.stem}_segmentation.png"):
            (raw / part).write_bytes((Path(folder) / part).read_bytes())
    out = tmp_path_factory.mktemp("prepared") / "data"
    prepare(Request(raw, ("2018",), size=96), out)
    return out


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_sweep_over_two_encoders_ends_and_its_best_is_trained_to_the_same_scores(
    lesions: Path, launch: Launch, tmp_path: Path
) -> None:
    (tmp_path / "space.py").write_text(SPACE)
    flags = ["--data", lesions, "--gpus", "0", "--weights", "none", "--image-size", "64", "--batch-size", "4"]
    flags += ["--epochs", "2", "--folds", "2", "--runs", tmp_path]
    search = ["--space", tmp_path / "space.py", "--searcher", "grid", "--grace-epochs", "1", "--fold-race", "none"]
    search += ["--scheduler", "none"]
    done = launch("segment", "sweep", *search, *flags, "--name", "encoders")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Leaderboard: mean Jaccard over the folds (2 configurations)" in done.stdout
    sweep = tmp_path / "encoders"
    board = pd.read_csv(sweep / "leaderboard.csv", index_col="configuration")
    assert set(board["model.backbone"]) == set(ENCODERS)
    assert board["state"].tolist() == ["complete"] * 2
    for name, mean in zip(board["name"], board["mean_jaccard"], strict=True):
        best = [read_epochs(sweep / name / f"fold-{fold}")[-1].best_score for fold in range(2)]
        assert mean == pytest.approx(sum(best) / 2)
        assert json.loads((sweep / name / "summary.json").read_text())["task"] == "segmentation"
        assert (sweep / name / "report.html").is_file()
    results = melanoma_dist.load_sweep(sweep).get_dataframe()
    assert set(results["score_name"]) == {"Jaccard"}
    assert len(results) == 4
    best_yaml = yaml.safe_load((sweep / "best.yaml").read_text())
    assert (best_yaml["task"], best_yaml["model"]["backbone"]) == ("segmentation", board["model.backbone"].iloc[0])
    again = launch("segment", "--config", sweep / "best.yaml", "--name", "best")
    assert again.returncode == 0, again.stdout + again.stderr
    ours, theirs = (
        pd.read_parquet(run / "predictions.parquet") for run in (tmp_path / "best", sweep / board["name"].iloc[0])
    )
    pd.testing.assert_frame_equal(ours, theirs, check_exact=True)
