from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from PIL import Image, ImageDraw

from melanoma_dist.artifacts.lesion_table import encode
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.input.graph import ORIENTATIONS, evaluation_input, training_input
from melanoma_dist.input.loader import EvaluationLoader, TrainingLoader, split_mask
from melanoma_dist.input.stream import POLICIES, parameters
from melanoma_dist.world import World

from ..samples import FRAME as SMALL
from ..samples import all_samples
from .test_graph import FRAME, ONE_LEVEL, UNIT, all_of, drawn, jpeg, picture, reference

Encoded = npt.NDArray[np.uint8]


def mask_of(width: int, height: int, seed: int = 0) -> Image.Image:
    """A blob with a ragged edge, 0 and 255."""
    rng = np.random.default_rng(seed)
    mask = Image.new("L", (width, height))
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    radius = rng.uniform(0.2, 0.42, 40)
    x, y = (0.52 + radius * np.cos(angles)) * width, (0.47 + radius * np.sin(angles)) * height
    ImageDraw.Draw(mask).polygon(list(zip(x.tolist(), y.tolist(), strict=True)), fill=255)
    return mask


def png(mask: Image.Image) -> Encoded:
    file = io.BytesIO()
    mask.save(file, "PNG")
    return np.frombuffer(file.getvalue(), dtype=np.uint8)


def shrunk(mask: Image.Image) -> torch.Tensor:
    """Antialiased resizing by PIL, 0 to 1."""
    size = (FRAME.size, FRAME.size)
    return torch.from_numpy(np.asarray(mask.resize(size, Image.Resampling.BILINEAR)).astype(np.float32) / 255)


@pytest.mark.parametrize("size", [(211, 139), (123, 257), (50, 91), (64, 64)])
def test_a_mask_is_resized_as_pil_does_and_its_image_is_as_without(size: tuple[int, int]) -> None:
    image, mask = jpeg(picture(*size)), mask_of(*size)
    (batch,) = all_of([evaluation_input([image], FRAME, masks=[png(mask)])], masks=True)
    images, masks = split_mask(batch)
    assert masks.shape == (1, 1, FRAME.size, FRAME.size)
    assert torch.allclose(masks[0, 0], shrunk(mask), atol=1.01 / 255)
    assert torch.allclose(images[0], reference(image, FRAME), atol=1.01 * ONE_LEVEL)
    assert torch.equal(images, all_of([evaluation_input([image], FRAME)])[0])
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_a_window_of_a_mask_is_flipped_with_its_image() -> None:
    image, mask = jpeg(picture(200, 100)), mask_of(200, 100)
    window = drawn(anchor=(0.25, 0.5), extent=(0.5, 0.25), flip=(True, False), exchange=True)
    (batch,) = all_of([training_input([image], window, FRAME, [png(mask)])], masks=True)
    expected = shrunk(mask.crop((100, 25, 150, 75)).transpose(Image.Transpose.FLIP_TOP_BOTTOM)).T
    assert torch.allclose(batch[0, 3], expected, atol=1e-6)


@pytest.mark.parametrize("policy", ["none", "light", "dermoscopy"])
def test_image_and_mask_move_by_the_same_random_parameters(policy: str) -> None:
    """The truth, given as an image too, stays the truth: not one pixel in a thousand differs, whatever the policy."""
    masks = [mask_of(180 + 7 * seed, 150, seed) for seed in range(8)]
    images = [jpeg(mask.convert("RGB"), quality=100, subsampling=0) for mask in masks]
    moves = parameters(POLICIES[policy], 3, 1, 0, 8)  # type: ignore[index]
    colourless = drawn(8, **{name: getattr(moves, name) for name in ("anchor", "extent", "flip", "exchange", "angle")})
    inputs = training_input(images, colourless, UNIT, [png(mask) for mask in masks])
    (batch,) = all_of([inputs], UNIT, masks=True, rotate=POLICIES[policy].rotation > 0)  # type: ignore[index]
    image, mask = batch[:, 0] > 0.5, batch[:, 3] > 0.5
    assert (image != mask).float().mean() < 1e-3
    assert mask.float().mean() > 0.05


def test_colours_change_no_mask() -> None:
    image, mask = jpeg(picture(90, 70)), png(mask_of(90, 70))
    plain, bright = (
        all_of([training_input([image], drawn(brightness=factor, hue=hue), FRAME, [mask])], masks=True)[0]
        for factor, hue in ((1.0, 0.0), (1.3, 20.0))
    )
    assert torch.equal(plain[:, 3], bright[:, 3])
    assert not torch.allclose(plain[:, :3], bright[:, :3], atol=0.1)


def test_every_orientation_turns_the_mask_with_its_image() -> None:
    image, mask = jpeg(picture(90, 70)), png(mask_of(90, 70))
    upright = all_of([evaluation_input([image], FRAME, masks=[mask])], masks=True)[0]
    for view in ORIENTATIONS:
        turned = all_of([evaluation_input([image], FRAME, view, masks=[mask])], masks=True)[0]
        axes = [axis for axis, flip in ((2, view.down), (3, view.across)) if flip]
        expected = upright.flip(axes)
        expected = expected.transpose(2, 3) if view.exchanged else expected
        assert torch.allclose(turned, expected, atol=2 / 255 / 0.2)


class Quarters:
    """A lesion in a quarter of each image of a data set, which depends on its row; an empty mask in every fourth."""

    def __init__(self, manifest: pd.DataFrame) -> None:
        self._sizes = manifest[["height", "width"]].to_numpy()

    def mask(self, row: int) -> npt.NDArray[np.bool_]:
        height, width = self._sizes[row]
        mask = np.zeros((height, width), dtype=bool)
        if row % 4:
            top, left = (row % 2) * height // 2, (row // 2 % 2) * width // 2
            mask[top : top + height // 2, left : left + width // 2] = True
        return mask

    def png(self, row: int) -> bytes:
        return encode(self.mask(row))


def test_loaders_show_the_mask_of_each_image_beside_its_pixels(dataset: Dataset) -> None:
    masks, plain = Quarters(dataset.manifest), all_samples(dataset)
    samples = replace(plain, seen_masks=masks, corrupt=np.array([3]))
    n = len(samples.rows)
    assert not samples.learns_masks
    (batch,) = (images.clone() for images, _ in EvaluationLoader(samples, SMALL, n, World()))
    (images,) = (images.clone() for images, _ in EvaluationLoader(plain, SMALL, n, World()))
    sound = np.arange(n) != 3
    assert torch.equal(batch[sound, :3], images[sound])
    for row in range(n):
        mask = Image.fromarray(masks.mask(4 if row == 3 else row)).convert("L")
        expected = np.asarray(mask.resize((SMALL.size, SMALL.size), Image.Resampling.BILINEAR)) / 255
        np.testing.assert_allclose(batch[row, 3], expected, atol=1.01 / 255)
        assert bool(batch[row, 3].any()) == bool((4 if row == 3 else row) % 4)
    for training in TrainingLoader(samples, SMALL, 8, "none", False, 5, World()).epoch(0):
        assert training.targets.shape == (8, plain.targets.shape[1])
        assert (training.images - batch[training.samples]).abs().max() < 1e-5


def test_ranks_together_see_the_same_masks(dataset: Dataset) -> None:
    samples = replace(all_samples(dataset), seen_masks=Quarters(dataset.manifest))
    alone = [each.images.clone() for each in TrainingLoader(samples, SMALL, 8, "light", True, 5, World()).epoch(1)]
    ranks = [TrainingLoader(samples, SMALL, 8, "light", True, 5, World(rank, 2)) for rank in range(2)]
    for step, shares in enumerate(zip(*(loader.epoch(1) for loader in ranks), strict=True)):
        for rank, share in enumerate(shares):
            assert torch.equal(share.images, alone[step][rank::2])
