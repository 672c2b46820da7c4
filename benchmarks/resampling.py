"""Measures how near a rotated training image is to an ideal one: sampled once, against resized and then rotated.

    MELANOMA_DIST_ISIC=ISIC python benchmarks/resampling.py

Photographs of ISIC at native resolution are prepared to a shorter side of 512, and a crop of each is turned by the
random parameters of the policy ``dermoscopy``. The ideal is the mean of 81 samples for each pixel of the output, of the
crop in float64. PSNR is over all pixels and channels, in decibels of 255; more is nearer. The last column is the energy
that an image has beyond the ideal one's in its finest octave: above 1 it is aliased, below 1 blurred.

Cost: about 2 minutes on a CPU core.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import tyro
from conditions import commit, machine, run_benchmark
from nvidia.dali import fn, pipeline_def, types
from PIL import Image
from scipy.ndimage import map_coordinates

from melanoma_dist import console
from melanoma_dist.data.photo import PhotoJob, prepare_photo
from melanoma_dist.errors import DataError
from melanoma_dist.input import stream
from melanoma_dist.input.graph import InputFormat, training_input
from melanoma_dist.input.pixels import resize, turned

_PER_PIXEL = 9  # samples along each side of a pixel
Array = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Settings:
    """Settings of the measurement."""

    sizes: tuple[int, ...] = (160, 224, 299, 448)
    """Sides of the square input in pixels."""


def main() -> None:
    """Print a row for each size."""
    settings = tyro.cli(Settings, description=__doc__)
    torch.set_num_threads(1)
    root = os.environ.get("MELANOMA_DIST_ISIC")
    files = sorted(Path(root, "native").glob("*.jpg")) if root else []
    jobs = (PhotoJob(path.stem, (path,), None, 512) for path in files)
    photos = [_decoded(jpeg) for job in jobs if (jpeg := prepare_photo(job).jpeg) is not None]
    if not photos:
        raise DataError("MELANOMA_DIST_ISIC: give it the folder of ISIC images, with native/*.jpg.")
    console.info(f"{len(photos)} photographs; {machine()}; commit {commit()}")
    rows = [_row(photos, size) for size in settings.sizes]
    header = (
        "side",
        "PSNR sampled once",
        "resized, then rotated",
        "nearer by",
        "nearer in",
        "finest octave, once",
        "then",
    )
    console.table("Rotated training images against ideal ones", header, rows)


def _row(photos: list[Bytes], side: int) -> tuple[str, ...]:
    square = InputFormat(side, (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))
    drawn = stream.parameters(stream.POLICIES["dermoscopy"], 0, 0, 0, len(photos))
    source = training_input([], drawn, square)
    plain = np.eye(3, 4, dtype=np.float32)  # the policy's colours would only scale the differences
    scores = []
    for i, photo in enumerate(photos):
        window = _cut(photo, drawn.anchor[i], drawn.extent[i])
        reference = _ideal(window, source.turn[i], side)
        once = turned(window, source.size[i], plain, source.turn[i], side).astype(np.float64)
        then = _resized_then_rotated(window, source.size[i], float(drawn.angle[i]), side)
        then = then.transpose(1, 0, 2) if drawn.exchange[i] else then
        scores.append(
            (*(_psnr(image, reference) for image in (once, then)), _fine(once, reference), _fine(then, reference))
        )
    once, then, fine_once, fine_then = np.mean(scores, axis=0)
    nearer = sum(each[0] > each[1] for each in scores)
    return (
        str(side), f"{once:.2f} dB", f"{then:.2f} dB", f"{once - then:+.2f} dB", f"{nearer} of {len(photos)}",
        f"{fine_once:.2f}", f"{fine_then:.2f}",
    )  # fmt: skip


def _decoded(jpeg: bytes) -> Bytes:
    with Image.open(io.BytesIO(jpeg)) as image:
        return np.array(image.convert("RGB"))


def _cut(photo: Bytes, anchor: npt.NDArray[np.float32], extent: npt.NDArray[np.float32]) -> Bytes:
    shape = np.array(photo.shape[:2])
    top, left = np.round(anchor * shape).astype(int)
    height, width = np.round(extent * shape).astype(int)
    return np.ascontiguousarray(photo[top : top + height, left : left + width])


def _ideal(window: Bytes, turn: npt.NDArray[np.float32], side: int) -> Array:
    places = (np.arange(side * _PER_PIXEL) + 0.5) / _PER_PIXEL
    x, y = np.meshgrid(places, places, indexing="xy")
    shares = [row[0] * x + row[1] * y + row[2] for row in turn.astype(np.float64)]
    at = [shares[1] * window.shape[0] - 0.5, shares[0] * window.shape[1] - 0.5]
    means = [
        map_coordinates(window[..., channel].astype(np.float64), at, order=1, mode="nearest")
        .reshape(side, _PER_PIXEL, side, _PER_PIXEL)
        .mean(axis=(1, 3))
        for channel in range(3)
    ]
    return np.stack(means, axis=-1)


def _resized_then_rotated(window: Bytes, size: npt.NDArray[np.float32], angle: float, side: int) -> Array:
    """How the program turned images before: an antialiased resize to bytes, flips, DALI's rotation of bytes."""
    height, width = (int(pixels) for pixels in np.abs(size))
    steps = np.sign(size).astype(int)
    resized = np.ascontiguousarray(resize(window, height, width).permute(1, 2, 0).numpy()[:: steps[0], :: steps[1]])

    @pipeline_def(batch_size=1, num_threads=1, device_id=None)  # type: ignore[untyped-decorator]
    def rotation() -> Any:
        images = fn.external_source(source=lambda: [resized], batch=True, layout="HWC")
        return fn.rotate(images, angle=angle, size=[side, side], interp_type=types.INTERP_LINEAR, fill_value=0)

    (images,) = rotation().run()
    return np.asarray(images.as_array()[0], dtype=np.float64)


def _psnr(image: Array, reference: Array) -> float:
    return float(10 * np.log10(255**2 / np.mean((image - reference) ** 2)))


def _fine(image: Array, reference: Array) -> float:
    """The energy of an image's finest octave as a share of the reference's."""
    finest, of_reference = (_finest_octave(each) for each in (image, reference))
    return finest / of_reference


def _finest_octave(image: Array) -> float:
    side = image.shape[0]
    spectrum = np.abs(np.fft.fft2(image - image.mean(axis=(0, 1)), axes=(0, 1))) ** 2
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None])
    return float(spectrum[frequency > 0.25].sum())


if __name__ == "__main__":
    run_benchmark(main)
