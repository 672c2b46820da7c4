"""A finished run and its ensemble."""

from __future__ import annotations

from pathlib import Path

import pytest

import melanoma_dist
from melanoma_dist.inference.ensemble import Ensemble

from ..evaluate.holdout.conftest import _threads, data, finished, run

__all__ = ["_threads", "data", "finished", "run"]


@pytest.fixture(scope="session")
def ensemble(finished: Path) -> Ensemble:
    """The models of the run, on one core."""
    return melanoma_dist.load_run(finished).ensemble(threads=1)
