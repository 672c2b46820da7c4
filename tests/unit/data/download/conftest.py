"""A server with small versions of all official files, and a folder to download into."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from melanoma_dist.data.download import catalogue

from .server import Site, serving
from .site import FILES

OFFICIAL = catalogue._FILES


@pytest.fixture(autouse=True)
def two_of_each() -> Iterator[None]:
    """Make the catalogue expect what the site has: two images, masks or rows per file."""
    small = {year: tuple(replace(entry, count=2) for entry in entries) for year, entries in OFFICIAL.items()}
    with pytest.MonkeyPatch.context() as patch:  # separate from the tests' own patches, which they undo
        patch.setattr(catalogue, "_FILES", small)
        yield


@pytest.fixture(autouse=True)
def large_disk() -> Iterator[None]:
    """Pretend that the official files, whose sizes the catalogue has, fit on the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**12, 0, 10**12))  # type: ignore[attr-defined]
        yield


@pytest.fixture
def official(two_of_each: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore the real catalogue."""
    monkeypatch.setattr(catalogue, "_FILES", OFFICIAL)


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(Site(files=dict(FILES))) as site:
        yield site


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return tmp_path / "raw"
