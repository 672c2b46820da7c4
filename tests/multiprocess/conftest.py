from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ..unit import samples
from . import harness


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small prepared data set."""
    return samples.small_dataset(tmp_path_factory.mktemp("small"), images=48).folder


@pytest.fixture(scope="package", autouse=True)
def _end_the_ranks() -> Iterator[None]:
    yield
    harness.stop()
