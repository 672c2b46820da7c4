"""An incomplete file is never accepted, even if the server announces no length."""

from __future__ import annotations

from pathlib import Path

import pytest

from melanoma_dist.data.download.archive import CorruptArchive
from melanoma_dist.data.download.catalogue import official_files
from melanoma_dist.data.download.local_files import require_rows
from melanoma_dist.data.sources.registry import read_collections
from melanoma_dist.errors import DownloadError

from ...hostile import fuzz_reader
from .server import Site
from .site import FILES, IMAGES, TABLE, get, leftovers, pack, record

ZIPPED = "/2018/ISIC2018_Task3_Training_GroundTruth.zip"
METADATA = "/2019/ISIC_2019_Training_Metadata.csv"


@pytest.mark.usefixtures("official")
def test_the_catalogue_has_the_official_numbers() -> None:
    counts = {file.name.rpartition(".")[0]: file.count for file in official_files((2017, 2018, 2019))}
    splits = {"ISIC-2017": (2000, 150, 600), "ISIC2018_Task3": (10015, 193, 1512), "ISIC2018_Task1": (2594, 100, 1000)}
    for prefix, official in splits.items():
        for split, count in zip(("Training", "Validation", "Test"), official, strict=True):
            numbers = {value for name, value in counts.items() if name.startswith(f"{prefix}_{split}")}
            assert numbers == {count}, (prefix, split)
    for split, count in (("Training", 25331), ("Test", 8238)):
        assert {value for name, value in counts.items() if name.startswith(f"ISIC_2019_{split}")} == {count}


@pytest.mark.parametrize(
    ("members", "count"),
    [
        ({"readme.txt": b"they moved"}, 0),
        ({"Data/ISIC_0000001.jpg": b"one"}, 1),
        ({"Data/ISIC_0000001.jpg": b"one", "Data/ISIC_0000001_segmentation.png": b"no image"}, 1),
        ({"Data/deeper/ISIC_0000001.jpg": b"one", "Data/other/ISIC_000002.jpg": b"no id"}, 1),
    ],
)
def test_an_archive_with_too_few_images_is_refused(
    members: dict[str, bytes], count: int, site: Site, raw: Path
) -> None:
    site.files[IMAGES] = pack(members)
    with pytest.raises(DownloadError, match=rf"Training_Data\.zip: holds {count} images, 2 are expected.*--base-url"):
        get(site, raw)
    assert site.statuses(IMAGES) == [200], "a second copy of an intact archive would hold the same"
    assert not leftovers(raw)
    assert "ISIC-2017_Training_Data.zip" not in record(raw)
    assert not (raw / "2017/ISIC-2017_Training_Data").exists()
    site.files[IMAGES] = FILES[IMAGES]
    get(site, raw)


def test_an_archive_with_a_file_beside_its_folder_is_accepted(site: Site, raw: Path) -> None:
    names = (f"ISIC-2017_Training_Data/ISIC_000000{number}.jpg" for number in range(2))
    site.files[IMAGES] = pack({"LICENSE.txt": b"CC0", **dict.fromkeys(names, b"image")})
    get(site, raw)
    files = read_collections(raw, ("2017",))[0].files
    assert sum("Training_Data" in str(path) for paths in files.values() for path in paths) == 2


@pytest.mark.parametrize("lines_kept", [1, 2], ids=["a row", "a row and a half"])
@pytest.mark.parametrize("path", [TABLE, METADATA])
def test_a_cut_table_is_refused_even_without_an_announced_length(
    lines_kept: int, path: str, site: Site, raw: Path
) -> None:
    lines = FILES[path].splitlines(keepends=True)
    site.files[path] = b"".join(lines[:2]) + (lines[2][:16] if lines_kept == 2 else b"")
    site.fail(path, "no length", "no length")
    year = int(path[1:5])
    with pytest.raises(DownloadError, match=r"csv: has 1 complete rows, 2 are expected\. It was fetched twice"):
        get(site, raw, year, parts=("labels",), accept_license=True)
    assert not (raw / path[1:]).exists()
    site.files[path] = FILES[path]
    site.fail(path, "no length")
    get(site, raw, year, parts=("labels",))
    assert (raw / path[1:]).read_bytes() == FILES[path]


def test_a_cut_table_in_an_archive_is_refused(site: Site, raw: Path) -> None:
    name = "ISIC2018_Task3_Training_GroundTruth"
    site.files[ZIPPED] = pack({f"{name}/{name}.csv": b"image,MEL\nISIC_0000001,1.0\n"})
    with pytest.raises(DownloadError, match=r"has 1 complete rows, 2 are expected"):
        get(site, raw, 2018, parts=("labels",), accept_license=True)
    site.files[ZIPPED] = pack({"readme.txt": b"they moved"})
    with pytest.raises(DownloadError, match="is not a table of images"):
        get(site, raw, 2018, parts=("labels",))
    assert not (raw / "2018" / name).exists()


@pytest.mark.usefixtures("official")
def test_the_real_tables_are_complete(isic: Path) -> None:
    files = [
        file for file in official_files((2017, 2019), ("labels",)) if (isic / str(file.year) / file.name).is_file()
    ]
    assert files
    for file in files:
        require_rows(file, isic / str(file.year) / file.name)


def test_a_fuzzed_table_is_counted_or_refused(tmp_path: Path) -> None:
    file = next(file for file in official_files((2017, 2018, 2019)) if TABLE.endswith(file.name))
    path = tmp_path / file.name

    def count(data: bytes) -> None:
        path.write_bytes(data)
        require_rows(file, path)

    fuzz_reader(count, FILES[TABLE], CorruptArchive)
