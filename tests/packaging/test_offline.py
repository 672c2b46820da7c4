"""What travels to a GPU host without a package registry arrives, and libraries keep the machine code of its GPU."""

from __future__ import annotations

import struct
import subprocess
import sys
import tarfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from offline_parts import Settings, cut, strip, strip_machine_code

CODE = {75: b"seven" * 40, 80: b"eight" * 30, 90: b"nine" * 20, 120: b"twelve" * 10}


def entry(kind: int, gpu: int, code: bytes) -> bytes:
    return (
        struct.pack("<HHIQ", kind, 257, 64, len(code)).ljust(28, b"\0") + struct.pack("<I", gpu).ljust(36, b"\0") + code
    )


def container(*entries: bytes) -> bytes:
    body = b"".join(entries)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body


def library(*gpus: int) -> bytes:
    """A library whose machine code is between other bytes, with PTX for the newest GPUs."""
    code = [entry(2, gpu, CODE[gpu]) for gpu in gpus]
    return b"\x7fELF" + container(*code, entry(1, 120, b"ptx")) + b"\x50\xed\x55\xba other bytes"


def test_a_library_keeps_the_machine_code_of_one_gpu_at_its_place() -> None:
    whole = library(75, 80, 90, 120)
    stripped = bytearray(whole)
    saved = strip_machine_code(stripped, 90)
    short = container(entry(2, 90, CODE[90]))
    assert stripped[4 : 4 + len(short)] == short
    assert not any(stripped[4 + len(short) : -16])
    assert saved == len(whole) - 4 - 16 - len(short)
    assert (stripped[:4], stripped[-16:], len(stripped)) == (whole[:4], whole[-16:], len(whole))


def test_a_library_without_that_gpu_stays_as_it_is() -> None:
    content = bytearray(library(75, 80))
    assert strip_machine_code(content, 90) == 0
    assert content == library(75, 80)


def test_modules_of_other_pythons_and_headers_stay_behind(tmp_path: Path) -> None:
    names = (
        "a.cpython-311-x86_64-linux-gnu.so",
        "a.cpython-312-x86_64-linux-gnu.so",
        "libb.so.1",
        "include/b.h",
        "c.py",
    )
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"content")
    for path in sorted(tmp_path.rglob("*")):
        strip(path, Settings(tmp_path / "out"))
    assert sorted(path.name for path in tmp_path.rglob("*")) == [names[1], "c.py", "libb.so.1"]


def test_parts_are_joined_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    site, parts = tmp_path / "site", tmp_path / "parts"
    (site / "package").mkdir(parents=True)
    (site / "package" / "module.py").write_bytes(bytes(range(256)) * 40)
    with tarfile.open(tmp_path / "site.tar.xz", "w:xz") as packed:
        packed.add(site, ".")
    parts.mkdir()
    pieces = list(cut(tmp_path / "site.tar.xz", parts, 200))
    assert len(pieces) > 2
    command = [sys.executable, str(parts / "offline_install.py"), str(parts), str(tmp_path / "installed")]
    assert subprocess.run(command, capture_output=True, check=True).stdout.decode().startswith("export PYTHONPATH=")
    assert (tmp_path / "installed" / "package" / "module.py").read_bytes() == bytes(range(256)) * 40
    pieces[1].write_bytes(b"other")
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, f"{pieces[1]}: is damaged. Copy it again.\n")
    pieces[0].unlink()
    assert "part-00: is missing" in subprocess.run(command, capture_output=True, text=True).stderr
