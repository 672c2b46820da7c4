"""Measures the cost of `data prepare` beyond decoding, resizing and encoding, and how it grows.

    MELANOMA_DIST_ISIC=ISIC python benchmarks/prepare.py
    python benchmarks/prepare.py --sections memory search      # only some

``rate``    photographs at native resolution (``ISIC/native/*.jpg``, repeated): the whole command, tables and shards
            included, against a bare loop of Pillow's decode, resize and encode in as many processes, which writes
            nothing. The two take turns; medians are compared.
``memory``  peak memory (largest single process) of the command on 2,000 and on 20,000 small photographs of HAM10000.
``search``  time of the search for near-duplicates among random hashes, up to 400,000, and among hashes as similar as
            those of 9,672 real photographs: seven bits in ten vary, so that 1 pair in 1,700 shares a band.

Cost: about 10 minutes on 2 CPU cores and 1 GB of temporary disk.
Checks that the command reaches 85 % of the bare loop's rate, and that its memory does not grow with the images.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import statistics
import subprocess  # nosec B404  # for the program itself
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tyro
from conditions import commit, machine, run_benchmark
from PIL import Image

from melanoma_dist import console
from melanoma_dist.data.duplicates import propose
from melanoma_dist.errors import ConfigError

_LAUNCH = Path(__file__).resolve().parents[1] / "launch.py"
_SIZE = 512
_AT_ONCE = 8


@dataclass(frozen=True)
class Settings:
    """Settings of the measurement."""

    isic: str | None = os.environ.get("MELANOMA_DIST_ISIC")
    """Folder with the challenges' files; MELANOMA_DIST_ISIC by default."""
    sections: tuple[Literal["rate", "memory", "search"], ...] = ("rate", "memory", "search")
    """Sections to measure."""
    images: int = 1600
    """Photographs per round of ``rate``."""
    rounds: int = 2
    """Rounds of ``rate``."""


def main() -> None:
    settings = tyro.cli(Settings, description=__doc__)
    console.info(f"{machine()}; commit {commit()}")
    sections: dict[str, Callable[[Settings], None]] = {"rate": _rate, "memory": _memory, "search": _search}
    for name in settings.sections:
        sections[name](settings)


def _rate(settings: Settings) -> None:
    photos = _photos(settings, "native/*.jpg")
    megapixels = statistics.mean(_megapixels(photo) for photo in photos)
    ours, bare = [], []
    for number in range(settings.rounds):
        with tempfile.TemporaryDirectory() as folder:
            raw = _raw(Path(folder) / "raw", photos, settings.images)
            ours.append(settings.images / _prepare(raw)[0])
            bare.append(settings.images / _bare_loop(raw))
        console.info(f"round {number + 1}: data prepare {ours[-1]:.1f} images/s, bare loop {bare[-1]:.1f} images/s")
    share = statistics.median(ours) / statistics.median(bare)
    console.table(
        f"Rate: {settings.images} photographs of {megapixels:.1f} megapixels on average, shorter side to {_SIZE}",
        ("way", "images/s (median)", "of the bare loop"),
        [
            ("decode, resize, encode", f"{statistics.median(bare):.1f}", "100%"),
            ("data prepare", f"{statistics.median(ours):.1f}", f"{share:.0%}"),
        ],
    )
    console.info(f"at least 85%: {'yes' if share >= 0.85 else 'NO'}")


def _memory(settings: Settings) -> None:
    photos = _photos(settings, "2018/ISIC2018_Task3_Training_Input/*.jpg")
    rows = []
    for images in (2_000, 20_000):
        with tempfile.TemporaryDirectory() as folder:
            seconds, peak = _prepare(_raw(Path(folder) / "raw", photos, images))
        rows.append((f"{images:,}", f"{peak:.0f}", f"{images / seconds:.0f}"))
    header = ("images", "peak MiB, largest process", "images/s")
    console.table("Memory of data prepare on photographs of 200x150", header, rows)


def _search(_: Settings) -> None:
    rng = np.random.default_rng(0)
    kinds = {"random": (1.0, (100_000, 200_000, 400_000)), "alike as in HAM10000": (0.7, (25_000, 50_000, 100_000))}
    for kind, (free, counts) in kinds.items():
        fixed, is_free = rng.integers(0, 2, 256, dtype=np.uint8), rng.random(256) < free
        rows = []
        for count in counts:
            bits = np.where(is_free, rng.integers(0, 2, (count, 256), dtype=np.uint8), fixed)
            hashes = np.packbits(bits, axis=1).view(np.uint64)
            start = time.monotonic()
            pairs = len(propose(hashes))
            rows.append((f"{count:,}", f"{time.monotonic() - start:.1f}", pairs))
        console.table(f"Search for near-duplicates, hashes {kind}", ("images", "seconds", "pairs proposed"), rows)


def _photos(settings: Settings, pattern: str) -> list[Path]:
    photos = sorted(Path(settings.isic).glob(pattern)) if settings.isic else []
    if not photos:
        remedy = "Set MELANOMA_DIST_ISIC, or choose --sections search."
        raise ConfigError.of("isic", settings.isic, f"holds no {pattern}", remedy)
    return photos


def _raw(raw: Path, photos: list[Path], count: int) -> Path:
    """A folder in the layout of 2017's training set with ``count`` images, linked to ``photos`` in turn."""
    images = raw / "2017/ISIC-2017_Training_Data"
    images.mkdir(parents=True)
    lines = ["image_id,melanoma,seborrheic_keratosis"]
    for number in range(count):
        (images / f"ISIC_{number:07d}.jpg").symlink_to(photos[number % len(photos)].resolve())
        lines.append(f"ISIC_{number:07d},0.0,0.0")
    (raw / "2017/ISIC-2017_Training_Part3_GroundTruth.csv").write_text("\n".join(lines) + "\n")
    return raw


def _prepare(raw: Path) -> tuple[float, float]:
    """Run the command; returns its seconds, and the peak resident memory of its largest process in MiB."""
    out = raw.parent / "out"
    arguments = [str(_LAUNCH), "data", "prepare", "--raw", str(raw), "--out", str(out), "--years", "2017"]
    measured = (
        "import resource, runpy, sys; sys.argv = sys.argv[1:]\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as error: code = error.code\n"
        "peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]\n"
        "print('PEAK', max(peaks) // 1024); sys.exit(code)"
    )
    start = time.monotonic()
    command = [sys.executable, "-c", measured, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603  # nosec B603  # as above
    return time.monotonic() - start, float(done.stdout.rpartition("PEAK")[2])


def _bare_loop(raw: Path) -> float:
    """Seconds of decoding, resizing and encoding every photograph, in as many processes as there are cores."""
    start = time.monotonic()
    images = sorted(raw.rglob("*.jpg"))
    parcels = [images[first : first + _AT_ONCE] for first in range(0, len(images), _AT_ONCE)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), context) as pool:
        list(pool.map(_bare, parcels))
    return time.monotonic() - start


def _megapixels(path: Path) -> float:
    with Image.open(path) as image:
        return image.width * image.height / 1e6


def _bare(paths: list[Path]) -> None:
    for path in paths:
        image = Image.open(path).convert("RGB")
        width, height = (round(side * _SIZE / min(image.size)) for side in image.size)
        smaller = image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=2.0)
        smaller.save(io.BytesIO(), "JPEG", quality=92)


if __name__ == "__main__":
    run_benchmark(main)
