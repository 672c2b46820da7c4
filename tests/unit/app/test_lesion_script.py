"""lesion.py, which travels with exports and knows numpy and Pillow alone, against the program's own first stage."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image
from torch.nn import functional

from melanoma_dist.app.export.standalone import lesion
from melanoma_dist.artifacts.lesion_table import as_table, lesion_row
from melanoma_dist.inference.lesion_masks import LEAST_AREA, largest_region, mask_quality
from melanoma_dist.input.graph import InputFormat, evaluation_input
from melanoma_dist.input.region import Windows
from melanoma_dist.train.mask_predict import mask_at
from melanoma_dist.train.region import LOW_QUALITY, Trust, windows_of

from ..input.test_graph import all_of, jpeg, picture

RULE = {"threshold": 0.5, "least_area": LEAST_AREA, "least_quality": LOW_QUALITY, "margin": 0.3, "region": "lesion",
        "mask": "channel"}  # fmt: skip
UNIT = InputFormat(32, (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))  # bytes


@settings(max_examples=300, deadline=None)
@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)))
def test_the_largest_region_is_that_of_scipy(mask: npt.NDArray[np.bool_]) -> None:
    np.testing.assert_array_equal(lesion.largest_region(mask), largest_region(mask))


def blob(seed: int, side: int = 48) -> npt.NDArray[np.float32]:
    """Smooth probabilities with a lesion, sometimes of several parts, sometimes too faint."""
    rng = np.random.default_rng(seed)
    noise = torch.from_numpy(rng.normal(size=(1, 1, 6, 6)).astype(np.float32))
    smooth = functional.interpolate(noise, (side, side), mode="bicubic")[0, 0].numpy()
    y, x = np.mgrid[:side, :side] / side - rng.uniform(0.3, 0.7, (2, 1, 1))
    return (1 / (1 + np.exp(-4 * (smooth + rng.uniform(-2, 4) - 30 * (x**2 + y**2))))).astype(np.float32)


def test_lesions_boxes_and_windows_are_those_of_the_program() -> None:
    rng, trusted = np.random.default_rng(0), 0
    for seed in range(80):
        probability, width, height = blob(seed), int(rng.integers(30, 700)), int(rng.integers(30, 700))
        own = lesion.find_lesion(probability, width, height, RULE)
        mask = largest_region(mask_at(torch.from_numpy(probability), height, width, 0.5))
        assert (own["mask"] != mask).mean() < 1e-4
        table = as_table(
            pd.DataFrame([lesion_row("a", "ensemble", own["mask"], mask_quality(probability, 0.5), LEAST_AREA)])
        )
        row, trust = table.iloc[0], Trust.of(table)
        assert own["quality"] == row["quality"]
        assert own["trusted"] == (not trust.missing[0])
        assert (own["box"] is not None) == row["detected"]
        if own["box"] is not None:
            assert own["box"].tolist() == row[["top", "left", "height", "width"]].tolist()
        around = windows_of(table, np.array([[height, width]]), trust, 0.3)
        np.testing.assert_array_equal(own["window"], np.concatenate([around.anchor[0], around.extent[0]]))
        trusted += own["trusted"]
    assert 20 < trusted < 80


@pytest.mark.parametrize("subsampling", [0, 2])
def test_the_models_see_the_pixels_that_dali_decodes(subsampling: int) -> None:
    """A window begins and ends at the pixels at which DALI's does, and has its mask."""
    rng, worst = np.random.default_rng(1), []
    for seed in range(60):
        width, height = (int(side) for side in rng.integers(40, 300, 2))
        encoded = jpeg(picture(width, height, seed), subsampling=subsampling)
        extent = rng.uniform(0.1, 1, 2).astype(np.float32)
        start = (rng.uniform(0, 1, 2) * (1 - extent)).astype(np.float32)
        mask = np.zeros((height, width), dtype=bool)
        mask[height // 3 : height // 2, width // 4 : width // 2] = True
        window = np.concatenate([np.minimum(start, 1 - extent), extent])
        decoded = np.asarray(Image.open(io.BytesIO(encoded.tobytes())))
        view = lesion.see(decoded, {"mask": mask, "trusted": True, "window": window}, RULE)
        planes = torch.from_numpy(view).permute(2, 0, 1)[None]
        expected = functional.interpolate(planes, (32, 32), mode="bilinear", antialias=True)[0].float()
        png = io.BytesIO()
        Image.fromarray(mask).save(png, "PNG")
        windows = Windows(window[None, :2], window[None, 2:])
        masks = [np.frombuffer(png.getvalue(), dtype=np.uint8)]
        (batch,) = all_of([evaluation_input([encoded], UNIT, windows=windows, masks=masks)], UNIT, masks=True)
        assert torch.equal((batch[0, 3] * 255).round(), expected[3])
        worst.append(float((batch[0, :3] - expected[:3]).abs().max()))
    assert max(worst) == 0, (np.mean(np.array(worst) > 0), max(worst))
