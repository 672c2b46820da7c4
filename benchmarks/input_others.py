"""Other libraries' ways to make the training images that `input.py` measures: decode, crop, resize, turn, colour.

Each way draws its parameters as its library does, over the ranges of the policy. A rotated image is cut from the middle
of a larger resize, so that few corners are empty: 4 / pi of the side, the mean of what ours takes.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from melanoma_dist.input import stream
from melanoma_dist.input.graph import GraphInput, InputFormat, training_input
from melanoma_dist.input.stream import Floats, Policy

Run = Callable[[], int]
"""Makes all images once; returns their number."""
Bytes = npt.NDArray[np.uint8]
_PHOTO_ASPECT = 4 / 3  # of nearly all photographs: what our crops' aspect is relative to
_LARGER = 4 / np.pi  # the mean of |cos| + |sin|


def missing(*modules: str) -> str:
    """Name the modules that are not installed."""
    return ", ".join(module for module in modules if find_spec(module) is None)


class Photos(Dataset[torch.Tensor]):
    """JPEG files through PIL and torchvision's transforms."""

    def __init__(self, photos: list[bytes], count: int, transform: Callable[[Any], torch.Tensor]) -> None:
        self._photos, self._count, self._transform = photos, count, transform

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(io.BytesIO(self._photos[index % len(self._photos)])) as image:
            return self._transform(image.convert("RGB"))


def torchvision(
    photos: list[bytes], policy: Policy, square: InputFormat, batch_size: int, count: int, tensors: bool, workers: int
) -> Run:
    """torchvision's transforms (v2) on PIL images or on tensors, in worker processes or in this one."""
    move, colour = augmentations(policy, square.size)
    steps = [*([v2.ToImage()] if tensors else []), *move, *colour, *_to_float(tensors, square)]
    # Spawned, because DALI's threads would not survive a fork; persistent, so that their start is not timed.
    context, persistent = ("spawn", True) if workers else (None, False)
    loader = DataLoader(
        Photos(photos, count, v2.Compose(steps)), batch_size, num_workers=workers, multiprocessing_context=context,
        persistent_workers=persistent,
    )  # fmt: skip
    return lambda: sum(len(batch) for batch in loader)


def augmentations(policy: Policy, size: int) -> tuple[list[v2.Transform], list[v2.Transform]]:
    """The transforms of a policy that move pixels, and those of colour."""
    ratio = (_PHOTO_ASPECT / policy.aspect, _PHOTO_ASPECT * policy.aspect)
    side = _side(policy, size)
    steps: list[v2.Transform] = [v2.RandomResizedCrop(side, scale=(policy.area, 1.0), ratio=ratio, antialias=True)]
    if policy.flips:
        steps += [v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()]
    if policy.rotation:
        turn = v2.RandomRotation(policy.rotation, v2.InterpolationMode.BILINEAR)
        steps += [turn, v2.CenterCrop(size)]
    if not policy.brightness:
        return steps, []
    return steps, [v2.ColorJitter(policy.brightness, policy.contrast, policy.saturation, policy.hue / 360)]


def _to_float(tensors: bool, square: InputFormat) -> list[v2.Transform]:
    to_image = [] if tensors else [v2.ToImage()]
    return [*to_image, v2.ToDtype(torch.float32, scale=True), v2.Normalize(square.mean, square.std)]


def albumentations(photos: list[bytes], policy: Policy, square: InputFormat, batch_size: int, count: int) -> Run:
    """albumentations on images that OpenCV decodes."""
    import albumentations as A
    import cv2

    cv2.setNumThreads(1)
    ratio = (_PHOTO_ASPECT / policy.aspect, _PHOTO_ASPECT * policy.aspect)
    side = _side(policy, square.size)
    steps: list[Any] = [A.RandomResizedCrop((side, side), (policy.area, 1.0), ratio, interpolation=cv2.INTER_AREA)]
    steps += [A.D4(p=1.0)] if policy.flips else []
    if policy.rotation:
        steps += [A.Rotate(policy.rotation, p=1.0), A.CenterCrop(square.size, square.size)]
    if policy.brightness:
        ranges = [(1 - span, 1 + span) for span in (policy.brightness, policy.contrast, policy.saturation)]
        hue = policy.hue / 360
        steps += [A.ColorJitter(*ranges, (-hue, hue), p=1.0)]
    compose = A.Compose([*steps, A.Normalize(square.mean, square.std)])

    def image(index: int) -> Floats:
        encoded = np.frombuffer(photos[index % len(photos)], dtype=np.uint8)
        result: Floats = compose(image=cv2.cvtColor(cv2.imdecode(encoded, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB))[
            "image"
        ]
        return result

    starts = range(0, count, batch_size)
    return lambda: sum(len(np.stack([image(start + i) for i in range(batch_size)])) for start in starts)


def opencv(photos: list[bytes], policy: Policy, square: InputFormat, batch_size: int, count: int) -> Run:
    """Written by hand with simplejpeg and OpenCV, with our random parameters: what a specialist would write."""
    import cv2

    cv2.setNumThreads(1)
    encoded = [np.frombuffer(photo, dtype=np.uint8) for photo in photos]

    def batch(start: int) -> Floats:
        drawn = stream.parameters(policy, 0, 0, start, batch_size)
        source = training_input([encoded[(start + i) % len(encoded)] for i in range(batch_size)], drawn, square)
        make = _turned if policy.rotation else _mirrored
        return np.stack([cv2.transform(make(source, i, square.size), source.colour[i]) for i in range(batch_size)])

    return lambda: sum(len(batch(start)) for start in range(0, count, batch_size))


def _window(source: GraphInput, i: int) -> Bytes:
    import simplejpeg

    pixels: Bytes = simplejpeg.decode_jpeg(source.encoded[i], colorspace="RGB")
    shape = np.array(pixels.shape[:2])
    top, left = (source.anchor[i] * shape).astype(int)
    height, width = np.maximum((source.extent[i] * shape).astype(int), 1)
    return pixels[top : top + height, left : left + width]


def _mirrored(source: GraphInput, i: int, side: int) -> Floats:
    import cv2

    image = cv2.resize(_window(source, i), (side, side), interpolation=cv2.INTER_AREA)
    down, across = source.size[i] < 0
    if down or across:
        image = cv2.flip(image, -1 if down and across else int(across))
    if source.exchange[i]:
        image = cv2.transpose(image)
    return np.asarray(image, dtype=np.float32)


def _turned(source: GraphInput, i: int, side: int) -> Floats:
    import cv2

    window = _window(source, i)
    height, width = np.minimum(np.abs(source.size[i]), window.shape[:2]).astype(int)
    resized = cv2.resize(window, (width, height), interpolation=cv2.INTER_AREA)
    shares = source.turn[i].astype(np.float64)
    matrix = shares * np.array([[width], [height]])  # OpenCV counts from the centre of the first pixel
    matrix[:, 2] += matrix[:, :2].sum(axis=1) / 2 - 0.5
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    turned = cv2.warpAffine(resized, matrix, (side, side), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(turned, dtype=np.float32)


def libjpeg(photos: list[bytes], count: int) -> Run:
    """libjpeg-turbo alone: whole images decoded, nothing else."""
    import simplejpeg

    def run() -> int:
        for index in range(count):
            simplejpeg.decode_jpeg(photos[index % len(photos)], colorspace="RGB")
        return count

    return run


def _side(policy: Policy, size: int) -> int:
    return round(size * _LARGER) if policy.rotation else size
