"""The configurations of the commands on data. Nothing heavy is imported to parse them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from melanoma_dist.config.address import split_address
from melanoma_dist.config.label_sets import label_set
from melanoma_dist.config.places import PREPARED, RAW
from melanoma_dist.config.rules import between, check, expand_home
from melanoma_dist.errors import ConfigError

BASE_URL = "https://isic-archive.s3.amazonaws.com/challenges"
"""Where the challenges' files are; ``/<year>/<file>`` follows."""

_MOST_SEED = 2**32 - 1


@dataclass(frozen=True)
class DownloadConfig:
    """Download the challenges' files and unpack them to where `data prepare` reads them.

    Re-running the command fetches only missing files. An interrupted download resumes.
    """

    years: tuple[Literal[2017, 2018, 2019], ...]
    """Challenge years to download."""
    raw: Path = RAW
    """Folder for the folders 2017, 2018 and 2019 with the challenges' files."""
    parts: tuple[Literal["images", "labels", "masks"], ...] = ("images", "labels", "masks")
    """Which files to download. Labels are the tables, with metadata and lesion groupings."""
    base_url: str = BASE_URL
    """Another server with the same files, at BASE_URL/<year>/<file name>. A user and password
    (http://USER:PASSWORD@HOST) are used for the requests and never stored."""
    accept_license: bool = False
    """Accept the non-commercial licences of 2018 and 2019 after reading them. Needed once for each."""
    list: bool = False
    """Only list the files, their licences and their state on the disk."""

    def __post_init__(self) -> None:
        expand_home(self, "raw")
        if not self.years:
            raise ConfigError("--years: name at least one of 2017, 2018 and 2019.")
        if not self.parts:
            raise ConfigError("--parts: name at least one of images, labels and masks.")
        split_address(self.base_url)


@dataclass(frozen=True)
class PrepareConfig:
    """Read the files of collections once, check and clean them, and write the data set that trainings use.

    Name the collections with --years, with --source, or one of your own with --images, --table, --label and --map.
    """

    years: tuple[str, ...] = ()
    """Collections to read and merge on the image id: 2017, 2018 and 2019, the challenges of these years, and the names
    of data sources of your own."""
    source: tuple[Path, ...] = ()
    """Further collections, each described by a YAML file, which `data describe TABLE` proposes, or built in: isic2020,
    bcn20000, ham10000, ph2, derm7pt, padufes20."""
    images: Path | None = None
    """Folder of your own images, for --table. Replaces --raw."""
    table: Path | None = None
    """Table (.csv, .xlsx) of your own images: their ids or file names, and their diagnoses."""
    id: str = "image"
    """Column of the table: the image's file name, with or without suffix."""
    label: str = "diagnosis"
    """Column of the table: the diagnosis."""
    map: tuple[str, ...] = ()
    """What each diagnosis of the table means, as WORD=LABEL: mel=MEL nevus=NV. In place of a label: none (a diagnosis
    that is none of the labels), unknown, or "not MEL"."""
    lesion: str | None = None
    """Column of the table: the lesion. All images of a lesion lie in one fold."""
    patient: str | None = None
    """Column of the table: the patient. All images of a patient lie in one fold."""
    raw: Path = RAW
    """Folder with the tables and images of the collections, in any folders below it."""
    out: Path = PREPARED
    """Folder of the data set: a new one, or the folder of an unfinished run of the same command."""
    size: int = 512
    """Shorter side in pixels, 32 to 4096. Larger images are reduced to it, smaller ones keep their size."""
    allow_missing: bool = False
    """Leave out labelled images without a file instead of refusing."""
    allow_incomplete_tables: bool = False
    """Accept tables that leave out images or lesions. The data set's record, its audit and every report repeat it."""
    conflicts: Literal["refuse", "newest", "unknown"] = "refuse"
    """What to do if two years contradict each other about a label: refuse, take the newer year's, or mark it
    unknown."""
    holdout: float = 0.0
    """Share of lesions, 0 to 0.5, kept out of all folds beside the official tests; stratified by label."""
    seed: int = 0
    """Seed that chooses these lesions, 0 to 4294967295."""
    manifest_only: bool = False
    """Only read the tables and write OUT/plan.parquet, the data set's table. The images may still be missing."""

    def __post_init__(self) -> None:
        expand_home(self, "raw", "out", "source", "images", "table")
        between(self, "size", 32, 4096)
        check(self, "holdout", 0 <= self.holdout <= 0.5, "must be a share of 0 to 0.5")
        between(self, "seed", 0, _MOST_SEED)
        if not self.years and not self.source and not self.table:
            raise ConfigError(
                "name at least one collection: --years 2019, --source my.yaml, or a table of your own with --images "
                "DIR --table FILE --id COLUMN --label COLUMN --map WORD=LABEL."
            )
        self._check_table()

    def _check_table(self) -> None:
        """Refuse a table of one's own with half of its flags."""
        if self.table is None:
            lone = [f"--{name}" for name in ("images", "map", "lesion", "patient") if getattr(self, name)]
            if lone:
                raise ConfigError(f"{', '.join(lone)}: describe a table of your own. Name it with --table FILE.")
            return
        if self.images is None or not self.map:
            raise ConfigError(
                f"--table {self.table}: needs --images DIR, and --map WORD=LABEL for each word of the column "
                f"{self.label}. `data describe {self.table}` lists the columns and words."
            )
        for entry in self.map:
            if "=" not in entry:
                raise ConfigError.of("map", entry, "must be WORD=LABEL", "Example: --map mel=MEL nevus=NV.")


@dataclass(frozen=True)
class DescribeConfig:
    """Print a description of a table of images for `data prepare --source`, proposed from its columns and values."""

    table: Path
    """CSV or Excel workbook with one row per image."""

    def __post_init__(self) -> None:
        expand_home(self, "table")


@dataclass(frozen=True)
class AuditConfig:
    """Check a prepared data set for leaks and contradictions, count its images, and write a page with the evidence.

    Reads every image and mask and verifies its checksum, which may take minutes on 58,000 images.
    """

    data: str | None = None
    """A prepared folder, its URL (s3://, gs://; a copy is stored), or demo: synthetic images, drawn on first use.
    Default: MELANOMA_DIST_DATA, else data/prepared."""
    labels: str = "largest"
    """Label set of the folds to check, such as isic2019 (8 labels), melanoma (MEL) or MEL,NV, or the largest named one
    that the data supports."""
    headline: str | None = None
    """Label that leads the label set: every fold has images with it and without.
    Default: MEL, or the only label of a set."""
    folds: int = 5
    """Number of cross-validation folds to check, 2 to 20."""
    seed: int = 0
    """Seed of these folds and of the page's sample of images, 0 to 4294967295."""
    html: Path | None = None
    """The page, one self-contained file outside the data folder. An existing page is replaced.
    Default: DATA-audit.html beside the data folder, or in the current folder if that one cannot be written."""

    def __post_init__(self) -> None:
        if self.labels != "largest":
            label_set(self.labels, self.headline)
        between(self, "folds", 2, 20)
        between(self, "seed", 0, _MOST_SEED)
        expand_home(self, "data", "html")
        if self.html is not None:
            check(self, "html", self.html.suffix == ".html", "must end with .html")
            check(self, "html", self.html.parent.is_dir(), "lies in a folder that does not exist")
            inside = self.data is not None and self.html.resolve().is_relative_to(Path(self.data).resolve())
            check(self, "html", not inside, "lies in the data folder, which holds the data set and nothing else")
