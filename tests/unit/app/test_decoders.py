"""A file that crashes, blocks or bloats its decoder is that image's error; the next image is decoded."""

from __future__ import annotations

import io
import os
import signal
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from melanoma_dist.app.decoders import Decoders
from melanoma_dist.app.inspection import inspect_bytes

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
        broken.setattr(module, "_READY", b"another sign")  # stands for a process that never gets ready
        assert error(decoders, lesion(0)) == "its decoder crashed"
    assert error(decoders, lesion(1)) == ""


def test_a_decoder_that_hangs_is_replaced_after_its_time() -> None:
    pool = Decoders(1, image_size=64, seconds=0.5, max_pixels=1_000_000)
    [first] = pool.pids()
    os.kill(first, signal.SIGSTOP)
    start = time.monotonic()
    assert "took more than 0.5 s" in error(pool, lesion(0))
    assert time.monotonic() - start < 5
    assert error(pool, lesion(1)) == ""
    pool.close()


@pytest.mark.parametrize("size", [(30_000, 30_000), (65_000, 60_000), (2**31 - 1, 2**31 - 1)])
def test_a_bomb_is_refused_by_its_header(decoders: Decoders, size: tuple[int, int]) -> None:
    start = time.monotonic()
    assert error(decoders, png_of(*size))
    assert time.monotonic() - start < 2
    assert error(decoders, lesion(0)) == ""


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
    names = ["0.jpg", "gone.jpg", "1.jpg", "pipe.jpg", "2.jpg", "folder.jpg", "3.jpg", "4.jpg"]
    photos = [each.photo for each in decoders.inspect_files([tmp_path / name for name in names])]
    assert [photo.image_id for photo in photos] == [str(tmp_path / name) for name in names]
    reasons = [photo.failures[0][1] if photo.failures else "" for photo in photos]
    assert [bool(reason) for reason in reasons] == [not name[0].isdigit() for name in names]
    assert "No such file" in reasons[1]
    assert "not a regular file" in reasons[3]


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
