"""Segmentation runs: evaluated on unseen masks, compared with each other, and reported."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import jaccard_score

from melanoma_dist.artifacts.evaluation import read_evaluation
from melanoma_dist.artifacts.mask_gallery import read_mask_pictures
from melanoma_dist.artifacts.mask_summary import read_mask_summary
from melanoma_dist.artifacts.run_folder import RunFolder
from melanoma_dist.cli import main
from melanoma_dist.config.flags import parse_with_file
from melanoma_dist.config.segment import SegmentConfig
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.data.masks import decode_mask
from melanoma_dist.data.shards import ShardReader
from melanoma_dist.evaluate.holdout.access_history import read_history
from melanoma_dist.evaluate.masks.report import write_mask_report
from melanoma_dist.evaluate.tracking import open_tracker
from melanoma_dist.inference.images import Images, select_holdout
from melanoma_dist.inference.segmenter import open_segmenter
from melanoma_dist.metrics.segmentation import FAILURE, METRICS
from melanoma_dist.train.mask_predict import mask_at
from melanoma_dist.world import World

from ...segmenters import masked_dataset, segmenter_run
from ..holdout.commands import run_on_cpu


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return masked_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, data: Dataset) -> Path:
    """Two runs over the same folds."""
    place = tmp_path_factory.mktemp("runs")
    segmenter_run(place, data, "first")
    segmenter_run(place, data, "second", lr=1e-2)
    return place


@pytest.fixture
def copies(runs: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(runs, tmp_path / "runs"))


@pytest.mark.filterwarnings("ignore")  # of MLflow's own
def test_a_tracker_gets_the_scores_of_a_segmenter(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="the extra melanoma-dist[mlflow] is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    summary = read_mask_summary(runs / "first")
    folder = RunFolder(runs / "first", summary.identity)
    config = parse_with_file(
        SegmentConfig, ["--config", str(runs / "first" / "config.yaml"), "--track", "mlflow"], "segment"
    )
    with open_tracker(config, folder) as tracker:
        tracker.finish(summary, folder.report)
    (run,) = mlflow.search_runs(experiment_names=["melanoma-dist"], output_format="list")
    table = pd.read_parquet(folder.predictions)
    assert run.data.metrics["out_of_fold/jaccard"] == pytest.approx(table["jaccard"].mean())
    assert run.data.metrics["out_of_fold/jaccard_low"] <= run.data.metrics["out_of_fold/jaccard"]
    assert run.data.params["loss.dice_weight"] == "0.5"
    assert Path(run.data.tags["report"]) == folder.report.resolve()


def test_two_seeds_separate_the_variance_of_seeds_from_that_of_folds(runs: Path, data: Dataset, tmp_path: Path) -> None:
    run = segmenter_run(tmp_path, data, "repeated", repeats=2)
    summary, first = read_mask_summary(run), read_mask_summary(runs / "first")
    assert summary.out_of_fold == first.out_of_fold  # the first seed is a run of its own
    tables = [pd.read_parquet(place / "predictions.parquet").groupby("fold") for place in (run, run / "seed-1")]
    expected = np.column_stack([table["jaccard"].mean() for table in tables])
    assert summary.seed_repeats is not None
    assert summary.seed_repeats.seeds == (0, 1)
    assert np.array(summary.seed_repeats.jaccard) == pytest.approx(expected)
    assert summary.seed_repeats.components.mean == pytest.approx(expected.mean())
    assert expected[0, 0] != expected[0, 1]
    assert "Each fold was trained with seeds 0, 1" in (run / "report.html").read_text()
    assert "between seeds" not in (runs / "first" / "report.html").read_text()


def holdout(data: Dataset) -> Images:
    return select_holdout(data, "holdout", ()).images


def test_unseen_masks_are_scored_by_the_mean_of_the_models_and_logged(
    copies: Path, data: Dataset, capfd: pytest.CaptureFixture[str]
) -> None:
    text = run_on_cpu(capfd, "evaluate", copies / "first", "--holdout", "holdout")
    assert "images are left out: they have no lesion mask" in text
    assert "No record in this folder of runs has an earlier evaluation" in text
    folder = copies / "first" / "evaluations" / "001-holdout"
    record, table, images = read_evaluation(folder), pd.read_parquet(folder / "predictions.parquet"), holdout(data)
    assert table["image_id"].tolist() == list(images.image_ids)
    assert record.masks is not None
    assert record.masks.scores["jaccard"].estimate == pytest.approx(table["jaccard"].mean())  # type: ignore[union-attr]
    run = open_segmenter(copies / "first", World())
    pixels, _ = next(iter(run.loader(images, len(images.rows))))
    shards = ShardReader(data)
    for at, row in enumerate(images.rows):
        truth = decode_mask(shards.mask(int(row)) or b"")
        predicted = mask_at(run.probabilities(pixels)[at], *truth.shape, run.threshold)
        expected = jaccard_score(truth.ravel(), predicted.ravel(), zero_division=0)
        assert table["jaccard"][at] == pytest.approx(expected, abs=0.02)  # other batches differ in their last digits
    assert "Unseen images: holdout (evaluation 1 of" in (copies / "first" / "report.html").read_text()


def test_a_second_evaluation_of_a_segmenter_is_marked_and_is_none_of_a_classifier(
    copies: Path, data: Dataset, capfd: pytest.CaptureFixture[str]
) -> None:
    run_on_cpu(capfd, "evaluate", copies / "first", "--holdout", "holdout")
    text = run_on_cpu(capfd, "evaluate", copies / "second", "--holdout", "holdout")
    assert "This is evaluation 2 on these images" in text
    assert "makes these scores optimistic" in (copies / "second" / "report.html").read_text()
    (copies / "classifier" / "evaluations").mkdir(parents=True)
    assert read_history(copies / "classifier", holdout(data)).earlier == ()


def test_flags_and_images_that_a_segmenter_cannot_be_evaluated_with(
    copies: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ("evaluate", copies / "first", "--holdout")
    assert "a segmenter has none" in run_on_cpu(capfd, *words, "holdout", "--prevalence", 0.1, code=2)
    assert "no holdout of that name" in run_on_cpu(capfd, *words, "2017-test", code=2)
    assert "is a run of `segment`" in run_on_cpu(capfd, "predict", copies / "first", copies, code=2)


def test_the_report_has_scores_failures_and_pictures(runs: Path, data: Dataset) -> None:
    run = runs / "first"
    page = (run / "report.html").read_text()
    scores = pd.read_parquet(run / "predictions.parquet")
    failed = scores[scores["jaccard"] < FAILURE]
    assert f"{len(failed)} of {len(scores)} masks have a Jaccard index below 0.65" in page
    assert all(f">{name}</th>" in page.replace("\n", "") for name in failed["image_id"])
    gallery = read_mask_pictures(run)
    assert gallery is not None
    worst, _, best = (kind.pictures for kind in gallery.kinds)
    assert (worst[0].jaccard, best[0].jaccard) == (scores["jaccard"].min(), scores["jaccard"].max())
    assert len(re.findall(r"data:image/jpeg;base64", page)) == sum(len(kind.pictures) for kind in gallery.kinds)
    with Image.open(run / "gallery" / worst[0].picture) as picture:
        pixels = np.asarray(picture).astype(int)
    assert (np.abs(pixels - (0x56, 0xB4, 0xE9)).sum(axis=2) < 90).any(), "the true outline"
    before = (run / "report.html").read_bytes()
    write_mask_report(run)
    assert (run / "report.html").read_bytes() == before


def test_two_segmenters_are_compared_by_paired_intervals(
    copies: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    text = run_alone(capfd, "compare", copies / "first", copies / "second", "--out", tmp_path / "out")
    assert "Jaccard" in text
    comparison = json.loads((tmp_path / "out" / "comparison.json").read_text())
    tables = [pd.read_parquet(copies / name / "predictions.parquet") for name in ("first", "second")]
    [pair] = comparison["pairs"]
    for name in METRICS:
        expected = (tables[0][name] - tables[1][name]).mean()
        assert pair["differences"][name]["estimate"] == pytest.approx(expected, abs=1e-6)
        assert pair["differences"][name]["low"] <= expected + 1e-9
    assert "differences and their intervals" in (tmp_path / "out" / "comparison.html").read_text()


def test_segmenters_that_cannot_be_compared(
    copies: Path, data: Dataset, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    other = segmenter_run(tmp_path / "others", data, "other", seed=1)
    text = run_alone(capfd, "compare", copies / "first", other, code=2)
    assert "images lie in different folds or groups" in text
    text = run_alone(capfd, "compare", copies / "first", copies / "second", "--holdout", "holdout", code=2)
    assert "has no finished evaluation on holdout" in text
    for name in ("first", "second"):
        run_on_cpu(capfd, "evaluate", copies / name, "--holdout", "holdout")
    text = run_alone(capfd, "compare", copies / "first", copies / "second", "--holdout", "holdout")
    assert "These images had been evaluated before: second (evaluation 2)" in text


def run_alone(capfd: pytest.CaptureFixture[str], *words: object, code: int = 0) -> str:
    """A command without flags of hardware."""
    status = main([*map(str, words)])
    captured = capfd.readouterr()
    text = re.sub(r"[│\s]+", " ", captured.out + captured.err)
    assert status == code, text
    return text
