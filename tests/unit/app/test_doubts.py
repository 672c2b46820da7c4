"""Doubts are plain sentences, the gravest first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from melanoma_dist.app.doubts import Limits, find_doubts
from melanoma_dist.app.inspection import BLURRED, inspect_bytes, measure_blur
from melanoma_dist.app.scoring import KnownImage, ScoredImage, Scores
from melanoma_dist.config.label_sets import LabelSet
from melanoma_dist.data.photo import Photo
from melanoma_dist.inference.lesion_masks import WHOLE, Lesion

LIMITS = Limits(LabelSet(("MEL", "NV")), (0.5, 0.25), 224)


def scored(width: int, height: int, blur: float = 0.1, trained_as: KnownImage | None = None) -> ScoredImage:
    photo = Photo("a.jpg", (), Path("a.jpg"), source_width=width, source_height=height)
    return ScoredImage(photo, blur, None, trained_as)


def scores(*folds: tuple[float, float], novelty: float = 0.99) -> Scores:
    each = np.array(folds, dtype=np.float32)
    return Scores(each, each.mean(axis=0), np.zeros(2, dtype=bool), novelty)


def test_an_image_without_doubts_has_none() -> None:
    doubts = find_doubts(scored(224, 300), scores((0.5, 0.1), (0.9, 0.2)), LIMITS)
    assert doubts.sentences == []
    assert (doubts.too_small, doubts.blurred, doubts.disagree) == (False, False, {})


def test_every_doubt_is_a_sentence() -> None:
    doubts = find_doubts(
        scored(300, 223, BLURRED, KnownImage("ISIC_1", 0.95123)),
        scores((0.5, 0.1), (0.4, 0.2), (0.4, 0.3), novelty=1.234),
        LIMITS,
    )
    assert doubts.sentences == [
        "The run was trained on this image: it is a copy of ISIC_1 (details correlate at 0.951).",
        "Unlike the training images, perhaps no dermoscopic photograph: its distance from them is 1.23 times the "
        "limit.",
        "Too small: its shorter side has 223 pixels, the models see 224.",
        "Blurred: it shows less detail than the models can see.",
        "The folds disagree: MEL (called by 1 of 3), NV (called by 1 of 3).",
    ]


def test_what_is_not_known_to_be_unlike_the_training_images_is_no_doubt() -> None:
    assert find_doubts(scored(300, 300), scores((0.9, 0.1), novelty=np.nan), LIMITS).sentences == []


@pytest.mark.parametrize(
    ("lesion", "code", "sentence"),
    [
        (Lesion("whole", None, 0.001, 0.99, WHOLE, ()), "no_lesion", "No lesion was found: the models see the whole"),
        (
            Lesion("whole", (0.1, 0.1, 0.5, 0.5), 0.2, 0.66, WHOLE, ((0.1, 0.1),)),
            "doubtful_lesion",
            "The outline of the lesion is doubtful (expected agreement 0.66, at least 0.7 is trusted)",
        ),
    ],
)
def test_a_lesion_that_is_not_found_or_doubtful_is_a_doubt(lesion: Lesion, code: str, sentence: str) -> None:
    each = np.array([[0.9, 0.1]], dtype=np.float32)
    doubts = find_doubts(scored(300, 300), Scores(each, each[0], each[0] > 0, 0.5, lesion=lesion), LIMITS)
    assert [reason.code for reason in doubts.reasons] == [code]
    assert doubts.sentences[0].startswith(sentence)


@pytest.mark.parametrize("size", [(300, 400), (100, 80)])
def test_blur_grows_with_every_blur_in_any_direction_and_not_with_the_size(size: tuple[int, int]) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8))
    blurs = [measure_blur(noise.filter(ImageFilter.GaussianBlur(radius))) for radius in (0, 1, 2, 4)]
    assert blurs == sorted(blurs)
    assert 0 <= blurs[0] < BLURRED < blurs[-1] <= 1
    for direction in ((4, 0), (0, 4)):
        assert measure_blur(noise.filter(ImageFilter.GaussianBlur(direction))) > BLURRED
    assert measure_blur(Image.new("RGB", size)) == 1


def test_an_unreadable_image_has_no_blur() -> None:
    inspected = inspect_bytes("empty.jpg", b"", 512)
    assert np.isnan(inspected.blur)
    assert inspected.photo.failures == ((Path("empty.jpg"), "an empty file"),)


def test_real_images_are_sharp_until_they_are_blurred(isic: Path) -> None:
    files = sorted((isic / "native").glob("*.jpg"))[:12]
    sharp, blurred = [], []
    for path in files:
        with Image.open(path) as image:
            image.thumbnail((700, 512))
            sharp.append(measure_blur(image))
            blurred.append(measure_blur(image.filter(ImageFilter.GaussianBlur(min(image.size) / 50))))
    assert sorted(sharp)[-2] < BLURRED < min(blurred)
