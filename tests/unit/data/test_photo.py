from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from melanoma_dist.data.photo import Photo, PhotoJob, prepare_image, prepare_photo

from ..hostile import fuzz_reader


def run(*files: Path, mask: Path | None = None, size: int = 24) -> Photo:
    return prepare_photo(PhotoJob("ISIC_0000001", files, mask, size))


def decoded(photo: Photo) -> np.ndarray:
    assert photo.jpeg is not None, photo.failures
    with Image.open(io.BytesIO(photo.jpeg)) as image:
        assert (image.format, image.mode) == ("JPEG", "RGB")
        assert "progressive" not in image.info
        return np.asarray(image).astype(int)


def markers(jpeg: bytes) -> list[int]:
    """The segment markers of a JPEG up to its scan."""
    markers, position = [], 2
    while markers[-1:] != [0xDA]:
        assert jpeg[position] == 0xFF
        markers.append(jpeg[position + 1])
        position += 2 + int.from_bytes(jpeg[position + 2 : position + 4])
    return markers


def picture(width: int = 60, height: int = 40) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([4 * x, 5 * y, 128 + 0 * x], axis=-1).astype(np.uint8))


def test_the_shorter_side_shrinks_and_nothing_grows(tmp_path: Path) -> None:
    picture(60, 40).save(tmp_path / "a.jpg", quality=95)
    assert (run(tmp_path / "a.jpg").width, run(tmp_path / "a.jpg").height) == (36, 24)
    small = run(tmp_path / "a.jpg", size=512)
    assert (small.width, small.height, small.source_width, small.source_height) == (60, 40, 60, 40)


def test_pixels_equal_pillows_antialiased_resize(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.png")
    expected = np.asarray(picture().resize((36, 24), Image.Resampling.LANCZOS)).astype(int)
    assert np.abs(decoded(run(tmp_path / "a.png")) - expected).mean() < 3


@pytest.mark.parametrize("scale", [1.3, 3.9, 4.0, 8.7])
def test_blocks_of_a_large_photograph_are_averaged_first(scale: float) -> None:
    rng = np.random.default_rng(1)
    noise = Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8))
    large = noise.resize((round(32 * scale * 1.5), round(32 * scale)), Image.Resampling.BICUBIC)
    pixels, _ = prepare_image(large, 32)
    exact = large.resize(pixels.size, Image.Resampling.LANCZOS)
    gap = np.abs(np.asarray(pixels).astype(int) - np.asarray(exact).astype(int))
    assert min(pixels.size) == 32
    assert gap.max() <= 12
    assert (gap.max() > 0) == (scale >= 4)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "LA"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    image = picture().convert(mode)
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    image.save(path)
    with Image.open(path) as saved:
        expected = np.asarray(saved.convert("RGB").resize((36, 24), Image.Resampling.LANCZOS)).astype(int)
    assert np.abs(decoded(run(path)) - expected).mean() < 16


def test_sixteen_bits_become_eight_and_nothing_is_clipped(tmp_path: Path) -> None:
    eight = np.asarray(picture().convert("L"))
    Image.fromarray(eight.astype(np.uint16) * 257).save(tmp_path / "a.png")
    grey = decoded(run(tmp_path / "a.png", size=512))
    assert np.abs(grey - eight[..., None]).mean() < 2
    assert grey.std() > 20


@pytest.mark.parametrize("size", [(70_000, 40), (40, 65_501)])
def test_an_image_too_large_for_jpeg_is_a_failure(tmp_path: Path, size: tuple[int, int]) -> None:
    picture(*size).save(tmp_path / "a.png")
    photo = run(tmp_path / "a.png", size=512)
    assert photo.jpeg is None
    assert f"{size[0]}x{size[1]} pixels, and a JPEG allows at most 65500 per side" in photo.failures[0][1]
    picture(65_500, 32).save(tmp_path / "b.png")
    assert run(tmp_path / "b.png", size=512).width == 65_500


def test_an_encoder_that_fails_costs_one_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its OSError is not an error of the disk."""

    def fail(*_: object, **__: object) -> None:
        raise OSError("encoder error -2")

    picture().save(tmp_path / "a.png")
    monkeypatch.setattr(Image.Image, "save", fail)
    assert run(tmp_path / "a.png").failures == ((tmp_path / "a.png", "encoder error -2"),)


def test_progressive_becomes_baseline(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.jpg", progressive=True)
    photo = run(tmp_path / "a.jpg")
    assert photo.jpeg is not None
    assert 0xC0 in markers(photo.jpeg)
    assert 0xC2 not in markers(photo.jpeg)


def test_no_metadata_survives(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "Mrs Miller"
    path = tmp_path / "a.jpg"
    picture().save(path, exif=exif, icc_profile=b"profile" * 9, comment=b"left arm", xmp=b"<x:xmpmeta/>")
    photo = run(path, size=512)
    assert photo.jpeg is not None
    assert set(markers(photo.jpeg)) == {0xE0, 0xDB, 0xC0, 0xC4, 0xDA}  # JFIF, tables, frame, scan
    assert b"Miller" not in photo.jpeg
    assert b"left arm" not in photo.jpeg


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_baked_in_and_the_mask_follows(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture().save(tmp_path / "a.jpg", exif=exif, quality=95)
    mask = np.zeros((40, 60), np.uint8)
    mask[:10, :10] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    photo = run(tmp_path / "a.jpg", mask=tmp_path / "m.png", size=512)
    with Image.open(tmp_path / "a.jpg") as image:
        expected = np.asarray(ImageOps.exif_transpose(image)).astype(int)
    assert decoded(photo).shape == expected.shape
    assert np.abs(decoded(photo) - expected).mean() < 4
    assert photo.mask is not None
    mask = np.asarray(Image.open(io.BytesIO(photo.mask)))
    # The corner that the mask marks is where the picture is darkest.
    assert mask.shape == expected.shape[:2]
    assert set(np.unique(mask)) == {0, 255}
    assert expected[mask == 255].mean() < expected[mask == 0].mean() - 40


def test_the_largest_file_that_decodes_wins(tmp_path: Path) -> None:
    picture(60, 40).save(tmp_path / "small.jpg")
    picture(90, 60).save(tmp_path / "large.jpg")
    picture(120, 80).save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:900])
    (tmp_path / "empty.jpg").touch()
    photo = run(*(tmp_path / f"{name}.jpg" for name in ("small", "cut", "large", "empty")))
    assert photo.source == tmp_path / "large.jpg"
    assert {path.name for path, _ in photo.failures} == {"cut.jpg", "empty.jpg"}


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff", b"<html>404</html>", b"\x89PNG\r\n\x1a\n" + b"0" * 50])
def test_a_file_that_is_not_an_image_is_a_failure_with_a_reason(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(data)
    photo = run(tmp_path / "a.jpg")
    assert photo.jpeg is None
    assert len(photo.failures) == 1
    assert photo.failures[0][1]


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_truncated_jpeg_is_a_failure(tmp_path: Path, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG")
    (tmp_path / "a.jpg").write_bytes(buffer.getvalue()[: int(share * len(buffer.getvalue()))])
    assert "truncated" in run(tmp_path / "a.jpg").failures[0][1]


@pytest.mark.parametrize("side", [10_001, 14_000])
def test_a_header_that_claims_too_many_pixels_is_not_decoded(tmp_path: Path, side: int) -> None:
    Image.new("1", (side, side)).save(tmp_path / "a.png")
    photo = run(tmp_path / "a.png")
    assert photo.jpeg is None
    assert "pixels" in photo.failures[0][1]


def test_a_broken_mask_costs_only_the_mask(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.jpg")
    (tmp_path / "m.png").write_bytes(b"no mask")
    photo = run(tmp_path / "a.jpg", mask=tmp_path / "m.png")
    assert photo.jpeg is not None
    assert photo.mask is None
    assert photo.failures == ((tmp_path / "m.png", "not an image"),)


def test_the_broken_downloads_fail_and_the_native_images_do_not(isic: Path) -> None:
    broken = sorted((isic / "broken").iterdir())
    assert len(broken) == 5
    for path in broken:
        assert run(path).jpeg is None
        assert "truncated" in run(path).failures[0][1]
    for path in sorted((isic / "native").glob("*.jpg"))[:4]:
        photo = run(path, size=512)
        assert min(photo.width, photo.height) == min(512, photo.source_width, photo.source_height)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "bmp", "webp", "gif", "jp2"])
def test_any_bytes_give_an_image_or_a_failure(tmp_path: Path, suffix: str) -> None:
    picture().save(tmp_path / f"a.{suffix}")

    def prepare(data: bytes) -> None:
        (tmp_path / f"b.{suffix}").write_bytes(data)
        photo = run(tmp_path / f"b.{suffix}")
        assert (photo.jpeg is None) == bool(photo.failures)

    fuzz_reader(prepare, (tmp_path / f"a.{suffix}").read_bytes())
