"""Two finished runs on the same folds."""

from __future__ import annotations

from pathlib import Path

import pytest

from .run_folders import images, scores, write_run

TABLE = images(60)


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    return [write_run(tmp_path / "runs", name, TABLE, scores(TABLE, 1.2, seed)) for seed, name in enumerate("ab")]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use few resamples."""
    monkeypatch.setattr("melanoma_dist.evaluate.comparison.paired.RESAMPLES", 100)
    monkeypatch.setattr("melanoma_dist.evaluate.comparison.paired._TAIL", 1)
