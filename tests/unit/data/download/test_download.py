from __future__ import annotations

import errno
import json
import os
import re
import shutil
from pathlib import Path

import pytest

from melanoma_dist import console
from melanoma_dist.config.data import BASE_URL
from melanoma_dist.data.download import pool
from melanoma_dist.data.download.catalogue import official_files
from melanoma_dist.data.sources.registry import read_collections
from melanoma_dist.errors import ConfigError, DataError, DownloadError
from melanoma_dist.storage import atomic
from melanoma_dist.storage.locks import lock_folder

from .server import Site
from .site import FILES, IMAGES, TABLE, get, leftovers, record


def test_the_catalogue_has_official_addresses() -> None:
    files = official_files((2017, 2018, 2019))
    assert len({file.url for file in files}) == len(files) == 25
    assert all(file.url == f"{BASE_URL}/{file.year}/{file.name}" for file in files)
    assert 25e9 < sum(file.bytes for file in files) < 40e9
    assert not [file for file in files if "Task1-2" in file.name]
    assert {file.year for file in files if file.licence.non_commercial} == {2018, 2019}


def test_prepare_reads_what_was_downloaded(site: Site, raw: Path) -> None:
    get(site, raw, 2017, 2018, 2019, accept_license=True)
    years = {int(each.name): each for each in read_collections(raw, ("2017", "2018", "2019"))}
    assert {number: len(year.records) for number, year in years.items()} == {2017: 6, 2018: 6, 2019: 4}
    assert {number: len(year.files) for number, year in years.items()} == {2017: 6, 2018: 6, 2019: 4}
    assert {number: len(year.masks) for number, year in years.items()} == {2017: 6, 2018: 6, 2019: 0}
    assert all(not year.notes for year in years.values())
    assert set(years[2017].records["age"]) == {55}
    assert set(years[2018].records["lesion_id"].dropna()) == {"HAM_0000001"}
    assert set(years[2019].records["lesion_id"].dropna()) == {"L1"}
    assert not [*leftovers(raw), *raw.rglob("*superpixels*"), *raw.rglob("__MACOSX")]


def test_the_record_has_the_hash_of_the_downloaded_bytes(site: Site, raw: Path, tmp_path: Path) -> None:
    get(site, raw)
    entries = record(raw)
    assert set(entries) == {file.name for file in official_files((2017,))}
    for name, entry in entries.items():
        (tmp_path / "sent").write_bytes(FILES[f"/2017/{name}"])
        assert entry["sha256"] == atomic.sha256(tmp_path / "sent")
        assert entry["bytes"] == len(FILES[f"/2017/{name}"])
        assert (entry["url"], entry["licence"]) == (f"{site.url}/2017/{name}", "CC0")
        assert entry["when"].endswith("+00:00")
    assert entries["ISIC-2017_Training_Data.zip"]["unpacked"]["files"] == 3
    assert entries["ISIC-2017_Training_Part3_GroundTruth.csv"]["unpacked"] is None


def test_a_second_run_downloads_nothing(site: Site, raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    get(site, raw)
    site.log.clear()
    before = {path: path.stat().st_mtime_ns for path in raw.rglob("*")}
    get(site, raw)
    assert site.log == []
    assert {path: path.stat().st_mtime_ns for path in raw.rglob("*")} == before
    assert capsys.readouterr().out.count("unchanged since its download") == 9


@pytest.mark.parametrize(
    "file", ["ISIC-2017_Training_Part3_GroundTruth.csv", "ISIC-2017_Training_Data/ISIC-2017_Training_Data_metadata.csv"]
)
def test_a_changed_file_is_detected(file: str, site: Site, raw: Path) -> None:
    get(site, raw)
    path = raw / "2017" / file
    # A table of the same length differs only in its hash; members of archives are checked by size.
    path.write_bytes(path.read_bytes().replace(b"0", b"1", 1) + b"\n" * (path.parent.name != "2017"))
    with pytest.raises(DataError, match=r"has changed since it was downloaded.*Delete it to download it again"):
        get(site, raw)
    changed = path if path.parent.name == "2017" else path.parent
    shutil.rmtree(changed) if changed.is_dir() else changed.unlink()
    site.log.clear()
    get(site, raw)
    assert len(site.log) == 1


def test_a_missing_member_is_detected(site: Site, raw: Path) -> None:
    get(site, raw)
    next((raw / "2017/ISIC-2017_Training_Data").glob("*.jpg")).unlink()
    with pytest.raises(DataError, match=r"2 files of .* bytes, 3 of"):
        get(site, raw)


def test_files_of_the_user_are_used(site: Site, raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nested = raw / "2017/ISIC-2017_Training_Data/ISIC-2017_Training_Data"
    nested.mkdir(parents=True)
    (nested / "ISIC_0000001.jpg").write_bytes(b"user's")
    (raw / TABLE[1:]).write_bytes(b"image_id,melanoma,seborrheic_keratosis\n")
    get(site, raw)
    assert site.statuses(IMAGES) == site.statuses(TABLE) == []
    assert "not downloaded, but there (1 images, 2 expected)" in capsys.readouterr().out
    assert (nested / "ISIC_0000001.jpg").read_bytes() == b"user's"
    assert "ISIC-2017_Training_Data.zip" not in record(raw)


def test_a_foreign_file_in_the_place_is_an_error(site: Site, raw: Path) -> None:
    other = raw / "2017/ISIC-2017_Training_Data/thesis.doc"
    other.parent.mkdir(parents=True)
    other.touch()
    with pytest.raises(DataError, match="Move it away"):
        get(site, raw)
    assert site.log == []
    assert other.exists()


def test_listing_downloads_and_writes_nothing(site: Site, raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    get(site, raw, 2018, list=True)
    assert not raw.exists()
    get(site, raw, parts=("images", "masks"))
    site.fail(TABLE, "truncate", "truncate", "503", "503", "503")
    with pytest.raises(DownloadError):
        get(site, raw)
    os.environ.pop("COLUMNS", None)
    site.log.clear()
    capsys.readouterr()
    get(site, raw, 2017, list=True)
    assert site.log == []
    lines = capsys.readouterr().out.splitlines()
    assert sum("downloaded (" in line for line in lines) == 6
    assert [line for line in lines if "Training_Data.zip" in line and "about 5.8 GB" in line and "CC0" in line]


def test_partial_files_are_listed_as_partial(site: Site, raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site.files[IMAGES] = os.urandom(400_000)
    site.fail(IMAGES, "truncate", "503", "503", "503")
    with pytest.raises(DownloadError):
        get(site, raw, parts=("images",))
    get(site, raw, list=True, parts=("images",))
    assert "partial (49%)" in capsys.readouterr().out


def test_licences_are_accepted_once(site: Site, raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=r"--accept-license is missing: 2018 CC BY-NC 4\.0"):
        get(site, raw, 2017, 2018)
    assert "arXiv:1902.03368" in capsys.readouterr().out
    assert (site.log, raw.exists()) == ([], False)
    get(site, raw, 2018, parts=("masks",))
    assert not (raw / "licenses.json").exists()
    get(site, raw, 2018, parts=("labels",), accept_license=True)
    accepted = json.loads((raw / "licenses.json").read_text())
    assert accepted.keys() == {"2018"}
    assert accepted["2018"].keys() == {"licence", "url", "accepted"}
    get(site, raw, 2018)
    with pytest.raises(ConfigError, match="2019 CC BY-NC"):
        get(site, raw, 2018, 2019)


def test_unreadable_records_are_named(site: Site, raw: Path) -> None:
    raw.mkdir()
    (raw / "licenses.json").write_text("[]")
    with pytest.raises(DataError, match=r"licenses\.json"):
        get(site, raw, 2018)
    (raw / "licenses.json").unlink()
    get(site, raw, parts=("labels",))
    (raw / "2017/download.json").write_text('{"files": {"a": 1}}')
    with pytest.raises(DataError, match=r"download\.json"):
        get(site, raw)


def test_a_full_disk_is_reported_with_numbers(site: Site, raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**12, 0, 15 * 10**9))  # type: ignore[attr-defined]
    with pytest.raises(DataError, match=r"about 19\.1 GB more are needed.* 15\.0 GB are free"):
        get(site, raw)
    assert (site.log, raw.exists()) == ([], False)
    get(site, raw, parts=("labels", "masks"))


@pytest.mark.parametrize(
    ("code", "advice"),
    [(errno.ENOSPC, "The disk is full. Free some space"), (errno.EFBIG, "allows no file of this size")],
)
def test_a_disk_error_is_one_message(
    code: int, advice: str, site: Site, raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(code, "no")

    monkeypatch.setattr(pool, "record_download", full)
    with pytest.raises(DataError, match=rf"{advice}.*, then run the same command again"):
        get(site, raw)
    assert not list(raw.rglob(".*.unpacking"))
    monkeypatch.undo()
    site.log.clear()
    get(site, raw)
    assert not leftovers(raw)


def test_progress_is_printed_to_a_pipe(
    site: Site, raw: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "_PLAIN_INTERVAL_S", -1.0)
    get(site, raw)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("downloading: ")]
    assert re.fullmatch(r"downloading: .* KB of about 12\.1 GB, .*B/s, \d+ min left", lines[-1])


def test_a_second_command_is_refused(site: Site, raw: Path) -> None:
    raw.mkdir(exist_ok=True)
    with lock_folder(raw, DataError("ours")), pytest.raises(DataError, match="another download uses this folder"):
        get(site, raw)
    get(site, raw)
