"""Measures the CPU cost of an augmented training image: our graph against other libraries, in one run.

    MELANOMA_DIST_ISIC=ISIC python benchmarks/input.py
    python benchmarks/input.py --data DATA          # images of a prepared data set instead

Photographs of ISIC at native resolution (``ISIC/native/*.jpg``) are prepared as `data prepare` does it, to a shorter
side of 512, and stay in memory. Each way then makes the same number of batches: decode, random crop, resize to the
square with antialiasing, flips, rotation where the policy has one, colour, normalised float32. The ways take turns,
round after round, and medians are compared. CPU-ms is user and system time of the process and its workers: other users
of the machine move it less than wall time.

Each policy of the program is measured, and on request ``wide``: crops of 8 to 100 % of the area, torchvision's default.
The other libraries are torchvision (on PIL images and on tensors), albumentations, and simplejpeg with OpenCV. The
last two are measured where they are installed: ``pip install albumentations opencv-python-headless simplejpeg``. Raw
libjpeg-turbo (simplejpeg), decoding whole images and doing nothing else, is the floor.

Cost: about 10 minutes on 2 CPU cores; with ``--images 96 --rounds 3`` about 4.
Checks that the graph costs at most half as much as torchvision.
"""

from __future__ import annotations

import io
import os
import resource
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import tyro
from conditions import commit, machine, run_benchmark
from input_others import Run, albumentations, libjpeg, missing, opencv, torchvision
from PIL import Image

from melanoma_dist import console
from melanoma_dist.errors import ConfigError, DataError
from melanoma_dist.input import stream
from melanoma_dist.input.graph import Graph, GraphInput, InputFormat, training_input
from melanoma_dist.input.stream import Policy

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_WIDE = replace(stream.POLICIES["light"], area=0.08)
_POLICIES: dict[str, Policy] = {**{str(name): policy for name, policy in stream.POLICIES.items()}, "wide": _WIDE}
_HEADER = ("way", "CPU-ms/image", "images/s", "best torchvision / this")
_OURS = "graph"


@dataclass(frozen=True)
class Settings:
    """Settings of the measurement."""

    data: Path | None = None
    """Prepared data set to take the images from; $MELANOMA_DIST_ISIC/native by default."""
    images: int = 512
    """Images per way and round, 32 to 100000; with fewer photographs they are repeated."""
    size: int = 299
    """Side of the square input in pixels, 32 to 1024."""
    rounds: int = 5
    """Rounds, 1 to 100."""
    batch_size: int = 32
    """Images in a batch, 1 to 1024."""
    policies: tuple[str, ...] = tuple(stream.POLICIES)
    """Policies of augmentation: none, light, dermoscopy, wide."""

    def __post_init__(self) -> None:
        limits = {"images": (32, 100_000), "size": (32, 1024), "rounds": (1, 100), "batch_size": (1, 1024)}
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise ConfigError.of(name, getattr(self, name), f"must be {low} to {high}")
        for policy in self.policies:
            if policy not in _POLICIES:
                raise ConfigError.of("policies", policy, f"must be of {', '.join(_POLICIES)}")


@dataclass(frozen=True)
class Way:
    """One way to produce ``Settings.images`` images; ``run`` returns their number."""

    name: str
    run: Run


@dataclass
class Timing:
    """The cost of a way's rounds, per image."""

    cpu_ms: list[float] = field(default_factory=list)
    images_per_s: list[float] = field(default_factory=list)


def main() -> None:
    """Time every way and print a table for each policy."""
    settings = tyro.cli(Settings, description=__doc__)
    torch.set_num_threads(1)  # spinning threads of torch would count against torchvision
    photos = _prepared(settings.data, settings.images) if settings.data else _native(settings.images)
    console.info(_conditions(photos, settings))
    for policy in settings.policies:
        ways = list(_ways(photos, _POLICIES[policy], settings))
        _report(policy, time_in_turns(ways, settings.rounds))


def _native(count: int) -> list[bytes]:
    """Photographs at native resolution, prepared as `data prepare` does it."""
    from melanoma_dist.data.photo import PhotoJob, prepare_photo

    root = os.environ.get("MELANOMA_DIST_ISIC")
    if not root:
        raise DataError(
            "MELANOMA_DIST_ISIC is not set: give it the folder of ISIC images, or --data a prepared data set."
        )
    files = sorted(Path(root, "native").glob("*.jpg"))[:count]
    prepared = (prepare_photo(PhotoJob(path.stem, (path,), None, 512)).jpeg for path in files)
    photos = [jpeg for jpeg in prepared if jpeg is not None]
    if not photos:
        raise DataError(f"{Path(root, 'native')}: no JPEG that can be read. Give --data a prepared data set instead.")
    return photos


def _prepared(folder: Path, count: int) -> list[bytes]:
    from melanoma_dist.data.manifest import load_dataset
    from melanoma_dist.data.shards import ShardReader

    reader = ShardReader(load_dataset(folder))
    rows = np.linspace(0, len(reader) - 1, min(count, len(reader))).astype(int)
    return [reader.jpeg(int(row)).tobytes() for row in rows]


def _ways(photos: list[bytes], policy: Policy, settings: Settings) -> Iterator[Way]:
    square, batch_size = InputFormat(settings.size, _MEAN, _STD), settings.batch_size
    batches = max(1, settings.images // batch_size)
    task = (photos, policy, square, batch_size, batches * batch_size)
    for threads in (1, 2):
        yield Way(f"{_OURS}, {threads} thread{'s' * (threads > 1)}", _graph(*task[:4], batches, threads))
    for pixels, workers in (("PIL", 0), ("tensors", 0), ("PIL", 2)):
        name = f"torchvision on {pixels}, {workers} workers"
        yield Way(name, torchvision(*task, tensors=pixels == "tensors", workers=workers))
    optional = {
        "albumentations": (("albumentations", "cv2"), partial(albumentations, *task)),
        "simplejpeg and OpenCV by hand": (("simplejpeg", "cv2"), partial(opencv, *task)),
        "raw libjpeg-turbo, decoding alone": (("simplejpeg",), partial(libjpeg, photos, task[-1])),
    }
    for name, (modules, way) in optional.items():
        if lacking := missing(*modules):
            console.info(f"skipped: {name} ({lacking} is not installed)")
        else:
            yield Way(name, way())


def _graph(
    photos: list[bytes], policy: Policy, square: InputFormat, batch_size: int, batches: int, threads: int
) -> Run:
    """The project's graph with the project's random parameters, fed as the training loader feeds it."""
    encoded = [np.frombuffer(photo, dtype=np.uint8) for photo in photos]

    def feed(step: int) -> GraphInput | None:
        if step >= batches:
            return None
        start = step * batch_size
        drawn = stream.parameters(policy, 0, 0, start, batch_size)
        return training_input([encoded[i % len(encoded)] for i in range(start, start + batch_size)], drawn, square)

    return passes(Graph(feed, square, batch_size, threads, rotate=policy.rotation > 0))


def passes(graph: Graph) -> Run:
    """Each call makes one pass over the images of a graph, and returns how many they are."""
    started = False

    def run() -> int:
        nonlocal started
        if started:
            graph.restart()
        started = True
        return sum(len(images) for images in graph)

    return run


def time_in_turns(ways: list[Way], rounds: int) -> dict[str, Timing]:
    """Time the ways in turns, after one warm-up round. Each round starts with another way."""
    timings = {way.name: Timing() for way in ways}
    for turn in range(rounds + 1):
        shift = turn % len(ways)
        for way in ways[shift:] + ways[:shift]:
            cpu, wall = _cpu_s(), time.perf_counter()
            images = way.run()
            wall, cpu = time.perf_counter() - wall, _cpu_s() - cpu
            if turn:
                timings[way.name].cpu_ms.append(1000 * cpu / images)
                timings[way.name].images_per_s.append(images / wall)
    return timings


def _cpu_s() -> float:
    """User and system time of this process and of its living children, in seconds."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = sum(_cpu_of(child.pid) for child in active_children() if child.pid)
    return own.ru_utime + own.ru_stime + children


def _cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _report(policy: str, timings: dict[str, Timing]) -> None:
    cpu = {name: statistics.median(timing.cpu_ms) for name, timing in timings.items()}
    best = min((name for name in cpu if name.startswith("torchvision")), key=cpu.__getitem__)
    rows = []
    for name, timing in timings.items():
        spread = f"{cpu[name]:.2f} ({min(timing.cpu_ms):.2f} to {max(timing.cpu_ms):.2f})"
        rows.append((name, spread, f"{statistics.median(timing.images_per_s):.0f}", f"{cpu[best] / cpu[name]:.2f}"))
    console.table(f"Policy {policy}: crops of {_POLICIES[policy].area:.0%} to 100% of the area", _HEADER, rows)
    ours = max(cost for name, cost in cpu.items() if name.startswith(_OURS))
    verdict = "at most half: yes" if 2 * ours <= cpu[best] else "at most half: NO"
    console.info(f"The graph costs {ours / cpu[best]:.0%} of the best torchvision ({best}); {verdict}.")


def _conditions(photos: list[bytes], settings: Settings) -> str:
    mean = sum(map(len, photos)) / len(photos) / 1000
    return (
        f"{len(photos)} photographs of {_sizes(photos)} ({mean:.0f} kB), batches of {settings.batch_size} to "
        f"{settings.size}x{settings.size}, {settings.rounds} rounds of {settings.images} images; {machine()}; "
        f"torch {torch.__version__}; commit {commit()}"
    )


def _sizes(photos: list[bytes]) -> str:
    sides: npt.NDArray[np.int64] = np.array([Image.open(io.BytesIO(photo)).size for photo in photos])
    return "x".join(str(int(side)) for side in np.median(sides, axis=0)) + " (median)"


if __name__ == "__main__":
    run_benchmark(main)
