"""The commands on data: the configuration of each, and where it leads. Nothing heavy is imported to know them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from melanoma_dist import console
from melanoma_dist.config.run import LabelSet
from melanoma_dist.data.download.address import split_address
from melanoma_dist.data.download.catalogue import BASE_URL
from melanoma_dist.errors import ConfigError

_Years = tuple[Literal[2017, 2018, 2019], ...]


@dataclass(frozen=True)
class DownloadConfig:
    """Fetch the challenges' own files and unpack them to where `data prepare` reads them.

    What is there is not fetched again; an interrupted command, given again, goes on where it stopped.
    """

    raw: Path
    """Folder for the folders 2017, 2018 and 2019 with the challenges' own files."""
    years: _Years
    """Challenge years to download."""
    parts: tuple[Literal["images", "labels", "masks"], ...] = ("images", "labels", "masks")
    """Which of their files; labels are the tables, with metadata and lesion groupings."""
    base_url: str = BASE_URL
    """Another server with the same files: each is fetched from BASE_URL/<year>/<file name>. A user and
    password (http://USER:PASSWORD@HOST) are used and written nowhere."""
    accept_license: bool = False
    """You have read and accept the non-commercial licences of 2018 and 2019. Needed once for each."""
    list: bool = False
    """Only show the files, their licences and what is there of them."""

    def __post_init__(self) -> None:
        _require_some_years(self.years)
        if not self.parts:
            raise ConfigError("--parts: name at least one of images, labels and masks.")
        split_address(self.base_url)


@dataclass(frozen=True)
class PrepareConfig:
    """Read the challenges' files once, check and clean them, and write the data set that trainings use."""

    raw: Path
    """Folder that holds the folders 2017, 2018 and 2019 with the challenges' own files."""
    out: Path
    """Folder to write the data set into: new, or of the same preparation."""
    years: _Years
    """Challenge years to read and merge on the image id."""
    size: int = 512
    """Shorter side in pixels that larger images are reduced to, 32 to 4096. Smaller ones keep their size."""
    allow_missing: bool = False
    """Leave out images that have labels but no file, instead of refusing."""
    conflicts: Literal["refuse", "newest", "unknown"] = "refuse"
    """Labels of one image that contradict each other between years: refuse, believe the newer year, or call them
    unknown."""
    holdout: float = 0.0
    """Share of lesions, 0 to 0.5, to keep out of all folds beside the official tests, alike from every label."""
    seed: int = 0
    """Seed of the choice of these lesions, 0 to 4294967295."""
    manifest_only: bool = False
    """Only read the tables and write OUT/plan.parquet: what the data set will be, before any image is there."""

    def __post_init__(self) -> None:
        if not 32 <= self.size <= 4096:
            raise ConfigError.of("size", self.size, "must be 32 to 4096")
        if not 0 <= self.holdout <= 0.5:
            raise ConfigError.of("holdout", self.holdout, "must be a share of 0 to 0.5")
        _require_seed(self.seed)
        _require_some_years(self.years)


@dataclass(frozen=True)
class AuditConfig:
    """Prove that a prepared data set is sound, count what it holds, and write a page with the pictures behind it.

    Every image and mask is read and compared with its checksum, which may take minutes on 58,000 images.
    """

    data: str
    """A prepared folder, its URL (s3://, gs://: a copy is kept), or demo: synthetic images, made on first use."""
    labels: LabelSet = "isic2019"
    """Label set of the folds to look at: isic2019 (8 labels), isic2018 (7), isic2017 (MEL, BKL) or melanoma (MEL)."""
    folds: int = 5
    """Number of cross-validation folds to look at, 2 to 20."""
    seed: int = 0
    """Seed of these folds and of the images that the page shows, 0 to 4294967295."""
    html: Path = Path("audit.html")
    """The page, one file that needs no other. Not in the data folder; a page that is there is replaced."""

    def __post_init__(self) -> None:
        if not 2 <= self.folds <= 20:
            raise ConfigError.of("folds", self.folds, "must be 2 to 20")
        _require_seed(self.seed)
        if self.html.suffix != ".html":
            raise ConfigError.of("html", self.html, "must end with .html")
        if not self.html.parent.is_dir():
            raise ConfigError.of("html", self.html, "lies in a folder that does not exist")
        if self.html.resolve().is_relative_to(Path(self.data).resolve()):
            raise ConfigError.of(
                "html", self.html, "lies in the data folder, which holds the data set and nothing else"
            )


def _require_some_years(years: tuple[int, ...]) -> None:
    if not years:
        raise ConfigError("--years: name at least one of 2017, 2018 and 2019.")


def _require_seed(seed: int) -> None:
    if not 0 <= seed < 2**32:
        raise ConfigError.of("seed", seed, f"must be 0 to {2**32 - 1}")


def _download(config: DownloadConfig) -> None:
    from melanoma_dist.data.download.fetch import download

    download(config)


def _prepare(config: PrepareConfig) -> None:
    # Arrow's own allocator keeps what was freed: 30 MiB of the tables of 2,000 images, 40 MiB of 20,000.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    from melanoma_dist.data.prepare import Request, plan, prepare

    request = Request(
        raw=config.raw,
        years=config.years,
        size=config.size,
        allow_missing=config.allow_missing,
        conflicts=config.conflicts,
        holdout=config.holdout,
        seed=config.seed,
    )
    if config.manifest_only:
        plan(request, config.out)
    else:
        prepare(request, config.out)


def _audit(config: AuditConfig) -> None:
    from melanoma_dist.data.audit.checks import require
    from melanoma_dist.data.audit.inspection import Request, inspect, show
    from melanoma_dist.data.audit.page import write_page

    inspection = inspect(Request(config.data, config.labels, config.folds, config.seed))
    show(inspection)
    if not inspection.stored.passed:  # the page shows pictures, and damaged ones cannot be shown
        require(inspection.checks)
    write_page(inspection, config.html)
    console.say(f"page: {config.html}")
    require(inspection.checks)


@dataclass(frozen=True)
class Command:
    """A command after ``data``."""

    config: type
    run: Callable[[Any], None]
    remains: str
    """What an interruption leaves."""


COMMANDS = {
    "download": Command(
        DownloadConfig, _download, "What has arrived is kept in .part files: the same command goes on from there."
    ),
    "prepare": Command(PrepareConfig, _prepare, "What was prepared is kept: the same command goes on from there."),
    "audit": Command(AuditConfig, _audit, "Nothing was changed."),
}
