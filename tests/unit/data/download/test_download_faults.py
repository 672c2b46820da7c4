"""The whole command against faulty servers, kills and interrupts."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import melanoma_dist
from melanoma_dist.cli import main
from melanoma_dist.errors import DataError, DownloadError

from .server import Site
from .site import FILES, IMAGES, TABLE, get, leftovers, pack, record, whole_masks

LAUNCH = Path(melanoma_dist.__file__).parents[1] / "launch.py"
MASKS = "/2017/ISIC-2017_Training_Part1_GroundTruth.zip"


def test_a_corrupt_archive_is_fetched_again(site: Site, raw: Path) -> None:
    site.fail(IMAGES, "corrupt")
    get(site, raw)
    assert site.statuses(IMAGES) == [200, 200]
    assert not leftovers(raw)


@pytest.mark.parametrize("path", [IMAGES, TABLE])
def test_a_wrong_file_does_not_stop_the_others(path: str, site: Site, raw: Path) -> None:
    site.files[path] = b"please log in"
    with pytest.raises(DownloadError, match=rf"{path[1:]}.*fetched twice from {site.url}"):
        get(site, raw)
    assert len(record(raw)) == 8
    assert not leftovers(raw)
    site.files[path] = FILES[path]
    site.log.clear()
    get(site, raw)
    assert [request.path for request in site.log] == [path]


def test_a_hostile_archive_is_refused_and_leaves_nothing(site: Site, raw: Path, tmp_path: Path) -> None:
    site.files[IMAGES] = pack({"../../evil": b"evil"})
    with pytest.raises(DataError, match="refused"):
        get(site, raw)
    assert not [*leftovers(raw), *tmp_path.rglob("evil*")]
    assert site.statuses(IMAGES) == [200]


def test_all_failures_are_reported_together(site: Site, raw: Path) -> None:
    site.fail(IMAGES, "404")
    site.fail(TABLE, "403")
    with pytest.raises(DownloadError, match="2 files could not be downloaded") as caught:
        get(site, raw)
    assert {IMAGES[1:], TABLE[1:]} <= set(str(caught.value).replace(":", " ").split())
    assert len(record(raw)) == 7


def test_an_unreachable_server_is_not_tried_for_every_file(site: Site, raw: Path) -> None:
    site.url = "http://127.0.0.1:9"
    with pytest.raises(DownloadError, match="more files were not tried") as caught:
        get(site, raw)
    assert caught.value.exit_code == 1


def test_a_mistake_is_one_message_and_exit_code_2(
    site: Site,
    raw: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert main(["data", "download", "--raw", str(raw), "--years", "2018", "--base-url", site.url]) == 2
    assert capfd.readouterr().err.startswith("error: --accept-license is missing")
    assert main(["data", "download", "--raw", str(raw), "--years", "2017", "--base-url", "ftp://server"]) == 2
    raw.write_text("a file")
    assert main(["data", "download", "--raw", str(raw), "--years", "2017", "--base-url", site.url]) == 2
    assert "Traceback" not in capfd.readouterr().err


def start(site: Site, raw: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(LAUNCH), "data", "download", "--raw", str(raw), "--years", "2017"]
    command += ["--parts", "masks", "--base-url", site.url]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=raw.parent)


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def partial_size(raw: Path) -> int:
    part = raw / (MASKS[1:] + ".part")
    return part.stat().st_size if part.exists() else 0


def test_a_killed_command_resumes_to_verified_files(site: Site, raw: Path) -> None:
    site.files |= whole_masks(400_000)
    site.fail(MASKS, "drip")
    with start(site, raw) as process:
        wait_until(lambda: partial_size(raw) > 100_000)
        process.send_signal(signal.SIGKILL)
    size = partial_size(raw)
    assert 100_000 < size < len(site.files[MASKS])
    with start(site, raw) as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "all 3 files are there" in out
    resumed = [request for request in site.log if request.path == MASKS][-1]
    assert (resumed.range, resumed.status) == (f"bytes={size}-", 206)
    assert not leftovers(raw)
    site.log.clear()
    get(site, raw, parts=("masks",))
    assert site.log == []


def test_ctrl_c_ends_soon_and_keeps_the_bytes(site: Site, raw: Path) -> None:
    site.files |= whole_masks(200_000)
    site.fail(MASKS, "stall")
    with start(site, raw) as process:
        wait_until(lambda: partial_size(raw) > 100_000)
        start_s = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert time.monotonic() - start_s < 5
    assert process.returncode == 130
    assert err == "interrupted. Downloaded bytes are kept in .part files. Run the same command again to resume.\n"
    assert partial_size(raw) > 100_000


def test_a_kill_after_unpacking_leaves_an_archive_that_the_next_run_removes(site: Site, raw: Path) -> None:
    get(site, raw)
    archive = raw / f"{IMAGES[1:]}.part"
    archive.write_bytes(FILES[IMAGES])
    site.log.clear()
    get(site, raw)
    assert site.log == []
    assert not archive.exists()
