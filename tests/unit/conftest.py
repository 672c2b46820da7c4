from __future__ import annotations

import os
from pathlib import Path

import pytest

from melanoma_dist.data.manifest import Dataset

from . import samples


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A small prepared data set. It belongs to all tests: copy it to change it."""
    return samples.small_dataset(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def isic() -> Path:
    """Real ISIC images in the official layout."""
    folder = os.environ.get("MELANOMA_DIST_ISIC")
    if not folder:
        pytest.skip("MELANOMA_DIST_ISIC names no folder with real ISIC images")
    return Path(folder)
