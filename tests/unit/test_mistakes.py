"""A user's mistakes: one message, exit code 2, no traceback, no files."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from melanoma_dist.cli import main
from melanoma_dist.data.manifest import fingerprint
from melanoma_dist.data.prepare import Request, prepare
from melanoma_dist.errors import DataError
from melanoma_dist.storage.locks import LOCK, lock_file

LESIONS = 12


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve lesions of ISIC 2017's layout, four of them melanomas and four seborrheic keratoses."""
    raw = tmp_path_factory.mktemp("raw")
    folder = raw / "2017" / "ISIC-2017_Training_Data"
    folder.mkdir(parents=True)
    rows = ["image_id,melanoma,seborrheic_keratosis"]
    for number in range(LESIONS):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"ISIC_{number:07d}.jpg")
        rows.append(f"ISIC_{number:07d},{float(number < 4)},{float(4 <= number < 8)}")
    (raw / "2017" / "ISIC-2017_Training_Part3_GroundTruth.csv").write_text("\n".join(rows) + "\n")
    out = tmp_path_factory.mktemp("prepared") / "data"
    prepare(Request(raw, ("2017",)), out)
    return out


@pytest.fixture(autouse=True)
def _without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray starts before the model is built, so that workers load their libraries meanwhile. Here it need not."""
    monkeypatch.setattr("melanoma_dist.run.open_worker_pool", lambda config: nullcontext())


def message_of(capfd: pytest.CaptureFixture[str], *flags: object) -> str:
    """The output of a command that must end with exit code 2."""
    try:
        code = main([str(flag) for flag in flags])
    except SystemExit as stop:  # the parser's way
        code = int(str(stop.code))
    captured = capfd.readouterr()
    text = re.sub(r"[│\s]+", " ", captured.out + captured.err)
    assert code == 2, text
    assert "Traceback" not in text
    return text


def good(data: Path, tmp_path: Path) -> list[object]:
    """Flags without a mistake; the later of two flags wins."""
    return [
        *("--data", data, "--labels", "isic2017", "--folds", "2", "--gpus", "0", "--batch-size", "2"),
        *("--backbone", "test_resnet", "--weights", "none", "--image-size", "32", "--runs", tmp_path / "runs"),
    ]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--backbone", "densnet201"], "Similar names: densenet201"),
        (["--backbone", "resnetv2_152", "--weights", "imagenet"], "Similar ones with weights: resnetv2_152x2_bit"),
        (["--weights", "nowhere.safetensors"], "neither imagenet, none nor a file"),
        (["--data", "None"], "--data demo"),
        (["--data", "nowhere"], "no such folder"),
        (["--labels", "isic2019"], "isic2017"),
        (["--labels", "isic2020"], "isic2017"),
        (["--folds", "5"], "At most --folds 4"),
        (["--folds", "500"], "must be 2 to 20"),
        (["--backbon", "x"], "--backbone"),
        (["--batch-size", "5000"], "At most --batch-size 6"),
        (["--lr", "0"], "must be above 0"),
        (["--ranks-per-unit", "2", "--gpus", "1"], "--gpus-per-unit"),
        (["--gpus-per-unit", "2"], "--ranks-per-unit"),
        (["--name", "../elsewhere"], "must be 1 to 100 letters, digits"),
        (["--config", "nowhere.yaml"], "cannot be read"),
    ],
)
def test_a_mistake_ends_with_one_message(
    flags: list[str], expected: str, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert expected in message_of(capfd, *good(data, tmp_path), *flags)
    assert not (tmp_path / "runs").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_more_gpus_than_there_are(data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "there is no GPU here" in message_of(capfd, *good(data, tmp_path), "--gpus", "8")
    assert not (tmp_path / "runs").exists()


def test_a_disk_that_is_too_small(
    data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.disk_usage

    def nearly_full(path: Path | str) -> object:
        return SimpleNamespace(total=10**7, free=10**6) if Path(path).is_relative_to(tmp_path) else real(path)

    monkeypatch.setattr(shutil, "disk_usage", nearly_full)
    message = message_of(capfd, *good(data, tmp_path))
    assert re.search(r"--runs \S*: the run writes at least \d+ MB more there, and 1 MB are free. Make room", message)
    assert not (tmp_path / "runs").exists()


def test_weights_of_another_backbone(data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    foreign = tmp_path / "foreign.safetensors"
    save_file({"layer.weight": torch.zeros(3, 3)}, foreign)
    assert "does not fit test_resnet" in message_of(capfd, *good(data, tmp_path), "--weights", foreign)


def test_a_runs_folder_that_cannot_be_written(data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot be written" in message_of(capfd, *good(data, tmp_path), "--runs", tmp_path / "file")


def test_folders_that_are_no_data_set(data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    empty, partial = tmp_path / "empty", tmp_path / "partial"
    empty.mkdir()
    partial.mkdir()
    (partial / "manifest.parquet").write_bytes((data / "manifest.parquet").read_bytes())
    assert "the folder is empty" in message_of(capfd, *good(data, tmp_path), "--data", empty)
    assert "unfinished data set" in message_of(capfd, *good(data, tmp_path), "--data", partial)


def test_a_data_set_that_leaks_trains_nothing(data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Its fingerprint matches: it was prepared with the leak."""
    leaking = tmp_path / "leaking"
    shutil.copytree(data, leaking)
    manifest = pd.read_parquet(data / "manifest.parquet")
    manifest.loc[:1, ["group", "split"]] = [["one", "train"], ["one", "holdout"]]
    manifest.to_parquet(leaking / "manifest.parquet", index=False)
    description = json.loads((data / "dataset.json").read_text())
    description["fingerprint"] = fingerprint(manifest, description["size"])
    (leaking / "dataset.json").write_text(json.dumps(description))
    text = message_of(capfd, *good(data, tmp_path), "--data", leaking)
    leak = "no group has images in the training pool and in a holdout: 1 groups: one (ISIC_0000000, ISIC_0000001)"
    assert leak in text
    assert "nothing was trained" in text
    assert not (tmp_path / "runs").exists()
    (leaking / "joins.parquet").unlink()
    assert "joins.parquet: cannot be read" in message_of(capfd, *good(data, tmp_path), "--data", leaking)


def test_a_run_that_another_command_trains(data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    flags = [*good(data, tmp_path), "--name", "busy"]
    (tmp_path / "runs" / "busy").mkdir(parents=True)
    with lock_file(tmp_path / "runs" / "busy" / LOCK, DataError("ours")):
        assert "another command is training" in message_of(capfd, *flags)
    assert not list((tmp_path / "runs" / "busy").glob("fold-*"))


@pytest.mark.parametrize(
    ("flags", "message"), [(("--lr", "0.002"), "holds another run"), (("--gpus", "1000"), "--gpus 1000")]
)
def test_a_used_name_and_too_many_gpus_are_told_before_ray_starts(
    flags: tuple[str, ...], message: str, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    good_ones = [*good(data, tmp_path), "--name", "used"]
    (tmp_path / "runs" / "used").mkdir(parents=True)
    with lock_file(tmp_path / "runs" / "used" / LOCK, DataError("ours")):
        message_of(capfd, *good_ones)  # leaves its record
    assert (tmp_path / "runs" / "used" / "record.json").is_file()
    monkeypatch.setattr("melanoma_dist.run.open_worker_pool", lambda config: pytest.fail("Ray starts"))
    assert message in message_of(capfd, *good_ones, *flags)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(28, "No space left on device", "j.jsonl"), "j.jsonl: No space left on device. Free space or repair"),
        (OSError(28, "No space left on device"), "error: No space left on device. Free space or repair the storage."),
        (PermissionError(13, "Permission denied", "a/b"), "error: a/b: Permission denied. Allow this user to do that."),
    ],
)
def test_a_refusal_of_the_system_at_an_unexpected_place_is_one_message(
    error: OSError, expected: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr("melanoma_dist.run.open_data", refuse)
    assert main(["--data", str(data), "--gpus", "0", "--runs", str(tmp_path)]) == 1
    message = " ".join(capfd.readouterr().err.split())
    assert expected in message
    assert "Nothing had started" in message


def test_unknown_commands_are_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "not a command" in message_of(capfd, "trian")
    assert "data prepare" in message_of(capfd, "data", "prepar")
    assert "2017" in message_of(capfd, "data", "prepare", "--raw", tmp_path, "--out", "y", "--years", "2016")


@pytest.mark.parametrize("seed", ["-1", "4294967296"])
@pytest.mark.parametrize(
    "command", [("prepare", "--raw", "x", "--out", "y", "--years", "2017"), ("audit", "--data", "x")]
)
def test_a_seed_out_of_bounds(command: tuple[str, ...], seed: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert f"--seed {seed}: must be 0 to 4294967295" in message_of(capfd, "data", *command, "--seed", seed)


def test_a_saved_configuration_with_an_unknown_field(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    saved = tmp_path / "run.yaml"
    saved.write_text("optimizer: {learning_rate: 1.0e-3}\n")
    assert "unknown field 'optimizer.learning_rate'" in message_of(capfd, "--config", saved)


def test_a_python_without_the_environment() -> None:
    launcher = Path(__file__).resolve().parents[2] / "launch.py"
    done = subprocess.run([sys.executable, "-S", str(launcher)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    named = re.search(re.escape(f"error: this Python ({sys.executable}) has no ") + r"(\w+): ", done.stderr)
    assert named, done.stderr
    assert importlib.metadata.packages_distributions().get(named[1])
    assert "Traceback" not in done.stderr
