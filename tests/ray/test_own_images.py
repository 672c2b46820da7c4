"""A hospital's photographs and CSV, with patients and a label of its own, go through all commands."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from melanoma_dist.data.lesion import draw_lesion, photograph
from melanoma_dist.data.manifest import load_dataset
from tests.conftest import Launch

pytestmark = pytest.mark.slow
TRAINING = [
    *("--gpus", "0", "--backbone", "test_resnet", "--weights", "none", "--image-size", "32"),
    *("--labels", "MEL,NV,OTHER", "--epochs", "1", "--folds", "2", "--tta", "1", "--batch-size", "8"),
]
WORDS = {"MEL": "malignant melanoma", "NV": "Naevus", "DF": "scar"}


def hospital(folder: Path) -> Path:
    """40 photographs of 20 lesions of 10 patients; the last two patients are the test."""
    rng, rows = np.random.default_rng(0), []
    (folder / "photos").mkdir(parents=True)
    for number in range(40):
        lesion = number // 2
        kind = ("MEL", "NV", "NV", "DF")[lesion % 4]
        Image.fromarray(photograph(rng, draw_lesion(rng, kind))).save(folder / "photos" / f"visit {number}.jpg")
        split = "test" if number >= 32 else "train"
        rows.append((f"visit {number}.jpg", WORDS[kind], f"L{lesion}", f"P{lesion // 2}", 30 + lesion, "w", split))
    header = ["photo", "diagnosis", "lesion", "patient", "age", "sex", "split"]
    pd.DataFrame(rows, columns=header).to_csv(folder / "lesions.csv", index=False)
    return folder


@pytest.mark.timeout(900)
def test_a_hospital_goes_from_its_csv_to_an_evaluation(tmp_path: Path, launch: Launch) -> None:
    raw = hospital(tmp_path / "hospital")

    def run(*words: str | Path) -> str:
        done = launch(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        return str(done.stdout)

    proposal = run("data", "describe", raw / "lesions.csv")
    description = tmp_path / "hospital.yaml"
    description.write_text(proposal.replace("scar: CHOOSE", "scar: OTHER").replace("w: unknown", "w: female"))
    data, runs = tmp_path / "data", tmp_path / "runs"
    run("data", "prepare", "--source", description, "--raw", raw, "--out", data)
    images = load_dataset(data).manifest
    assert len(images) == 40
    assert images["sex"].eq("female").all()
    assert images["group"].nunique() == images["patient_id"].nunique() == 10
    audit = run(
        "data", "audit", "--data", data, "--labels", "MEL,NV,OTHER", "--folds", "2", "--html", tmp_path / "a.html"
    )
    assert re.search(r"no patient lies in two folds\W+passed", audit)
    assert re.search(r"together\W+10\W+40\W+0\W+10", audit)
    run("--data", data, *TRAINING, "--runs", runs, "--name", "own")
    run("evaluate", runs / "own", "--holdout", "lesions-test", "--gpus", "0")
    run("predict", runs / "own", raw / "photos", "--out", tmp_path / "answers.csv", "--gpus", "0")
    answers = pd.read_csv(tmp_path / "answers.csv")
    assert len(answers) == 40
    assert {"MEL", "NV", "OTHER"} <= set(answers)
    folds = pd.read_parquet(runs / "own" / "folds.parquet").merge(images[["image_id", "patient_id"]], on="image_id")
    assert len(folds) == 32
    assert folds.groupby("patient_id")["fold"].nunique().eq(1).all()
    report = unescape((runs / "own" / "report.html").read_text())
    assert "resamples of whole patients" in report
    assert "32 images of 16 lesions of 8 known patients in 2 folds" in report
    assert "The folds share no lesion and no patient" in report
