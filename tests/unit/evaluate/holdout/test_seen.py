"""Images that a run has seen: left out on request, and never behind the weights that another run starts from."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from melanoma_dist.cli import main
from melanoma_dist.config.model import ModelConfig
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.data.prepare import Request, prepare
from melanoma_dist.errors import ConfigError
from melanoma_dist.evaluate.holdout.contamination import refuse_weights_that_saw, training_images
from melanoma_dist.inference.trained_run import open_trained_run

from ...data.conftest import Raw
from .commands import record, results, run_evaluate
from .conftest import write_photograph

UNSEEN = range(300, 312)


@pytest.fixture
def mixed(finished: Path, data: Dataset, tmp_path: Path) -> Dataset:
    """Twelve unseen lesions, a copy of a trained image, and a second photograph of a trained lesion."""
    raw = Raw(tmp_path / "raw")
    for number in UNSEEN:
        raw.image_2019(number, "MEL" if number % 2 else "NV", lesion=f"LESION_{number:04d}", size=(64, 48))
    trained = open_trained_run(finished).trained(data).table
    raw.image_2019(400, "NV", size=(64, 48))
    write_photograph(raw, 400, like=int(trained["image_id"].iloc[0].removeprefix("ISIC_")))
    raw.image_2019(401, "NV", lesion=str(trained["lesion_id"].iloc[3]), size=(64, 48))
    return prepare(Request(raw.folder, ("2019",), size=64, synthetic=True), tmp_path / "mixed")


def test_seen_images_are_left_out_on_request(run: Path, mixed: Dataset, capfd: pytest.CaptureFixture[str]) -> None:
    refusal = run_evaluate(capfd, run, "--data", mixed.folder, code=2)
    assert "2 of 14 images are not unseen" in refusal
    assert "Leave them out with --exclude-seen" in refusal
    assert not list(run.glob("evaluations/*"))
    text = run_evaluate(capfd, run, "--data", mixed.folder, "--exclude-seen")
    logged = record(run, "001-mixed")
    assert list(logged.excluded) == ["ISIC_0000400", "ISIC_0000401"]
    assert "its file was, as ISIC_" in logged.excluded["ISIC_0000400"]
    assert "its lesion LESION_" in logged.excluded["ISIC_0000401"]
    for place in (text, " ".join((run / "report.html").read_text().split())):
        assert "2 images are left out, because the run was trained on them" in place
        assert "ISIC_0000401 (its lesion LESION_" in place
    scored = pd.read_parquet(run / "evaluations/001-mixed/predictions.parquet")["image_id"]
    assert scored.tolist() == [f"ISIC_{number:07d}" for number in UNSEEN]
    listed = pd.read_parquet(run / "evaluations/001-mixed/images.parquet")["image_id"]
    assert listed.tolist() == scored.tolist()
    assert logged.data.images == results(run, "001-mixed").ensemble.images == len(UNSEEN)


def test_a_data_set_of_seen_images_alone_is_refused_with_another_remedy(
    run: Path, data: Dataset, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    raw = Raw(tmp_path / "raw")
    lesions = open_trained_run(run).trained(data).table["lesion_id"]
    for number in range(500, 503):
        raw.image_2019(number, "NV", lesion=str(lesions.iloc[number - 500]), size=(64, 48))
    related = prepare(Request(raw.folder, ("2019",), size=64, synthetic=True), tmp_path / "seen")
    refusal = run_evaluate(capfd, run, "--data", related.folder, "--exclude-seen", code=2)
    assert "3 of 3 images are not unseen" in refusal
    assert "--exclude-seen" not in refusal
    assert not list(run.glob("evaluations/*"))


def test_nothing_to_leave_out_changes_nothing(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "left out" not in run_evaluate(capfd, run, "--holdout", "holdout", "--exclude-seen")
    assert record(run, "001-holdout").excluded == {}


def test_a_training_does_not_start_from_a_model_that_saw_its_images(
    run: Path, data: Dataset, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    weights = run / "model/fold-0.safetensors"
    flags = ["--data", str(data.folder), "--backbone", "test_resnet", "--weights", str(weights), "--folds", "2"]
    assert main([*flags, "--gpus", "0", "--batch-size", "9", "--runs", str(tmp_path / "new")]) == 2
    message = capfd.readouterr().err
    assert f"--weights {weights}: is the model of a run that was trained on" in message
    assert not (tmp_path / "new").exists()


def test_a_start_on_other_images_is_free_and_counts_later(
    run: Path, data: Dataset, other_data: Dataset, tmp_path: Path
) -> None:
    weights = run / "model/fold-0.safetensors"
    refuse_weights_that_saw(other_data, ModelConfig("test_resnet", str(weights)))
    first = open_trained_run(run)
    second = replace(first, config=replace(first.config, model=replace(first.config.model, weights=str(weights))))
    own, start = training_images(second, data)
    assert np.array_equal(own.rows, start.rows)
    moved = Path(shutil.copy(weights, tmp_path / "elsewhere.safetensors"))
    with pytest.raises(ConfigError, match="which images it was trained on is not known"):
        refuse_weights_that_saw(other_data, ModelConfig("test_resnet", str(moved)))
    for other in ("imagenet", "none", str(data.folder / "manifest.parquet")):
        refuse_weights_that_saw(data, ModelConfig("test_resnet", other))
