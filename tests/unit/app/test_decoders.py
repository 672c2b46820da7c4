"""A file that crashes, blocks or bloats its decoder is that image's error; the next image is decoded."""

from __future__ import annotations

import io
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from PIL import Image

from melanoma_dist.app.decoders import Decoders
from melanoma_dist.app.inspection import inspect_bytes

from ...conftest import ROOT
from .server.conftest import lesion


@pytest.fixture
def decoders() -> Iterator[Decoders]:
    pool = Decoders(1, image_size=64, seconds=5, max_pixels=1_000_000)
    yield pool
    pool.close()


def error(decoders: Decoders, data: bytes) -> str:
    photo = decoders.submit("image", data).result().photo
    return "" if photo.jpeg else photo.failures[0][1]


def png_of(width: int, height: int) -> bytes:
    """A PNG whose header claims a size and whose pixels are few bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(3_000_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_images_are_prepared_as_by_the_command(decoders: Decoders) -> None:
    result = decoders.submit("image", lesion(0)).result()
    expected = inspect_bytes("image", lesion(0), 64)
    assert result == expected


def test_signals_for_the_program_interrupt_no_image(decoders: Decoders) -> None:
    pids = decoders.pids()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        os.kill(pids[0], number)
    assert error(decoders, lesion(0)) == ""
    assert decoders.pids() == pids


def test_a_killed_decoder_is_replaced(decoders: Decoders) -> None:
    [first] = decoders.pids()
    os.kill(first, signal.SIGSTOP)  # so that it dies in the middle of the image
    waiting = decoders.submit("image", lesion(0))
    time.sleep(0.3)
    os.kill(first, signal.SIGKILL)
    assert waiting.result().photo.failures[0][1] == "its decoder crashed"
    assert error(decoders, lesion(1)) == ""
    assert decoders.pids() != [first]


def test_a_decoder_that_is_killed_while_it_starts_is_replaced_too(
    decoders: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    [first] = decoders.pids()
    os.kill(first, signal.SIGKILL)
    time.sleep(0.3)
    from melanoma_dist.app import decoders as module

    with monkeypatch.context() as broken:
        broken.setattr(module, "_START_S", 0.0)  # stands for a process that never gets ready
        assert error(decoders, lesion(0)) == "its decoder crashed"
    assert error(decoders, lesion(1)) == ""


def test_a_decoder_that_hangs_is_replaced_after_its_time() -> None:
    pool = Decoders(1, image_size=64, seconds=2, max_pixels=1_000_000)
    [first] = pool.pids()
    os.kill(first, signal.SIGSTOP)
    start = time.monotonic()
    assert "took more than 2 s" in error(pool, lesion(0))
    assert time.monotonic() - start < 5
    assert error(pool, lesion(1)) == ""
    pool.close()


@pytest.mark.parametrize("size", [(30_000, 30_000), (65_000, 60_000), (2**31 - 1, 2**31 - 1)])
def test_a_bomb_is_refused_by_its_header(decoders: Decoders, size: tuple[int, int]) -> None:
    start = time.monotonic()
    assert error(decoders, png_of(*size))
    assert time.monotonic() - start < 2
    assert error(decoders, lesion(0)) == ""


def test_a_killed_server_of_processes_is_replaced(decoders: Decoders) -> None:
    from melanoma_dist.app.decoders import _SERVER

    [first] = decoders.pids()
    assert _SERVER._process is not None
    _SERVER._process.kill()
    os.kill(first, signal.SIGKILL)
    time.sleep(0.3)
    assert error(decoders, lesion(0)) == ""
    assert decoders.pids() != [first]


def test_processes_do_not_import_the_script_that_runs(tmp_path: Path) -> None:
    """Not even one without ``if __name__ == "__main__"``; nor do they read modules of the current folder."""
    (tmp_path / "photograph.jpg").write_bytes(lesion(0))
    (tmp_path / "script.py").write_text(
        "print('imported')\n"
        "from pathlib import Path\n"
        "from melanoma_dist.app.decoders import Decoders\n"
        "with Decoders(2, 64, 60) as decoders:\n"
        "    [image] = decoders.inspect_files([Path('photograph.jpg')])\n"
        "print(image.photo.width, decoders.pids())\n"
    )
    (elsewhere := tmp_path / "elsewhere").mkdir()
    (elsewhere / "imagehash.py").write_text("raise SystemExit('a stranger was imported')\n")
    (elsewhere / "photograph.jpg").write_bytes(lesion(0))
    command = [sys.executable, "-W", "error", str(tmp_path / "script.py")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == ["imported", "86 []"]


def test_processes_end_with_a_program_that_is_killed(tmp_path: Path) -> None:
    script = (
        "import time; from melanoma_dist.app.decoders import Decoders; decoders = Decoders(2, 64, 60);"
        "print(*decoders.pids(), flush=True); time.sleep(100)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        pids = list(map(int, program.stdout.readline().split()))
        assert len(pids) == 2
        servers = {psutil.Process(pid).ppid() for pid in pids}
        program.kill()
    deadline = time.monotonic() + 30
    while any(psutil.pid_exists(pid) for pid in (*pids, *servers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in (*pids, *servers) if psutil.pid_exists(pid)]


def test_an_image_above_the_limit_of_the_server_is_refused(decoders: Decoders) -> None:
    buffer = io.BytesIO()
    Image.effect_noise((1200, 1000), 50).convert("RGB").save(buffer, "JPEG")
    assert "1,200,000 pixels, more than the 1,000,000" in error(decoders, buffer.getvalue())


def test_processes_leave_no_core_dump_and_end_with_the_pool() -> None:
    pool = Decoders(2, image_size=64, seconds=5, max_pixels=1_000_000)
    pids = pool.pids()
    assert len(pids) == 2
    for pid in pids:
        with open(f"/proc/{pid}/limits") as limits:
            [core] = [line for line in limits if line.startswith("Max core file size")]
        assert core.split()[4:6] == ["0", "0"]
    pool.close()
    assert not [pid for pid in pids if os.path.exists(f"/proc/{pid}")]


def test_files_come_back_in_order_and_those_that_cannot_be_read_have_a_reason(
    decoders: Decoders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("melanoma_dist.app.decoders._AHEAD", 2)
    for number in range(5):
        (tmp_path / f"{number}.jpg").write_bytes(lesion(number))
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "link.jpg").symlink_to("link.jpg")
    names = ["0.jpg", "gone.jpg", "link.jpg", "1.jpg", "pipe.jpg", "2.jpg", "folder.jpg", "3.jpg", "4.jpg"]
    photos = [each.photo for each in decoders.inspect_files([tmp_path / name for name in names])]
    assert [photo.image_id for photo in photos] == [str(tmp_path / name) for name in names]
    reasons = [photo.failures[0][1] if photo.failures else "" for photo in photos]
    assert [bool(reason) for reason in reasons] == [not name[0].isdigit() for name in names]
    assert reasons[1] == "No such file or directory"
    assert reasons[2].startswith("a link that leads nowhere (Too many levels of symbolic links")
    assert "not a regular file" in reasons[4]


def test_the_pool_closes_at_once_while_a_process_hangs() -> None:
    pool = Decoders(1, image_size=64, seconds=60)
    [pid] = pool.pids()
    os.kill(pid, signal.SIGSTOP)
    hanging, waiting = pool.submit("image", lesion(0)), pool.submit("image", lesion(1))
    time.sleep(0.2)
    start = time.monotonic()
    pool.close()
    assert time.monotonic() - start < 10
    assert hanging.result().photo.failures[0][1] == "its decoder crashed"
    assert waiting.cancelled()
    assert not os.path.exists(f"/proc/{pid}")
