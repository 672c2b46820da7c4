"""A whole run on the CPU: its files, its output, and the same results twice."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import average_precision_score, precision_score, recall_score, roc_auc_score
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from melanoma_dist import load_run
from tests.conftest import SMALL, Launch

LABELS = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")


def test_the_run_leaves_what_the_design_says(finished: Path) -> None:
    expected = ["config.yaml", "record.json", "folds.parquet", "predictions.parquet", "summary.json", "report.html"]
    expected += ["decision_rules.json"]
    expected += [f"model/fold-{fold}.safetensors" for fold in (0, 1)]
    expected += [f"fold-{fold}/{name}" for fold in (0, 1) for name in ("metrics.jsonl", "predictions.parquet")]
    assert [name for name in expected if not (finished / name).is_file()] == []
    assert not list(finished.rglob(".ray-*"))
    assert not list(finished.rglob("*.tmp"))


def test_ids_of_images_and_lesions_are_where_security_md_says_and_nowhere_else(finished: Path) -> None:
    table = pd.read_parquet(finished / "folds.parquet")
    ids = re.compile(b"|".join({re.escape(each).encode() for each in {*table["image_id"], *table["group"]}}))
    tables = {
        "folds.parquet",
        "predictions.parquet",
        "predictions.csv",
        *(f"fold-{fold}/predictions.parquet" for fold in (0, 1)),
    }
    files = {str(path.relative_to(finished)): path for path in finished.rglob("*") if path.is_file()}
    with_ids = {name for name, path in files.items() if ids.search(path.read_bytes()) or ids.search(name.encode())}
    with_ids -= {name for name in files if name.startswith("gallery/")}
    assert "report.html" in with_ids
    assert with_ids <= {*tables, "report.html"}


def test_predictions_hold_every_image_once_by_the_fold_that_did_not_train_on_it(finished: Path) -> None:
    table, folds = pd.read_parquet(finished / "predictions.parquet"), pd.read_parquet(finished / "folds.parquet")
    by_label = [f"{label}{suffix}" for suffix in ("", "_true", "_calibrated") for label in LABELS]
    assert list(table.columns) == ["image_id", "group", "fold", *by_label]
    assert table["image_id"].is_unique
    keys = ["image_id", "group", "fold"]
    pd.testing.assert_frame_equal(table[keys], folds.sort_values("image_id", ignore_index=True))
    assert {str(table[label].dtype) for label in LABELS} == {"float32"}


def test_every_metric_is_scikit_learns_on_the_predictions(finished: Path) -> None:
    table, summary = (
        pd.read_parquet(finished / "predictions.parquet"),
        json.loads((finished / "summary.json").read_text()),
    )
    parts = [(summary["out_of_fold"]["by_image"], table)]
    parts += [(entry, table[table["fold"] == int(fold)]) for fold, entry in summary["folds"].items()]
    for entry, rows in parts:
        for label in LABELS:
            truth, score = rows[f"{label}_true"].to_numpy(), rows[label].to_numpy()
            metrics = entry["labels"][label]
            assert metrics["auc"] == pytest.approx(roc_auc_score(truth, score))
            assert metrics["average_precision"] == pytest.approx(average_precision_score(truth, score))
            assert metrics["sensitivity"] == pytest.approx(recall_score(truth, score >= 0.5))
            if metrics["precision"] is not None:
                assert metrics["precision"] == pytest.approx(precision_score(truth, score >= 0.5))
        assert entry["macro"]["auc"] == pytest.approx(np.mean([entry["labels"][label]["auc"] for label in LABELS]))


def test_synthetic_data_is_called_synthetic_everywhere(finished: Path) -> None:
    assert json.loads((finished / "summary.json").read_text())["synthetic"] is True
    assert "SYNTHETIC" in (finished / "report.html").read_text()
    assert "SYNTHETIC" in (finished / "stdout.txt").read_text()


def test_tensorboard_reads_the_events_of_a_fold_and_of_the_run(finished: Path) -> None:
    fold = EventAccumulator(str(finished / "fold-0")).Reload()
    scalars = fold.Tags()["scalars"]
    assert {"train/loss", "train/learning_rate", "input/wait_share", "input/images_per_s"} <= set(scalars)
    assert {f"validation_auc/{label}" for label in LABELS} <= set(scalars)
    assert {"validation/loss", "train/gradient_norm"} <= set(scalars)
    assert len(fold.Scalars("validation_auc/MEL")) == 2
    assert fold.Tags()["images"] == ["validation/examples"]
    assert "validation/MEL" in fold.Tags()["tensors"]
    run = EventAccumulator(str(finished)).Reload()
    assert all(tag.startswith("hparam/") for tag in run.Tags()["scalars"])


def test_the_same_command_says_that_it_is_finished(finished: Path, launch: Launch) -> None:
    before = (finished / "predictions.parquet").stat().st_mtime_ns
    again = launch(*SMALL, "--runs", finished.parent, "--name", "whole")
    assert again.returncode == 0
    assert "This run is finished" in again.stdout
    assert "out of fold" in again.stdout
    assert (finished / "predictions.parquet").stat().st_mtime_ns == before


def test_checkpoints_go_at_the_end_and_the_run_is_shown_without_them(
    finished: Path, launch: Launch, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "whole"))
    assert list(run.glob("fold-*/checkpoints/*"))
    for _ in range(2):
        again = launch(*SMALL, "--no-keep-checkpoints", "--runs", tmp_path, "--name", "whole")
        assert again.returncode == 0, again.stderr
        assert "This run is finished" in again.stdout
        assert not list(run.rglob("checkpoints"))
    assert load_run(run).ensemble().weights_sha256.keys() == {0, 1}


def test_the_output_in_a_pipe_is_plain_lines(finished: Path) -> None:
    text = (finished / "stdout.txt").read_text()
    assert all(mark == "\n" or mark.isprintable() for mark in text)
    *_, conclusion, report, predictions, metrics, models, curves = text.splitlines()
    assert re.match(r"Melanoma AUC 0\.\d{3} \(.*\) over \d+ synthetic images in 2 folds, ", conclusion)
    for line, path in zip(
        (report, predictions, metrics, models), ("report.html", "predictions.csv", "summary.json", "model"), strict=True
    ):
        assert line.split(maxsplit=1)[1] == str(finished / path)
    assert curves.endswith(f"tensorboard --logdir {finished.parent}")


def test_another_configuration_is_refused_in_the_same_folder(finished: Path, launch: Launch) -> None:
    other = launch(*SMALL, "--runs", finished.parent, "--name", "whole", "--seed", "1")
    assert other.returncode == 2
    assert "seed: 0 there, 1 now" in other.stderr
    assert "Traceback" not in other.stderr


@pytest.mark.slow
def test_ranks_of_a_worker_group_train_one_fold_together(launch: Launch, tmp_path: Path) -> None:
    flags = ["--ranks-per-unit", "2", "--decode-threads", "3", "--epochs", "1", "--runs", tmp_path, "--name", "ranks"]
    done = launch(*SMALL, *flags)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 fold at a time on 2 CPU ranks each" in done.stdout
    table = pd.read_parquet(tmp_path / "ranks" / "predictions.parquet")
    assert table["image_id"].is_unique
    assert len(table) == len(pd.read_parquet(tmp_path / "ranks" / "folds.parquet"))
    newest = max((tmp_path / "ranks" / "fold-1").glob("checkpoints/epoch-*"))
    state = torch.load(newest / "state.pt", weights_only=True)
    assert state["arithmetic"]["decode_threads"] == 3


@pytest.mark.long
def test_repeats_train_the_same_folds_with_other_seeds(finished: Path, launch: Launch, tmp_path: Path) -> None:
    done = launch(*SMALL, "--repeats", "2", "--runs", tmp_path, "--name", "twice")
    assert done.returncode == 0, done.stdout + done.stderr
    run = tmp_path / "twice"
    first, second = (pd.read_parquet(place / "predictions.parquet") for place in (run, run / "seed-1"))
    pd.testing.assert_frame_equal(first, pd.read_parquet(finished / "predictions.parquet"), check_exact=True)
    pd.testing.assert_frame_equal(first[["image_id", "group", "fold"]], second[["image_id", "group", "fold"]])
    assert (first["MEL"] != second["MEL"]).any()
    repeats = json.loads((run / "summary.json").read_text())["seed_repeats"]
    assert repeats["seeds"] == [0, 1]
    for fold in (0, 1):
        rows = second[second["fold"] == fold]
        assert repeats["auc"]["MEL"][fold][1] == pytest.approx(roc_auc_score(rows["MEL_true"], rows["MEL"]))
    assert "seed 1 fold 0 done" in done.stdout
