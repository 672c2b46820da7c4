"""A mistake ends with one message and exit code 2, and logs no evaluation."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from melanoma_dist.artifacts.integrity import write_weights_hash
from melanoma_dist.artifacts.run_folder import RunFolder
from melanoma_dist.cli import main
from melanoma_dist.data.manifest import MANIFEST, Dataset
from melanoma_dist.data.shards import ShardReader
from melanoma_dist.errors import ConfigError
from melanoma_dist.inference.trained_run import refuse_unfinished
from melanoma_dist.storage.atomic import sha256

from ...data.conftest import rewrite
from .commands import record, run_evaluate

Hurt = Callable[[Path], object]


def model(run: Path, fold: int = 0) -> Path:
    return run / f"model/fold-{fold}.safetensors"


def change_bytes(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 255
    path.write_bytes(bytes(content))


def as_pipe(path: Path) -> None:
    """Whoever opens it to read waits for ever."""
    path.unlink()
    os.mkfifo(path)


def accept_weights(run: Path) -> None:
    """Record the hash of whatever the weights are now."""
    write_weights_hash(run / "fold-0", model(run), sha256(model(run)))


def cut_model(run: Path) -> None:
    model(run).write_bytes(model(run).read_bytes()[:1000])
    accept_weights(run)


def swap_models(run: Path) -> None:
    shutil.copyfile(model(run, 1), model(run))
    accept_weights(run)


def edit_config(run: Path, old: str, new: str) -> None:
    path = run / "config.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def forget_data(run: Path) -> None:
    path = run / "record.json"
    stored = json.loads(path.read_text())
    del stored["identity"]["data"]
    path.write_text(json.dumps(stored))


def edit_rules(run: Path) -> None:
    """Another threshold, in a file that can be read."""
    path = run / "decision_rules.json"
    stored = json.loads(path.read_text())
    for rules in stored["labels"].values():
        for point in rules.get("points", []):
            point["threshold"] = 0.25
    path.write_text(json.dumps(stored))


@pytest.mark.parametrize(
    ("hurt", "expected"),
    [
        (shutil.rmtree, "is not the folder of a run"),
        (lambda run: (run / "summary.json").unlink(), "is not finished: it has no summary.json"),
        (
            lambda run: (run / "decision_rules.json").unlink(),
            "decision_rules.json: cannot be read ([Errno 2] No such file",
        ),
        (lambda run: (run / "decision_rules.json").write_text("{}"), "decision_rules.json: has schema null, must be 2"),
        (edit_rules, "decision_rules.json is not what summary.json was written with"),
        (
            lambda run: change_bytes(run / "predictions.parquet", 100),
            "predictions.parquet is not what summary.json was",
        ),
        (lambda run: model(run).unlink(), "the fold's model cannot be read (No such file"),
        (lambda run: as_pipe(model(run)), "the fold's model cannot be read (not a regular file"),
        (lambda run: change_bytes(model(run), -1), "differs from the file that the training wrote"),
        (lambda run: (run / "fold-0" / "weights.sha256").unlink(), "weights.sha256: cannot be read"),
        (lambda run: (run / "fold-0" / "weights.sha256").write_text(""), "weights.sha256 has another hash"),
        (cut_model, "is corrupt, or of another model"),
        (swap_models, "is not the model of this fold: it has fold '1', not '0'"),
        (lambda run: edit_config(run, "test_resnet", "test_vit"), "config.yaml is not what the run was made with"),
        (lambda run: edit_config(run, "backbone: test_resnet", "backbone: ["), "cannot be read"),
        (lambda run: edit_config(run, "folds: 2", "fold: 2"), "is not the configuration of a run"),
        (lambda run: (run / "record.json").write_text("[]"), "must hold an object with fields"),
        (forget_data, "does not say which data"),
        (
            lambda run: pd.DataFrame({"x": [1]}).to_parquet(run / "folds.parquet"),
            "it needs image_id",
        ),
        (lambda run: (run / "folds.parquet").write_text(""), "the run's folds cannot be read"),
        (lambda run: edit_config(run, "data: /", "data: /nowhere/"), "--dataset says where it is"),
    ],
)
def test_a_run_that_cannot_be_evaluated(
    hurt: Hurt, expected: str, run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    hurt(run)
    assert expected in run_evaluate(capfd, run, "--holdout", "holdout", code=2)
    assert not list(run.glob("evaluations/*"))


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], "give one of them"),
        (["--holdout", "holdout", "--data", "x"], "give one of them"),
        (["--holdout", ""], "--holdout : is empty"),
        (["--data", ""], "--data : is empty"),
        (["--holdout", "2017-test"], "It has: holdout ("),
        (["--holdout", "holdout", "--tta", "9"], "must be 1 to 8"),
        (["--holdout", "holdout", "--tta", "0"], "must be 1 to 8"),
        (["--holdout", "holdout", "--prevalence", "1"], "must be above 0 and below 1"),
        (["--holdout", "holdout", "--batch-size", "0"], "must be 1 to 65536"),
        (["--data", "nowhere"], "no such folder"),
        (["--holdout", "holdout", "--dataset", "nowhere"], "no such folder"),
    ],
)
def test_mistakes(flags: list[str], expected: str, run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert expected in run_evaluate(capfd, run, *flags, code=2)
    assert not list(run.glob("evaluations/*"))


def test_a_file_in_the_place_of_a_run(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "record.json: is a file. Name the folder" in run_evaluate(
        capfd, run / "record.json", "--holdout", "x", code=2
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(run), "--holdout", "holdout"]) == 2
    assert "Give --gpus 0 to use the CPU" in capfd.readouterr().err
    assert not list(run.glob("evaluations/*"))


def test_the_data_the_run_was_trained_on(
    run: Path, data: Dataset, other_data: Dataset, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert "images are not unseen" in run_evaluate(capfd, run, "--data", data.folder, code=2)
    message = run_evaluate(capfd, run, "--holdout", "holdout", "--dataset", other_data.folder, code=2)
    assert "Give the data set that it was trained on with --dataset" in message
    assert not list(run.glob("evaluations/*"))
    moved = shutil.copytree(data.folder, tmp_path / "moved")
    edit_config(run, "data: /", "data: /nowhere/")
    run_evaluate(capfd, run, "--holdout", "holdout", "--dataset", moved)
    assert record(run, "001-holdout").data.folder == "moved"


def test_a_damaged_shard(run: Path, data: Dataset, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = Path(shutil.copytree(data.folder, tmp_path / "damaged"))
    image = data.manifest[data.manifest["split"] == "holdout"].iloc[0]
    change_bytes(folder / image["shard"], image["offset"] + image["length"] // 2)
    message = run_evaluate(capfd, run, "--holdout", "holdout", "--dataset", folder, code=2)
    assert f"the bytes of {image['image_id']} are not those that were prepared" in message
    assert not list(run.glob("evaluations/*"))


def test_an_image_that_cannot_be_decoded(
    run: Path, other_data: Dataset, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its CRC-32 fits: whoever prepared it kept a damaged image. The evaluation is logged."""
    folder = Path(shutil.copytree(other_data.folder, tmp_path / "broken"))
    table = other_data.manifest.copy()
    jpeg = ShardReader(other_data).jpeg(0)
    offset = int(table.loc[0, "offset"])
    shard = folder / str(table.loc[0, "shard"])
    content = bytearray(shard.read_bytes())
    content[offset : offset + len(jpeg)] = bytes(len(jpeg))
    shard.write_bytes(bytes(content))
    table.loc[0, "crc32"] = crc32(bytes(len(jpeg)))
    rewrite(folder, MANIFEST, table)
    message = run_evaluate(capfd, run, "--data", folder, code=2)
    assert f"can no longer be decoded: {table.loc[0, 'image_id']}" in message
    assert record(run, "001-broken").results is None


def test_weights_that_changed_after_an_evaluation(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run_evaluate(capfd, run, "--holdout", "holdout")
    with safe_open(model(run), "pt") as file:
        about = file.metadata()
    weights = load_file(model(run))
    save_file({**weights, "linear.bias": weights["linear.bias"] + 1}, model(run), about)
    accept_weights(run)
    message = run_evaluate(capfd, run, "--holdout", "holdout", code=2)
    assert "the weights differ from those of evaluation 1 of" in message
    assert [path.name for path in run.glob("evaluations/[!.]*")] == ["001-holdout"]


def test_the_remedy_for_a_run_that_was_copied_names_the_copy(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "a copy", {})
    flags = f"--config '{folder.path}/config.yaml' --runs {tmp_path} --name 'a copy'. This trains"
    for command in ("", "segment "):
        with pytest.raises(ConfigError, match=re.escape(f"launch.py {command}{flags}")):
            refuse_unfinished(folder, command.strip())
