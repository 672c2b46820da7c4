"""The results of a sweep whose units only pretend to train."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from melanoma_dist.config.flags import parse_with_file
from melanoma_dist.config.run import RunConfig, with_values
from melanoma_dist.config.segment import SegmentConfig
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.errors import TrainingError
from melanoma_dist.sweep import outcome as module
from melanoma_dist.sweep.journal import SessionStarted
from melanoma_dist.sweep.outcome import Outcome

from .test_work_source import Setting, train


def played(
    dataset: Dataset, folder: Path, capfd: pytest.CaptureFixture[str], config: RunConfig | None = None
) -> tuple[Setting, str]:
    setting = Setting(dataset, folder, config=config)
    source = setting.start()
    setting.journal.write(SessionStarted(0.0, 4, "GPU", per_unit=0.5, ranks=1, share=0.5, side_by_side=1))
    first = source.next_unit()
    assert first is not None
    source.on_failure(first, 3.0, TrainingError("GPU 0 ran out of <memory>"))
    while (unit := source.next_unit()) is not None:
        train(source, unit)
    (folder / "sweep.json").write_text(json.dumps({"identity": {}}))
    finalized: list[Any] = []
    outcome = Outcome(setting.context, setting.controller, setting.journal)
    outcome.finalize(lambda config, *_: finalized.append(config))
    assert len(finalized) == sum(setting.controller.racing.is_complete(number) for number in range(4))
    return setting, capfd.readouterr().out


def test_every_file_is_written_and_the_winner_is_shown(
    dataset: Dataset, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    setting, output = played(dataset, tmp_path, capfd)
    best = setting.controller.racing.incumbent()
    assert best is not None
    board = pd.read_csv(tmp_path / "leaderboard.csv", index_col="configuration")
    assert board.index[0] == best
    assert board["state"].iloc[-1] == "failed"
    assert yaml.safe_load((tmp_path / "best.yaml").read_text())["optimizer"]["lr"] == board["optimizer.lr"].iloc[0]
    assert f"best: {board['name'].iloc[0]}" in output
    assert "the winner's metrics are optimistic" in output
    assert "failed: GPU 0 ran out of <memory>" in output
    assert "GPU-hours" in output
    assert len(pd.read_parquet(tmp_path / "ledger.parquet")) == len(setting.ended)


def test_a_sweep_of_segmenters_says_jaccard_and_its_best_configuration_is_one_of_segment(
    dataset: Dataset, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = with_values(
        SegmentConfig(),
        {"data.folds": 2, "schedule.epochs": 4, "input.batch_size": 8, "model.backbone": "test_resnet"},
    )
    _, output = played(dataset, tmp_path, capfd, config)
    result = output.partition("Leaderboard: mean Jaccard over the folds")[2]
    assert "mean Jaccard" in result.partition("best: ")[2]
    assert f"segment --config {tmp_path / 'best.yaml'}" in result
    page = (tmp_path / "sweep.html").read_text()
    assert "Cost of each new best Jaccard" in page
    assert not [text for text in (result, page, (tmp_path / "leaderboard.csv").read_text()) if "AUC" in text]
    board = pd.read_csv(tmp_path / "leaderboard.csv", index_col="configuration")
    assert {"mean_jaccard", "sd_jaccard", "worst_fold_jaccard"} <= set(board)
    assert board["why"].str.contains("Jaccard").any()  # of one that was stopped or dropped
    assert "best_jaccard" in pd.read_parquet(tmp_path / "ledger.parquet")
    best = parse_with_file(SegmentConfig, ["--config", str(tmp_path / "best.yaml")], "segment")
    searched = {key: board[key].iloc[0] for key in ("optimizer.lr", "schedule.warmup_epochs")}
    assert best == with_values(config, searched)


def test_tables_are_written_in_a_small_share_of_the_time_and_at_the_end(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = Setting(dataset, tmp_path)
    assert setting.start().next_unit() is not None
    written: list[Path] = []

    def write(path: Path, table: pd.DataFrame) -> None:
        written.append(path)
        time.sleep(0.5)

    monkeypatch.setattr(module, "write_table", write)
    outcome = Outcome(setting.context, setting.controller, setting.journal)
    for _ in range(20):  # a twentieth of the time: the first call alone fits
        outcome.update(0)
    assert len(written) == 1
    outcome.write_tables()
    assert len(written) == 2


def test_the_page_holds_everything_and_escapes_messages(
    dataset: Dataset, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    played(dataset, tmp_path, capfd)
    page = (tmp_path / "sweep.html").read_text()
    assert page.count("<svg") == 4
    assert "is pooled over the images of all folds, and so differs" in page
    assert "Importance of each hyperparameter: needs 10 configurations with a result, and here are " in page
    assert "GPU 0 ran out of &lt;memory&gt;" in page
    assert "<script" not in page
    for heading in (
        "Leaderboard",
        "AUC against cost",
        "Effect of each hyperparameter",
        "Parallel coordinates",
        "Ledger",
        "Search space",
    ):
        assert heading in page
    shot = tmp_path / "page.png"
    try:
        command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--screenshot={shot}"]
        subprocess.run([*command, (tmp_path / "sweep.html").as_uri()], capture_output=True, timeout=120, check=True)
    except FileNotFoundError:
        pytest.skip("Chromium is not installed")
    assert shot.stat().st_size > 10_000


def test_a_sweep_without_a_trained_configuration_is_an_error(
    dataset: Dataset, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    setting = Setting(dataset, tmp_path)
    source = setting.start()
    (tmp_path / "sweep.json").write_text("{}")
    while (unit := source.next_unit()) is not None:
        source.on_failure(unit, 1.0, TrainingError("NaN"))
    with pytest.raises(TrainingError, match=r"Every configuration failed; .*leaderboard\.csv has the reasons"):
        Outcome(setting.context, setting.controller, setting.journal).finalize(lambda *_: None)
    assert "there is no best one" in capfd.readouterr().out
