"""Packs what a GPU host without a package registry lacks into parts that travel one by one.

    python benchmarks/offline_parts.py --out parts [--ray]       # where there is a registry; pip and about 2 GB needed
    python3 offline_install.py parts /tmp/site                   # on the GPU host; then: export PYTHONPATH=/tmp/site

The host has Python with PyTorch, torchvision, timm, pandas, pyarrow, scikit-learn and TensorBoard. It lacks DALI with
its decoders, and what the program reads flags and photographs with; ``--ray`` adds Ray for `gpu.py --sections command`.
Versions are those of ``requirements.lock``.

A wheel of DALI has machine code for six kinds of GPUs and modules for seven Pythons. Only those of the host travel, so
that all fits into few parts. ``SHA256`` in the last part proves that none is missing or damaged.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import struct
import subprocess  # nosec B404  # for pip
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tyro
from conditions import run_benchmark

from melanoma_dist import console

_LOCK = Path(__file__).resolve().parents[1] / "requirements.lock"
_PACKAGES = (
    "nvidia-dali-cuda130", "nvidia-nvimgcodec-cu13", "nvidia-nvjpeg", "astunparse", "gast", "optree", "makefun", "nvtx",
    "tyro", "docstring-parser", "typeguard", "pydantic", "pydantic-core", "annotated-types", "typing-inspection",
    "imagehash",
)  # fmt: skip
_RAY = ("ray", "tensorboardx", "jsonschema", "jsonschema-specifications", "referencing", "rpds-py")
_GLIBC = (39, 35, 34, 31, 28, 27, 24, 17, 12, 5)  # of the platform tags of wheels
_NOT_NEEDED = ("include", "bin", "jars")  # folders of headers, programs and Java
_FATBIN = 0xBA55ED50
_ELF = 2  # the kind of an entry that is machine code, for one kind of GPU


@dataclass(frozen=True)
class Settings:
    """What travels, and in which parts."""

    out: Path
    """Folder for the parts; it is created."""
    python: str = "3.12"
    """Version of Python on the host."""
    sm: int = 90
    """Compute capability of the host's GPU, times ten: 90 is Hopper (H100, H200), 80 an A100."""
    megabytes: int = 55
    """Size of a part in MiB, at least 1."""
    ray: bool = False
    """Pack Ray, too."""


def main() -> None:
    """Download, strip, pack and cut."""
    settings = tyro.cli(Settings, description=__doc__)
    settings.out.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder, "site")
        _download(site, settings)
        saved = sum(strip(path, settings) for path in sorted(site.rglob("*")))
        console.info(f"stripped {saved / 2**20:.0f} MiB")
        archive = Path(folder, "site.tar.xz")
        with tarfile.open(archive, "w:xz", preset=2) as packed:
            packed.add(site, ".")
        parts = list(cut(archive, settings.out, settings.megabytes * 2**20))
    for part in parts:
        console.info(f"{part.stat().st_size / 2**20:6.1f} MiB  {part}")


def _download(site: Path, settings: Settings) -> None:
    locked = dict(re.findall(r"^([\w-]+)==(\S+)", _LOCK.read_text(), re.MULTILINE))
    names = (*_PACKAGES, *(_RAY if settings.ray else ()))
    platforms = [f"--platform=manylinux_2_{version}_x86_64" for version in _GLIBC]
    platforms += [f"--platform=manylinux{year}_x86_64" for year in (2014, 2010, 1)]
    subprocess.run(  # noqa: S603  # nosec B603  # pip
        [
            sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--only-binary=:all:",
            f"--python-version={settings.python}", "--implementation=cp", *platforms, f"--target={site}",
            *(f"{name}=={locked[name]}" for name in names),
        ],
        check=True,
    )  # fmt: skip


def strip(path: Path, settings: Settings) -> int:
    """Delete what the host does not need of a file. Returns how many bytes that saves."""
    if path.is_dir() and path.name in _NOT_NEEDED:
        size = sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
        shutil.rmtree(path)
        return size
    if not path.is_file() or ".so" not in path.name:
        return 0
    module = re.search(r"\.cpython-(\d+t?)-", path.name)
    if module is not None and module[1] != settings.python.replace(".", ""):
        size = path.stat().st_size
        path.unlink()
        return size
    content = bytearray(path.read_bytes())
    saved = strip_machine_code(content, settings.sm)
    if saved:
        path.write_bytes(content)
    return saved


def strip_machine_code(content: bytearray, sm: int) -> int:
    """Keep the machine code for one kind of GPU, where there is some. Returns how many bytes became zeros.

    CUDA finds the code of a library by the addresses of its containers ("fat binaries"), so these stay where they are:
    each becomes shorter, and zeros follow. A container is a header of 16 bytes (magic, version, size of the header,
    size of the rest), then entries: kind, version, size of the header, size of the rest, ..., the GPU at byte 28.
    """
    saved = 0
    for start, size in _containers(content):
        entries = list(_entries(content, start + 16, start + 16 + size))
        code = [content[first:last] for first, last, kind, gpu in entries if (kind, gpu) == (_ELF, sm)]
        if not code or sum(last - first for first, last, _, _ in entries) != size:
            continue
        body = b"".join(code)
        struct.pack_into("<Q", content, start + 8, len(body))
        content[start + 16 : start + 16 + size] = body + bytes(size - len(body))
        saved += size - len(body)
    return saved


def _containers(content: bytearray) -> Iterator[tuple[int, int]]:
    """Where each container begins, and the size of its entries."""
    magic, place = struct.pack("<I", _FATBIN), 0
    while (place := content.find(magic, place)) >= 0:
        version, header, size = struct.unpack_from("<HHQ", content[place : place + 16].ljust(16, b"\0"), 4)
        if version == 1 and header == 16 and place + 16 + size <= len(content):
            yield place, size
            place += 16 + size
        else:
            place += 4


def _entries(content: bytearray, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """First and last byte, kind and GPU of each entry."""
    while start + 32 <= end:
        kind, _, header, size = struct.unpack_from("<HHIQ", content, start)
        yield start, start + header + size, kind, struct.unpack_from("<I", content, start + 28)[0]
        start += max(header + size, 32)


def cut(archive: Path, out: Path, size: int) -> Iterator[Path]:
    """Cut a file into parts with their hashes, and put the program that joins them beside them."""
    sums: list[str] = []
    with archive.open("rb") as whole:
        while part := whole.read(size):
            path = out / f"part-{len(sums):02}"
            path.write_bytes(part)
            sums.append(f"{hashlib.sha256(part).hexdigest()}  {path.name}\n")
            yield path
    (out / "SHA256").write_text("".join(sums))
    shutil.copy(Path(__file__).with_name("offline_install.py"), out)


if __name__ == "__main__":
    run_benchmark(main)
