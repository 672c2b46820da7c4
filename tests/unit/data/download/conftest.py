"""A server with every official file, small, and a folder to download into."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from melanoma_dist.data.download import catalogue

from .server import Site, serving
from .site import FILES

OFFICIAL = catalogue._ENTRIES


@pytest.fixture(autouse=True)
def two_of_each() -> Iterator[None]:
    """The catalogue expects what the site has: two images, masks or rows of every file."""
    small = {year: tuple(replace(entry, count=2) for entry in entries) for year, entries in OFFICIAL.items()}
    with pytest.MonkeyPatch.context() as patch:  # of its own: tests undo theirs
        patch.setattr(catalogue, "_ENTRIES", small)
        yield


@pytest.fixture(autouse=True)
def large_disk() -> Iterator[None]:
    """The catalogue's sizes are those of the official files, which need not fit on the machine of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**12, 0, 10**12))  # type: ignore[attr-defined]
        yield


@pytest.fixture
def official(two_of_each: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The catalogue as it is."""
    monkeypatch.setattr(catalogue, "_ENTRIES", OFFICIAL)


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(Site(files=dict(FILES))) as site:
        yield site


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return tmp_path / "raw"
