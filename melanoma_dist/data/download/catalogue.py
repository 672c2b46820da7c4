"""The challenges' official files: what each is called, where it comes from, how big it is and under which licence.

`melanoma_dist.data.sources` reads them from here: a table flat in ``RAW/<year>/``, an archive in a
folder of its own name there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from melanoma_dist.config.data import BASE_URL

OLDER_BASE_URL = "https://isic-challenge-data.s3.amazonaws.com"
"""The same files under the address that older tools use."""

PARTS = ("images", "labels", "masks")
_KB, _MB = 10**3, 10**6


@dataclass(frozen=True)
class Licence:
    """The terms that files come under."""

    name: str
    short: str
    url: str
    non_commercial: bool


_CC0 = Licence("CC0 1.0 Universal", "CC0", "https://creativecommons.org/publicdomain/zero/1.0/", False)
_BY_NC = Licence(
    "Creative Commons Attribution-NonCommercial 4.0",
    "CC BY-NC 4.0",
    "https://creativecommons.org/licenses/by-nc/4.0/",
    True,
)

_CODELLA_2017 = "Codella et al. 2018, arXiv:1710.05006"
_CODELLA_2018 = "Codella et al. 2019, arXiv:1902.03368"
_HAM10000 = "Tschandl et al. 2018 (HAM10000), doi:10.1038/sdata.2018.161"
_BCN20000 = "Combalia et al. 2019 (BCN20000), arXiv:1908.02288"
CITATIONS = {
    2017: (_CODELLA_2017,),
    2018: (_CODELLA_2018, _HAM10000),
    2019: (_HAM10000, _CODELLA_2017, _BCN20000),
}
"""The papers to cite where a year is used."""


@dataclass(frozen=True)
class Item:
    """One official file."""

    year: int
    part: str
    """``images``, ``labels`` (metadata and lesion groupings too) or ``masks``."""
    name: str
    url: str
    bytes: int
    """About how large it is: for display and for room on the disk, never for verification."""
    licence: Licence
    count: int
    """How many images or masks an archive holds, or rows a table."""

    @property
    def stem(self) -> str:
        """The folder that an archive unpacks to, and the table's name without ``.csv``."""
        return self.name.rpartition(".")[0]

    @property
    def is_archive(self) -> bool:
        """Whether it is unpacked, not kept as it is."""
        return self.name.endswith(".zip")

    @property
    def label(self) -> str:
        """What it is called where years are mixed: ``2019/ISIC_2019_Test_Input.zip``."""
        return f"{self.year}/{self.name}"


@dataclass(frozen=True)
class _Entry:
    part: str
    name: str
    bytes: int
    count: int
    licence: Licence = _BY_NC


def catalogue(years: Iterable[int], parts: Iterable[str] = PARTS, base_url: str = BASE_URL) -> tuple[Item, ...]:
    """The files of ``parts`` of ``years``, the small ones of a year first; addresses are ``base_url/<year>/<file>``."""
    base, parts = base_url.rstrip("/"), set(parts)
    return tuple(
        Item(year, e.part, e.name, f"{base}/{year}/{e.name}", e.bytes, e.licence, e.count)
        for year in sorted(set(years))
        for e in sorted(_ENTRIES[year], key=lambda entry: entry.bytes)
        if e.part in parts
    )


def _entries_2017() -> Iterator[_Entry]:
    """The metadata tables of 2017 come inside the archives of its images."""
    for split, images, masks, labels, count in (
        ("Training", 5_800 * _MB, 9 * _MB, 50 * _KB, 2000),
        ("Validation", 878 * _MB, 559 * _KB, 4 * _KB, 150),
        ("Test_v2", 5_400 * _MB, 18 * _MB, 15 * _KB, 600),
    ):
        prefix = f"ISIC-2017_{split}"
        yield _Entry("images", f"{prefix}_Data.zip", images, count, _CC0)
        yield _Entry("labels", f"{prefix}_Part3_GroundTruth.csv", labels, count, _CC0)
        yield _Entry("masks", f"{prefix}_Part1_GroundTruth.zip", masks, count, _CC0)


def _entries_2018() -> Iterator[_Entry]:
    """Task 3, and the masks of Task 1.

    The images of Task 1-2 (13 GB) are no entry: they carry no diagnosis, and what `data prepare` uses of these tasks is
    their masks, for images that another year labels.
    """
    for split, images, labels, count, masks, mask_count in (
        ("Training", 2_600 * _MB, 36 * _KB, 10015, 26 * _MB, 2594),
        ("Validation", 51 * _MB, 2 * _KB, 193, 742 * _KB, 100),
        ("Test", 401 * _MB, 7 * _KB, 1512, 9 * _MB, 1000),
    ):
        yield _Entry("images", f"ISIC2018_Task3_{split}_Input.zip", images, count)
        yield _Entry("labels", f"ISIC2018_Task3_{split}_GroundTruth.zip", labels, count)
        yield _Entry("masks", f"ISIC2018_Task1_{split}_GroundTruth.zip", masks, mask_count, _CC0)
    yield _Entry("labels", "ISIC2018_Task3_Training_LesionGroupings.csv", 430 * _KB, 10015)


def _entries_2019() -> Iterator[_Entry]:
    for split, images, labels, metadata, count in (
        ("Training", 9_100 * _MB, 1_300 * _KB, 1_200 * _KB, 25331),
        ("Test", 3_600 * _MB, 400 * _KB, 260 * _KB, 8238),
    ):
        yield _Entry("images", f"ISIC_2019_{split}_Input.zip", images, count)
        yield _Entry("labels", f"ISIC_2019_{split}_GroundTruth.csv", labels, count)
        yield _Entry("labels", f"ISIC_2019_{split}_Metadata.csv", metadata, count)


_ENTRIES = {2017: tuple(_entries_2017()), 2018: tuple(_entries_2018()), 2019: tuple(_entries_2019())}
