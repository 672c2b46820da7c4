"""The catalogue of the challenges' official files: names, addresses, sizes, counts and licences.

Files go where `melanoma_dist.data.sources` reads them: a table into ``RAW/<year>/``, an archive into a folder of its
own name there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from melanoma_dist.config.data import BASE_URL

PARTS = ("images", "labels", "masks")
_KB, _MB = 10**3, 10**6


@dataclass(frozen=True)
class Licence:
    """The licence of a file."""

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
"""The papers to cite for each year."""


@dataclass(frozen=True)
class OfficialFile:
    """One official file."""

    year: int
    part: str
    """``images``, ``labels`` (with metadata and lesion groupings) or ``masks``."""
    name: str
    bytes: int
    """Approximate size, for display and to check free space, never for verification."""
    count: int
    """Number of images or masks of an archive, or of rows of a table."""
    licence: Licence = _BY_NC
    url: str = ""
    """Set by `official_files`."""

    @property
    def stem(self) -> str:
        """The folder that an archive unpacks to, or the table's name without ``.csv``."""
        return self.name.rpartition(".")[0]

    @property
    def is_archive(self) -> bool:
        """Whether it is unpacked, not kept as it is."""
        return self.name.endswith(".zip")

    @property
    def label(self) -> str:
        """Its name in messages: ``2019/ISIC_2019_Test_Input.zip``."""
        return f"{self.year}/{self.name}"


def official_files(
    years: Iterable[int], parts: Iterable[str] = PARTS, base_url: str = BASE_URL
) -> tuple[OfficialFile, ...]:
    """List the files of ``parts`` of ``years``, the smallest of a year first, with URLs ``base_url/<year>/<file>``."""
    base, parts = base_url.rstrip("/"), set(parts)
    return tuple(
        replace(file, url=f"{base}/{file.label}")
        for year in sorted(set(years))
        for file in sorted(_FILES[year], key=lambda file: file.bytes)
        if file.part in parts
    )


def _files_2017() -> Iterator[OfficialFile]:
    """List the files of 2017. The archives of its images hold its metadata tables."""
    for split, images, masks, labels, count in (
        ("Training", 5_800 * _MB, 9 * _MB, 50 * _KB, 2000),
        ("Validation", 878 * _MB, 559 * _KB, 4 * _KB, 150),
        ("Test_v2", 5_400 * _MB, 18 * _MB, 15 * _KB, 600),
    ):
        prefix = f"ISIC-2017_{split}"
        yield OfficialFile(2017, "images", f"{prefix}_Data.zip", images, count, _CC0)
        yield OfficialFile(2017, "labels", f"{prefix}_Part3_GroundTruth.csv", labels, count, _CC0)
        yield OfficialFile(2017, "masks", f"{prefix}_Part1_GroundTruth.zip", masks, count, _CC0)


def _files_2018() -> Iterator[OfficialFile]:
    """List the files of Task 3, and the masks of Task 1.

    The images of Task 1-2 (13 GB) are left out, because they carry no diagnosis. `data prepare` uses only the masks of
    these tasks, for images that another year labels.
    """
    for split, images, labels, count, masks, mask_count in (
        ("Training", 2_600 * _MB, 36 * _KB, 10015, 26 * _MB, 2594),
        ("Validation", 51 * _MB, 2 * _KB, 193, 742 * _KB, 100),
        ("Test", 401 * _MB, 7 * _KB, 1512, 9 * _MB, 1000),
    ):
        yield OfficialFile(2018, "images", f"ISIC2018_Task3_{split}_Input.zip", images, count)
        yield OfficialFile(2018, "labels", f"ISIC2018_Task3_{split}_GroundTruth.zip", labels, count)
        yield OfficialFile(2018, "masks", f"ISIC2018_Task1_{split}_GroundTruth.zip", masks, mask_count, _CC0)
    yield OfficialFile(2018, "labels", "ISIC2018_Task3_Training_LesionGroupings.csv", 430 * _KB, 10015)


def _files_2019() -> Iterator[OfficialFile]:
    for split, images, labels, metadata, count in (
        ("Training", 9_100 * _MB, 1_300 * _KB, 1_200 * _KB, 25331),
        ("Test", 3_600 * _MB, 400 * _KB, 260 * _KB, 8238),
    ):
        yield OfficialFile(2019, "images", f"ISIC_2019_{split}_Input.zip", images, count)
        yield OfficialFile(2019, "labels", f"ISIC_2019_{split}_GroundTruth.csv", labels, count)
        yield OfficialFile(2019, "labels", f"ISIC_2019_{split}_Metadata.csv", metadata, count)


_FILES = {2017: tuple(_files_2017()), 2018: tuple(_files_2018()), 2019: tuple(_files_2019())}
