from __future__ import annotations

import io
import shutil
import stat
import warnings
import zipfile
from pathlib import Path

import pytest

from melanoma_dist.data.download.archive import CorruptArchive, FolderSize, Limits, folder_size, unpack
from melanoma_dist.errors import DataError

from ...hostile import fuzz_reader
from .site import pack

DEFAULT_LIMITS = Limits()
GOOD = {"Data/ISIC_0000001.jpg": b"one", "Data/ISIC_0000002.jpg": b"two"}


def unpack_bytes(tmp_path: Path, data: bytes, limits: Limits = DEFAULT_LIMITS) -> dict[str, bytes]:
    """Unpack; return the content of the target."""
    archive = tmp_path / "downloads" / "Data.zip.part"
    archive.parent.mkdir(exist_ok=True)
    archive.write_bytes(data)
    target = tmp_path / "raw" / "Data"
    with unpack(archive, target, "2017/Data.zip", limits) as folder:
        assert not list(target.glob("*"))
        size = folder_size(folder)
    files = {path.relative_to(target).as_posix(): path.read_bytes() for path in target.rglob("*") if path.is_file()}
    assert size == FolderSize(len(files), sum(map(len, files.values())))
    return files


def require_refused(tmp_path: Path, data: bytes, why: str, limits: Limits = DEFAULT_LIMITS) -> None:
    with pytest.raises(DataError, match=why) as caught:
        unpack_bytes(tmp_path, data, limits)
    assert "2017/Data.zip" in str(caught.value)
    assert not isinstance(caught.value, CorruptArchive), "a refused archive is not fetched again"
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert left == [tmp_path / "downloads" / "Data.zip.part"]
    assert not list(tmp_path.glob("raw/*"))


def member(name: str, data: bytes = b"evil", **attributes: int) -> bytes:
    """Make a zip file with one good member and a crafted one."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("Data/good.jpg", b"good")
        info = zipfile.ZipInfo("placeholder")
        info.filename = name
        for key, value in attributes.items():
            setattr(info, key, value)
        archive.writestr(info, data)
    return packed.getvalue()


def test_folders_around_everything_are_dropped(tmp_path: Path) -> None:
    expected = {"ISIC_0000001.jpg": b"one", "ISIC_0000002.jpg": b"two"}
    for number, around in enumerate(("", "Data/", "Any/Other/")):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert unpack_bytes(folder, pack({around + name: data for name, data in expected.items()})) == expected


def test_inner_folders_stay(tmp_path: Path) -> None:
    assert set(unpack_bytes(tmp_path, pack({"Data/a/1": b"", "Data/b/1": b"", "Data/": b""}))) == {"a/1", "b/1"}


def test_ignored_files_are_left_out(tmp_path: Path) -> None:
    extra = {"__MACOSX/Data/._x.jpg": b"", "Data/.DS_Store": b"", "Data/ISIC_0000001_superpixels.png": b""}
    assert set(unpack_bytes(tmp_path, pack(GOOD | extra))) == {"ISIC_0000001.jpg", "ISIC_0000002.jpg"}


def test_the_target_may_be_empty_but_not_full(tmp_path: Path) -> None:
    (tmp_path / "raw" / "Data").mkdir(parents=True)
    assert len(unpack_bytes(tmp_path, pack(GOOD))) == 2
    with (
        pytest.raises(OSError, match="not empty"),
        unpack(tmp_path / "downloads/Data.zip.part", tmp_path / "raw/Data"),
    ):
        pass
    assert [path.name for path in (tmp_path / "raw").iterdir()] == ["Data"]


def test_leftovers_of_a_kill_are_replaced(tmp_path: Path) -> None:
    left = tmp_path / "raw" / ".Data.unpacking" / "old.jpg"
    left.parent.mkdir(parents=True)
    left.touch()
    assert "old.jpg" not in unpack_bytes(tmp_path, pack(GOOD))
    assert not left.exists()


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "Data/../../evil",
        "/etc/evil",
        "C:/evil",
        "c:evil",
        "Data\\..\\evil",
        "\\\\host\\evil",
        "./evil",
        "a//b",
        "x" * 300,
    ],
)
def test_names_that_lead_outside_are_refused(tmp_path: Path, name: str) -> None:
    require_refused(tmp_path, member(name), "refused, its member .* has a name")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFBLK, stat.S_IFSOCK])
def test_links_and_special_files_are_refused(tmp_path: Path, kind: int) -> None:
    data = member("Data/link", b"/etc/passwd", external_attr=(kind | 0o777) << 16)
    require_refused(tmp_path, data, "neither a file nor a folder")


def test_encrypted_members_are_refused(tmp_path: Path) -> None:
    data = bytearray(pack(GOOD))
    data[data.index(b"PK\x01\x02") + 8] |= 1
    require_refused(tmp_path, bytes(data), "is encrypted")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_unusual_compressions_are_refused(tmp_path: Path, method: int) -> None:
    require_refused(tmp_path, pack(GOOD, method), "no official archive uses")


@pytest.mark.parametrize("second", ["Data/ISIC_0000001.jpg", "Data/isic_0000001.JPG", "Data/ISIC_0000001.jpg/inner"])
def test_two_members_of_one_name_are_refused(tmp_path: Path, second: str) -> None:
    packed = io.BytesIO(pack(GOOD))
    with zipfile.ZipFile(packed, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns about the second name
        archive.writestr(second, b"other")
    require_refused(tmp_path, packed.getvalue(), "two members|in another file")


def test_bombs_are_refused_by_their_unpacked_size(tmp_path: Path) -> None:
    require_refused(tmp_path, pack({"Data/zeros": bytes(3_000_000)}), "zip bomb")
    require_refused(tmp_path, pack(GOOD), "zip bomb", Limits(bytes=5))
    require_refused(tmp_path, pack(GOOD), "2 members, more than 1", Limits(members=1))


def test_members_that_share_their_bytes_each_count(tmp_path: Path) -> None:
    """A bomb without high compression: many entries point to one body."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("Data/0", bytes(range(256)) * 400)
        first = archive.infolist()[0]
        for number in range(1, 500):
            info = zipfile.ZipInfo(f"Data/{number}")
            info.CRC, info.file_size, info.compress_size = first.CRC, first.file_size, first.compress_size
            info.header_offset = first.header_offset
            archive.filelist.append(info)
    with pytest.raises(DataError):
        unpack_bytes(tmp_path, packed.getvalue())
    assert not list(tmp_path.glob("raw/*"))


def test_a_false_size_is_corruption(tmp_path: Path) -> None:
    data = bytearray(pack({"Data/zeros": bytes(3_000_000)}))
    at = data.index(b"PK\x01\x02") + 24
    data[at : at + 4] = (1000).to_bytes(4, "little")
    with pytest.raises(CorruptArchive):
        unpack_bytes(tmp_path, bytes(data))


@pytest.mark.parametrize("data", [b"", b"<html>please log in</html>", pack(GOOD)[:-30], pack(GOOD)[40:]])
def test_an_incomplete_archive_is_corrupt(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(CorruptArchive, match="not a complete zip file"):
        unpack_bytes(tmp_path, data)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_wrong_byte_is_corruption_and_leaves_nothing(tmp_path: Path, compression: int) -> None:
    data = bytearray(pack({"Data/a": b"fine", "Data/b": bytes(range(256)) * 40}, compression))
    data[len(data) // 2] ^= 255
    with pytest.raises(CorruptArchive):
        unpack_bytes(tmp_path, bytes(data))
    assert not list(tmp_path.glob("raw/*"))


def test_an_empty_archive_is_refused(tmp_path: Path) -> None:
    require_refused(tmp_path, pack({"__MACOSX/x": b"", "Data/": b""}), "holds no files")


def test_unpacking_can_be_stopped(tmp_path: Path) -> None:
    archive, target = tmp_path / "Data.zip", tmp_path / "raw" / "Data"
    archive.write_bytes(pack(GOOD))

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), unpack(archive, target, check=stop):
        pass
    assert not list(target.parent.iterdir())


def test_a_fuzzed_archive_is_unpacked_or_refused_and_nothing_lies_beside_it(tmp_path: Path) -> None:
    def unpack_it(data: bytes) -> None:
        try:
            unpack_bytes(tmp_path, data)
        finally:
            shutil.rmtree(tmp_path / "raw" / "Data", ignore_errors=True)
            left = [path for path in tmp_path.rglob("*") if path.is_file()]
            assert left == [tmp_path / "downloads" / "Data.zip.part"]

    fuzz_reader(unpack_it, pack(GOOD), DataError)
