from __future__ import annotations

import io
from itertools import chain
from pathlib import Path

import imagehash
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from melanoma_dist.data.duplicates import MAX_DISTANCE, MIN_CORRELATION, near_duplicates, propose
from melanoma_dist.data.lesion import draw_lesion, photograph
from melanoma_dist.data.photo import perceptual_hash


def photos(count: int) -> list[Image.Image]:
    rng = np.random.default_rng(5)
    return [Image.fromarray(photograph(rng, draw_lesion(rng, "NV"))) for _ in range(count)]


def saved_again(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=60)
    return Image.open(buffer)


def pairs_of(images: list[Image.Image]) -> pd.DataFrame:
    return near_duplicates(pd.Series([perceptual_hash(image) for image in images]), images.__getitem__)


@pytest.mark.parametrize(
    "change",
    [
        saved_again,
        lambda image: image.resize((image.width // 2, image.height // 2)),
        lambda image: ImageEnhance.Color(image).enhance(0.5),
    ],
    ids=["saved again", "smaller", "paler"],
)
def test_only_copies_are_joined(change: object) -> None:
    images = photos(12)
    images.append(change(images[3]))  # type: ignore[operator]
    pairs = pairs_of(images)
    joined = pairs[pairs["joined"]]
    assert [tuple(pair) for pair in joined[["first", "second"]].to_numpy()] == [(3, 12)]
    assert joined["correlation"].item() >= MIN_CORRELATION


def test_the_hash_equals_imagehash(isic: Path) -> None:
    image = Image.open(sorted((isic / "2017/ISIC-2017_Training_Data").glob("*.jpg"))[0])
    assert perceptual_hash(image) == str(imagehash.dhash(image, 16))
    assert imagehash.hex_to_hash(perceptual_hash(image)) - imagehash.dhash(image, 16) == 0


def by_brute_force(hashes: npt.NDArray[np.uint64]) -> set[tuple[int, int, int]]:
    bits = np.unpackbits(hashes.view(np.uint8).reshape(len(hashes), -1), axis=1).astype(int)
    return {
        (first, second, int(distance))
        for first in range(len(bits))
        for second in range(first + 1, len(bits))
        if (distance := (bits[first] ^ bits[second]).sum()) <= MAX_DISTANCE
    }


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 60))
def test_multi_index_hashing_equals_brute_force(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**64, (max(1, count // 4), 4), dtype=np.uint64)[
        rng.integers(0, max(1, count // 4), count)
    ]
    bits = np.unpackbits(hashes.view(np.uint8).reshape(count, -1), axis=1)
    for row in bits:  # up to 24 bits differ from the original
        row[rng.integers(0, 256, rng.integers(0, 12))] ^= 1
    near = np.packbits(bits, axis=1).view(np.uint64).reshape(count, 4)
    pairs = propose(near)
    assert set(pairs[["first", "second", "distance"]].itertuples(index=False, name=None)) == by_brute_force(near)


def test_look_alikes_of_different_lesions_are_not_joined_on_real_images(isic: Path) -> None:
    """HAM10000's small lesions in round fields, which the hash proposes as copies, and true copies of 2017."""
    ham, isic2017 = isic / "2018/ISIC2018_Task3_Training_Input", isic / "2017"
    alike = [(27757, 33091), (33408, 33702), (27133, 28531)]
    copies = [(222, 14846), (171, 15124), (12672, 12673)]
    images = [Image.open(ham / f"ISIC_{number:07d}.jpg") for number in chain(*alike)]
    images += [Image.open(next(isic2017.glob(f"*_Data/ISIC_{number:07d}.jpg"))) for number in chain(*copies)]
    pairs = pairs_of(images)
    joined = {tuple(pair) for pair in pairs.loc[pairs["joined"], ["first", "second"]].to_numpy()}
    assert joined == {(6, 7), (8, 9), (10, 11)}
    rejected = pairs[~pairs["joined"]]
    assert len(rejected) >= 3
    assert rejected["correlation"].max() < MIN_CORRELATION - 0.05


def test_no_images_give_no_pairs() -> None:
    assert len(pairs_of([])) == 0
    assert len(pairs_of(photos(1))) == 0
