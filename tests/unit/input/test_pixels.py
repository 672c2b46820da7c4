from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from nvidia.dali import fn, pipeline_def, types
from PIL import Image
from scipy.ndimage import map_coordinates

from melanoma_dist.input.colour import colour_map, normalisation
from melanoma_dist.input.graph import InputFormat, mirrored_by_dali, training_input, turned_by_dali
from melanoma_dist.input.pixels import coloured, mirrored, resize, turned
from melanoma_dist.input.stream import POLICIES, Parameters, parameters

from .test_graph import drawn, picture

SIDE = 64
FRAME = InputFormat(SIDE, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
LEVELS = InputFormat(SIDE, (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))  # values 0 to 255
Image8 = npt.NDArray[np.uint8]
Array = npt.NDArray[np.float64]


def by_dali(function: Any, *batches: Any) -> Array:
    """A part of the GPU's graph, on the CPU."""

    @pipeline_def(batch_size=len(batches[0]), num_threads=1, device_id=None)
    def graph() -> Any:
        values = fn.external_source(source=lambda: batches, num_outputs=len(batches), batch=True)
        return function(fn.reinterpret(values[0], layout="HWC"), *values[1:])

    (images,) = graph().run()
    return np.asarray(images.as_array(), dtype=np.float64)


def window(height: int, width: int, seed: int = 0) -> Image8:
    return np.array(picture(width, height, seed))


def fine(height: int, width: int) -> Image8:
    """Rings that become finer outwards, up to what a pixel can hold: they show aliasing where there is any."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    rings = np.stack([np.cos(0.45 * np.pi * min(height, width) * (x**2 + y**2) / 2 + phase) for phase in range(3)], -1)
    return (127.5 + 120 * rings).astype(np.uint8)


def supersampled(image: Image8, turn: npt.NDArray[np.float32], per_pixel: int = 9) -> Array:
    """Many samples for each output pixel, and their mean."""
    places = (np.arange(SIDE * per_pixel) + 0.5) / per_pixel
    x, y = np.meshgrid(places, places, indexing="xy")
    shares = [row[0] * x + row[1] * y + row[2] for row in turn.astype(np.float64)]
    at = [shares[1] * image.shape[0] - 0.5, shares[0] * image.shape[1] - 0.5]
    channels = [map_coordinates(image[..., c].astype(np.float64), at, order=1, mode="nearest") for c in range(3)]
    return np.stack(channels, -1).reshape(SIDE, per_pixel, SIDE, per_pixel, 3).mean(axis=(1, 3))


def psnr(image: Array, reference: Array) -> float:
    return float(10 * np.log10(255**2 / np.mean((image - reference) ** 2)))


def resized_then_rotated(image: Image8, side: int, angle: float) -> Array:
    """How images were turned before: resized to bytes, then rotated."""
    resized = np.ascontiguousarray(resize(image, side, side).permute(1, 2, 0).numpy())

    def rotate(images: Any) -> Any:
        return fn.rotate(images, angle=angle, size=[SIDE, SIDE], interp_type=types.INTERP_LINEAR, fill_value=0)

    return by_dali(rotate, [resized])[0]


@pytest.mark.parametrize("make", [window, fine])
@pytest.mark.parametrize(("height", "width"), [(150, 210), (96, 120), (70, 95), (50, 60)])
@pytest.mark.parametrize("angle", [9.0, 33.0, -70.0, 45.0])
def test_a_turned_image_is_nearer_to_the_supersampled_one_than_a_resized_and_rotated_one(
    make: Any, height: int, width: int, angle: float
) -> None:
    image = make(height, width)
    source = training_input([image], drawn(angle=angle), LEVELS)
    reference = supersampled(image, source.turn[0])
    ours = turned(image, source.size[0], source.colour[0], source.turn[0], SIDE)
    theirs = resized_then_rotated(image, int(source.size[0, 0]), angle)
    assert psnr(ours, reference) > psnr(theirs, reference) - 0.05
    assert psnr(ours, reference) > 18


def some(count: int = 16) -> Parameters:
    return parameters(POLICIES["dermoscopy"], 1, 2, 0, count)


def windows(count: int = 16) -> list[Image8]:
    sizes = [(150, 210), (96, 120), (70, 95), (50, 60), (64, 200), (200, 64)]
    return [window(*sizes[i % len(sizes)], seed=i) for i in range(count)]


def test_dalis_operators_turn_the_same_way() -> None:
    images, source = windows(), training_input([], some(), LEVELS)
    theirs = by_dali(lambda *values: turned_by_dali(*values, SIDE), images, source.size, source.colour, source.turn)
    for i, image in enumerate(images):
        ours = turned(image, source.size[i], source.colour[i], source.turn[i], SIDE)
        difference = np.abs(ours - theirs[i])
        assert difference.mean() < 0.5, i
        assert np.quantile(difference, 0.99) < 2, i


def test_dalis_operators_mirror_the_same_way() -> None:
    images, source = windows(), training_input([], parameters(POLICIES["light"], 1, 2, 0, 16), LEVELS)
    theirs = by_dali(mirrored_by_dali, images, source.size, source.colour)
    for i, image in enumerate(images):
        ours = mirrored(image, source.size[i], source.colour[i], False)
        assert np.abs(ours - theirs[i])[1:-1, 1:-1].max() < 3, i  # its resize repeats the edge
        exchanged = mirrored(image, source.size[i], source.colour[i], True)
        assert np.array_equal(exchanged, ours.transpose(1, 0, 2))


def test_a_quarter_turn_is_numpys() -> None:
    image = window(SIDE, SIDE)
    for turns, angle in enumerate([0.0, 90.0, 180.0, -90.0]):
        source = training_input([image], drawn(angle=angle), LEVELS)
        ours = turned(image, source.size[0], source.colour[0], source.turn[0], SIDE)
        assert np.abs(ours - np.rot90(image, turns)).max() < 0.05


@pytest.mark.parametrize(("down", "across", "exchange"), np.ndindex(2, 2, 2))
def test_a_turned_image_is_mirrored_first_and_its_axes_are_exchanged_last(
    down: int, across: int, exchange: int
) -> None:
    image = window(90, 110)
    plain = training_input([image], drawn(angle=25.0), LEVELS)
    both = training_input([image], drawn(angle=25.0, flip=[[down, across]], exchange=exchange), LEVELS)
    steps = [1 - 2 * down, 1 - 2 * across]
    flipped = np.ascontiguousarray(image[:: steps[0], :: steps[1]])
    expected = turned(flipped, plain.size[0], plain.colour[0], plain.turn[0], SIDE)
    expected = expected.transpose(1, 0, 2) if exchange else expected
    ours = turned(image, both.size[0], both.colour[0], both.turn[0], SIDE)
    assert np.abs(ours - expected).max() < 1.1  # the resize rounds to bytes, mirrored or not


def test_the_pixels_of_a_resize_are_pils() -> None:
    image = window(150, 210)
    ours = mirrored(image, np.array([SIDE, SIDE], dtype=np.float32), normalisation(*_of(LEVELS), 1)[0], False)
    theirs = np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    assert np.abs(ours - theirs).max() <= 1.001


def test_normalisation_has_the_bits_of_dali() -> None:
    """Validation pixels: they were computed by this operator, and must not change."""
    every = np.arange(256 * 3, dtype=np.int64) % 256
    image = np.stack([np.roll(every, shift) for shift in range(3)], -1).reshape(32, 24, 3).astype(np.uint8)
    colour = normalisation(*_of(FRAME), 1)

    def mapped(images: Any, maps: Any) -> Any:
        return fn.coord_transform(images, MT=maps, dtype=types.FLOAT)

    (theirs,) = by_dali(mapped, [image], colour)
    ours = mirrored(image, np.array(image.shape[:2], dtype=np.float32), colour[0], False)
    assert np.array_equal(ours, theirs)


def test_equal_pixels_get_equal_colours_wherever_they_are() -> None:
    maps = colour_map(some(), *_of(FRAME))
    for side in (7, 64, 75):
        planes = np.tile(np.array([13.0, 200.0, 77.0], dtype=np.float32)[:, None, None], (1, side, side))
        for colour in maps:
            image = coloured(torch.from_numpy(planes), colour)
            assert (image == image[0, 0]).all()


def _of(expected: InputFormat) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    return expected.mean, expected.std
