"""A server with every official file, small, and a folder to download into."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .server import Site, serving
from .site import FILES


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(Site(files=dict(FILES))) as site:
        yield site


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return tmp_path / "raw"
