from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from nvidia.dali import fn, pipeline_def, types

from melanoma_dist.input.colour import colour_map, normalisation
from melanoma_dist.input.stream import Parameters

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RAW = (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)  # the normalisation that changes nothing
COUNT = 24
Array = npt.NDArray[np.float64]


def drawn(brightness: object = 1, contrast: object = 1, saturation: object = 1, hue: object = 0) -> Parameters:
    full = [
        np.broadcast_to(np.asarray(value, dtype=np.float32), COUNT) for value in (brightness, contrast, saturation, hue)
    ]
    window = np.zeros((COUNT, 2), dtype=np.float32)
    return Parameters(window, window + 1, window > 0, window[:, 0] > 0, window[:, 0], *full)


def applied(maps: npt.NDArray[np.float32], images: npt.NDArray[np.uint8]) -> Array:
    """The maps [n, 3, 4] on images [n, H, W, 3]."""
    return np.einsum("nij,nhwj->nhwi", maps[:, :, :3], images.astype(np.float64)) + maps[:, None, None, :, 3]


@pytest.fixture(scope="module")
def images() -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (COUNT, 8, 9, 3), dtype=np.uint8)


def twisted(images: npt.NDArray[np.uint8], **chosen: npt.NDArray[np.float32]) -> Array:
    """DALI's own colour operator, without cutting values to 0..255."""

    @pipeline_def(batch_size=COUNT, num_threads=1, device_id=None)
    def color_twist() -> object:
        source = lambda: (images, *chosen.values())  # noqa: E731
        image, *values = fn.external_source(source=source, num_outputs=1 + len(chosen), batch=True)
        return fn.color_twist(image, dtype=types.FLOAT, **dict(zip(chosen, values, strict=True)))

    (twisted,) = color_twist().run()
    return np.asarray(twisted.as_array(), dtype=np.float64)


def test_it_is_dalis_color_twist(images: npt.NDArray[np.uint8]) -> None:
    rng = np.random.default_rng(1)
    brightness, contrast, saturation = (rng.uniform(0.7, 1.3, COUNT).astype(np.float32) for _ in range(3))
    hue = rng.uniform(-30, 30, COUNT).astype(np.float32)
    theirs = twisted(images, brightness=brightness, contrast=contrast, saturation=saturation, hue=hue)
    ours = applied(colour_map(drawn(brightness, contrast, saturation, hue), *RAW), images)
    assert np.abs(theirs - images).max() > 30  # it did something
    assert np.abs(ours - theirs).max() < 1.0


def test_grey_stays_grey_under_saturation_and_hue() -> None:
    grey = np.repeat(np.arange(0, 240, 10, dtype=np.uint8)[:, None, None, None], 3, axis=3)
    maps = colour_map(drawn(saturation=np.linspace(0, 2, COUNT), hue=np.linspace(-180, 180, COUNT)), *RAW)
    assert np.abs(applied(maps, grey) - grey).max() < 0.05


def test_saturation_zero_leaves_the_luma_alone(images: npt.NDArray[np.uint8]) -> None:
    grey = applied(colour_map(drawn(saturation=0), *RAW), images)
    luma = images @ np.array([0.299, 0.587, 0.114])
    assert np.abs(grey - luma[..., None]).max() < 0.05


def test_neutral_parameters_only_normalise(images: npt.NDArray[np.uint8]) -> None:
    maps = colour_map(drawn(), MEAN, STD)
    assert np.abs(maps - normalisation(MEAN, STD, COUNT)).max() < 1e-6
    expected = (images / 255 - np.array(MEAN)) / np.array(STD)
    assert np.abs(applied(maps, images) - expected).max() < 1e-5


def test_brightness_and_contrast_have_their_usual_meaning(images: npt.NDArray[np.uint8]) -> None:
    assert np.allclose(applied(colour_map(drawn(brightness=1.5), *RAW), images), images * 1.5, atol=1e-3)
    contrasted = applied(colour_map(drawn(contrast=0.5), *RAW), images)
    assert np.allclose(contrasted, 127.5 + 0.5 * (images - 127.5), atol=1e-3)


def test_a_full_turn_of_hue_changes_nothing(images: npt.NDArray[np.uint8]) -> None:
    assert np.abs(applied(colour_map(drawn(hue=360), *RAW), images) - images).max() < 0.01
