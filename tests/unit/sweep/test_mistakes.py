"""A mistake in a sweep command ends with one message and exit code 2, and starts nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from melanoma_dist.artifacts.run_record import RunRecord, current_environment, write_run_record
from melanoma_dist.data.manifest import Dataset

from ..test_mistakes import message_of

SPACE = """from ray import tune
SPACE = {"optimizer.lr": tune.choice([1e-3, 1e-2]), "model.pooling": tune.choice(["avg", "max"])}
"""


@pytest.fixture
def good(dataset: Dataset, tmp_path: Path) -> list[object]:
    """Flags without a mistake; the later of two flags wins."""
    (tmp_path / "space.py").write_text(SPACE)
    return [
        *("sweep", "--space", tmp_path / "space.py", "--trials", "2", "--data", dataset.folder, "--folds", "2"),
        *("--backbone", "test_resnet", "--weights", "none", "--image-size", "32", "--batch-size", "8"),
        *("--runs", tmp_path / "runs", "--gpus", "0"),
    ]


def space_with(folder: Path, text: str) -> Path:
    path = folder / "other.py"
    path.write_text(f"from ray import tune\n{text}\n")
    return path


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--space", "gone.py"], "--space gone.py: cannot be read (No such file or directory)"),
        (["--trials", "0"], "--trials 0: must be 1 to 100000"),
        (["--searcher", "bayes"], "--searcher"),
        (["--scheduler", "pb2"], "--scheduler"),
        (["--scheduler", "pbt", "--searcher", "optuna"], "--searcher optuna: must be random with --scheduler pbt"),
        (["--time-budget", "soon"], "--time-budget soon: must be a number and a unit: 45s, 90m, 8h or 2d"),
        (["--grace-epochs", "30"], "--grace-epochs 30: must be below --epochs 30"),
        (["--lrr", "1"], "--lrr"),
        (["--data", "nowhere"], "nowhere"),
        (["--gpus", "3"], "--gpus 3: there is no GPU here"),
        (["--runs", "/proc/nothing"], "the sweep's folder cannot be written"),
        (["--batch-size", "600"], "--batch-size 600: a fold trains on only"),
        (["--backbone", "densenet2001"], "timm knows no such model"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_mistake_ends_with_one_message(
    flags: list[str], complaint: str, good: list[object], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert complaint in message_of(capfd, *good, *flags)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('SPACE = {"optimizer.lrr": tune.uniform(0, 1)}', "optimizer.lrr: is not a field that may vary; similar: opti"),
        ('SPACE = {"model.backbone": tune.choice(["densenet201", "densenet2001"])}', "timm knows no such model"),
        ('SPACE = {"input.batch_size": tune.choice([8, 4096])}', "a fold trains on only"),
        ("SPACE = 1 / 0", "fails when executed (ZeroDivisionError: division by zero)"),
        (
            'SPACE = {"model.backbone": tune.choice(["resnetv2_152"]), "model.weights": tune.choice(["imagenet"])}',
            "no ImageNet weights are published for resnetv2_152",
        ),
    ],
)  # fmt: skip
def test_a_bad_space_is_refused_before_anything_starts(
    text: str, complaint: str, good: list[object], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert complaint in message_of(capfd, *good, "--space", space_with(tmp_path, text))
    assert not (tmp_path / "runs").exists()


def test_a_sweep_needs_a_space_an_end_and_choices_for_a_grid(
    good: list[object], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert "--space: name a file" in message_of(capfd, "sweep")
    endless = [*good[:3], *good[5:]]
    assert "--trials: give the number of configurations to try, or --time-budget" in message_of(capfd, *endless)
    ranges = space_with(tmp_path, 'SPACE = {"optimizer.lr": tune.uniform(0.1, 0.2)}')
    assert "is a range, and --searcher grid needs choices" in message_of(
        capfd, *good, "--space", ranges, "--searcher", "grid"
    )


def test_a_folder_with_other_files_is_left_alone(
    good: list[object], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = tmp_path / "runs" / "mine"
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    assert "holds other files" in message_of(capfd, *good, "--name", "mine")
    write_run_record(folder / "sweep.json", RunRecord({"scheduler": "median"}, current_environment(), "2026-01-01"))
    assert "scheduler: 'median' there, 'halving' now" in message_of(capfd, *good, "--name", "mine")
    assert (folder / "notes.txt").read_text() == "mine"
