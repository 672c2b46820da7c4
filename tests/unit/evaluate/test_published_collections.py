"""Each built-in collection, as published and with real photographs, is trained in two folds and evaluated."""

from __future__ import annotations

from pathlib import Path

import pytest

from melanoma_dist.artifacts.summary import read_summary
from melanoma_dist.cli import main
from melanoma_dist.data.manifest import load_dataset

from ..data.sources.published import LAYOUTS, needs_isic
from .holdout.conftest import _threads, trained

__all__ = ["_threads"]
pytestmark = needs_isic


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_published_collection_is_audited_trained_and_evaluated(name: str, tmp_path: Path) -> None:
    raw, data = tmp_path / "raw", tmp_path / "data"
    LAYOUTS[name](raw)
    holdout = "derm7pt-test" if name == "derm7pt" else "holdout"
    command = ["data", "prepare", "--source", name, "--raw", str(raw), "--out", str(data), "--size", "64"]
    command += [] if name == "derm7pt" else ["--holdout", "0.25"]
    assert main([*command, "--allow-incomplete-tables"]) == 0
    audit = ["data", "audit", "--data", str(data), "--labels", "MEL,NV", "--folds", "2"]
    assert main([*audit, "--html", str(tmp_path / "audit.html")]) == 0
    run = trained(tmp_path / "runs", load_dataset(data), batch_size=4, labels="MEL,NV")
    assert main(["evaluate", str(run), "--holdout", holdout, "--gpus", "0", "--decode-threads", "1"]) == 0
    summary = read_summary(run)
    assert summary.data.years == (name,)
    assert summary.data.terms[name].startswith("licence ")
    has_patients = name in ("padufes20", "isic2020")
    assert (summary.data.patients is not None) == has_patients
    assert summary.out_of_fold.groups == ("patients" if has_patients else "lesions")
