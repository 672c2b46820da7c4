from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from melanoma_dist.config.label_sets import LabelSet
from melanoma_dist.data.audit import counts
from melanoma_dist.data.audit.checks import fold_checks, manifest_checks, require
from melanoma_dist.data.folds import labelled_pool, make_folds, make_mask_folds, masked_pool
from melanoma_dist.data.labels import check_label_set
from melanoma_dist.data.manifest import JOINS, QUARANTINE, load_dataset, read_description, read_side_table
from melanoma_dist.data.masks import decode_mask, encode_mask
from melanoma_dist.data.prepare import Request, prepare
from melanoma_dist.data.shards import ShardReader
from melanoma_dist.errors import DataError
from melanoma_dist.storage.image_error import ImageError

from .conftest import Raw, write_image, write_mask

IMAGES, MASKS = "2018/ISIC2018_Task1-2_{}_Input", "2018/ISIC2018_Task1_{}_GroundTruth"


def encoded(pixels: npt.NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def corner(width: int = 60, height: int = 40, value: int = 255) -> npt.NDArray[np.uint8]:
    """The lesion is in the upper left corner."""
    mask = np.zeros((height, width), np.uint8)
    mask[:10, :20] = value
    return mask


@pytest.mark.parametrize("value", [1, 128, 255])
def test_any_value_beside_zero_is_lesion(value: int) -> None:
    mask = decode_mask(encode_mask(encoded(corner(value=value)), 1, (60, 40), (60, 40)))
    assert np.array_equal(mask, corner() > 0)


def test_a_mask_of_another_resolution_is_resized_to_the_prepared_image() -> None:
    mask = decode_mask(encode_mask(encoded(corner(120, 80)), 1, (60, 40), (30, 20)))
    assert mask.shape == (20, 30)
    assert mask[:2, :4].all()
    assert mask.sum() == pytest.approx(10 * 20 / 16, abs=4)


def test_the_mask_of_a_picture_on_its_side_may_lie_so_or_stand() -> None:
    """EXIF orientation 6: the picture is stored on its side and shown turned by a quarter."""
    lying, standing = corner(60, 40), np.rot90(corner(60, 40), -1)
    both = [encode_mask(encoded(np.ascontiguousarray(each)), 6, (60, 40), (40, 60)) for each in (lying, standing)]
    assert np.array_equal(*map(decode_mask, both))
    assert decode_mask(both[0])[:20, -10:].all()


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.arange(2400, dtype=np.uint8).reshape(40, 60), r"a mask of 256 values \(0, 1, 2, 3 \.\.\.\): it must be 0"),
        (corner() + np.uint8(0) + (corner() == 0) * np.uint8(3), r"a mask of 2 values \(3, 255\)"),
        (np.zeros((40, 60), np.uint8), "an empty mask: it shows no lesion"),
        (corner(40, 60), r"40x60 pixels for an image of 60x40, as if it were turned by 90 degrees: it does not fit"),
        (corner(60, 50), r"60x50 pixels for an image of 60x40: it does not fit"),
    ],
    ids=["grey", "no zero", "empty", "turned", "other shape"],
)
def test_each_unfit_mask_has_its_message(pixels: npt.NDArray[np.uint8], message: str) -> None:
    with pytest.raises(ImageError, match=message):
        encode_mask(encoded(pixels), 1, (60, 40), (60, 40))


def masked(raw: Raw, number: int, part: str = "Training", size: tuple[int, int] = (48, 36)) -> None:
    write_image(raw.folder / IMAGES.format(part) / f"ISIC_{number:07d}.jpg", number, size)
    write_mask(raw.folder / MASKS.format(part) / f"ISIC_{number:07d}_segmentation.png", size)


def collection(raw: Raw) -> None:
    """Six labelled images, one of them with a mask; three with masks alone in training, one in each holdout."""
    for number in range(1, 7):
        raw.image_2018(number, "MEL" if number % 2 else "NV")
    masked(raw, 3)
    for number in (11, 12, 13):
        masked(raw, number)
    masked(raw, 21, "Validation")
    masked(raw, 22, "Test")


def test_images_without_labels_enter_with_their_masks(raw: Raw, out: Path) -> None:
    collection(raw)
    write_image(raw.folder / IMAGES.format("Training") / "ISIC_0000014.jpg", 14)  # no mask
    write_mask(raw.folder / MASKS.format("Training") / "ISIC_0000015_segmentation.png")  # no image
    (raw.folder / MASKS.format("Training") / "ISIC_0000011_attribute_globules.png").write_bytes(b"no mask")
    (raw.folder / IMAGES.format("Training") / "ISIC_0000011_superpixels.png").write_bytes(b"no image")
    dataset = prepare(Request(raw.folder, ("2018",), size=24), out)
    images = dataset.manifest.set_index("image_id")
    with_masks = images[images["mask_offset"] >= 0]
    assert with_masks["split"].to_dict() == {
        "ISIC_0000003": "train", "ISIC_0000011": "train", "ISIC_0000012": "train", "ISIC_0000013": "train",
        "ISIC_0000021": "2018-validation", "ISIC_0000022": "2018-test",
    }  # fmt: skip
    assert images.loc["ISIC_0000011", ["MEL", "NV", "AKIEC"]].isna().all()
    assert images.loc["ISIC_0000003", "MEL"] == 1
    assert "ISIC_0000014" not in images.index
    reader = ShardReader(dataset)
    for row in np.flatnonzero(dataset.manifest["mask_offset"] >= 0):
        mask = decode_mask(reader.mask(int(row)) or b"")
        assert mask.shape == tuple(dataset.manifest[["height", "width"]].iloc[row])
        assert mask.mean() == pytest.approx(0.25, abs=0.05)
    notes = read_description(out).notes
    assert any("1 images in ISIC2018_Task1-2_Training_Input have neither labels nor a mask" in note for note in notes)
    assert any("1 masks have no image: ISIC_0000015." in note for note in notes)
    table = counts.masks(dataset)
    assert [row[:3] for row in table.rows] == [("2018-test", 1, 1), ("2018-validation", 1, 1), ("train", 4, 3)]
    require(manifest_checks(dataset.manifest, read_side_table(dataset, JOINS)))
    assert load_dataset(out).fingerprint == dataset.fingerprint


def test_masks_alone_are_a_data_set(raw: Raw, out: Path) -> None:
    for number in (1, 2):
        masked(raw, number)
    dataset = prepare(Request(raw.folder, ("2018",), size=24), out)
    assert len(masked_pool(dataset.manifest)) == 2
    with pytest.raises(DataError, match="each label needs at least one positive"):
        check_label_set(dataset.manifest, "melanoma")


def test_unfit_masks_are_quarantined_and_their_images_stay(raw: Raw, out: Path) -> None:
    collection(raw)
    folder = raw.folder / MASKS.format("Training")
    Image.fromarray(np.zeros((36, 48), np.uint8)).save(folder / "ISIC_0000011_segmentation.png")
    write_mask(folder / "ISIC_0000012_segmentation.png", (36, 48))
    dataset = prepare(Request(raw.folder, ("2018",), size=24), out)
    assert {"ISIC_0000011", "ISIC_0000012"} <= set(dataset.manifest["image_id"])
    assert set(masked_pool(dataset.manifest)["image_id"]) == {"ISIC_0000003", "ISIC_0000013"}
    quarantine = read_side_table(dataset, QUARANTINE).set_index("image_id")["reason"]
    assert "an empty mask" in quarantine["ISIC_0000011"]
    assert "as if it were turned by 90 degrees" in quarantine["ISIC_0000012"]


def test_images_without_labels_take_no_part_in_a_classifier(raw: Raw, out: Path) -> None:
    """The folds of a classifier are the same with and without them."""
    for number in range(1, 13):
        raw.image_2018(number, "MEL" if number % 2 else "NV")
    alone = prepare(Request(raw.folder, ("2018",), size=24, synthetic=True), out)
    for number in range(31, 40):
        masked(raw, number)
    both = prepare(Request(raw.folder, ("2018",), size=24, synthetic=True), out.with_name("both"))
    labels = LabelSet(("MEL", "NV"))
    folds = make_folds(both.manifest, labels, 3, 0)
    assert folds.equals(make_folds(alone.manifest, labels, 3, 0))
    members = labelled_pool(both.manifest, labels)
    require(fold_checks(both.manifest, folds, 3, members))
    masks = make_mask_folds(both.manifest, 3, 0)
    assert sorted(masks["image_id"]) == [f"ISIC_{number:07d}" for number in range(31, 40)]
    require(fold_checks(both.manifest, masks, 3, masked_pool(both.manifest)))
