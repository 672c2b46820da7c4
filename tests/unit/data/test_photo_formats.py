"""Files of any format and kind: decoded with the right brightness, or named as what they are."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from melanoma_dist.data.manifest import QUARANTINE, read_side_table
from melanoma_dist.data.prepare import Request, prepare
from melanoma_dist.storage.images import PHOTOGRAPHS, SUFFIXES

from ..storage.test_dicom import dicom
from .conftest import Raw
from .test_photo import decoded, picture, run

FORMATS = {"TIFF": "tif", "BMP": "bmp", "WEBP": "webp", "GIF": "gif", "JPEG2000": "jp2"}


@pytest.mark.parametrize("suffix", ["jpg", "own"])
@pytest.mark.parametrize("form", FORMATS)
def test_other_formats_are_decoded_whatever_their_name(tmp_path: Path, form: str, suffix: str) -> None:
    path = tmp_path / f"a.{FORMATS[form] if suffix == 'own' else suffix}"
    picture().save(path, form, **({"lossless": True} if form == "WEBP" else {}))
    assert f".{FORMATS[form]}" in SUFFIXES
    limit = 12 if form == "GIF" else 4  # a GIF has 256 colours
    assert np.abs(decoded(run(path, size=512)) - np.asarray(picture()).astype(int)).mean() < limit


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "empty"),
        (bytes(5000), "zero bytes"),
        (b"\n<!DOCTYPE html><title>403</title>", "an HTML page"),
        (b'\xef\xbb\xbf<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "an XML text"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n", "git lfs pull"),
        (b"/annex/objects/SHA256E-s11--12.jpg\n", "git annex get"),
        (b"../../.git/annex/objects/Gx/91/SHA256E-s11--12.jpg", "git annex get"),
        (b"PK\x03\x04" + bytes(50), "a ZIP archive"),
        (b"%PDF-1.7 ...", "a PDF"),
        (bytes(128) + b"DICM" + bytes(99), "a corrupt DICOM file"),
        (b"\0\0\0\x18ftypheic" + bytes(99), "an HEIC or AVIF image"),
        (b"\xff\xd8\xff\xe0" + bytes(20), "a corrupt JPEG"),
        (b"II*\0" + bytes(20), "a corrupt TIFF"),
        (b"hello", "not an image"),
    ],
)
def test_a_file_without_an_image_is_named_as_what_it_is(tmp_path: Path, data: bytes, what: str) -> None:
    (tmp_path / "a.jpg").write_bytes(data)
    ((_, reason),) = run(tmp_path / "a.jpg").failures
    assert what in reason
    assert "0x" not in reason


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_is_turned_once(tmp_path: Path, orientation: int) -> None:
    """Pillow turns TIFF files itself, and JPEG files not."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture().save(tmp_path / "a.tif", exif=exif)
    picture().save(tmp_path / "a.jpg", exif=exif, quality=95)
    mask = np.zeros((40, 60), np.uint8)
    mask[:10, :10] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    tiff, jpeg = (run(tmp_path / f"a.{suffix}", mask=tmp_path / "m.png", size=512) for suffix in ("tif", "jpg"))
    assert np.abs(decoded(tiff) - decoded(jpeg)).mean() < 4
    assert tiff.mask == jpeg.mask


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_values_of_fewer_bits_in_sixteen_are_stretched_to_white(tmp_path: Path, bits: int, suffix: str) -> None:
    eight = np.asarray(picture().convert("L")).astype(np.float64)
    deep = np.round(eight / 255 * (2**bits - 1)).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / f"a.{suffix}")
    assert np.abs(decoded(run(tmp_path / f"a.{suffix}", size=512)) - eight[..., None]).mean() < 2


def test_whole_numbers_of_32_bits_are_read_like_those_of_16(tmp_path: Path) -> None:
    eight = np.asarray(picture().convert("L")).astype(np.int32)
    Image.fromarray(eight * 16).save(tmp_path / "a.tif")
    assert np.abs(decoded(run(tmp_path / "a.tif", size=512)) - eight[..., None]).mean() < 2
    Image.fromarray(eight - 60).save(tmp_path / "b.tif")
    assert "0 to 65535" in run(tmp_path / "b.tif").failures[0][1]
    Image.fromarray((eight / 255).astype(np.float32)).save(tmp_path / "c.tif")
    assert "floating-point" in run(tmp_path / "c.tif").failures[0][1]


def png_of_sixteen_bits(colours: np.ndarray) -> bytes:
    """A PNG of 16 bits per channel, which Pillow can read but not write."""
    height, width, _ = colours.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in colours)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("bits", "enough"), [(12, False), (14, False), (16, True)])
def test_colours_of_fewer_bits_in_sixteen_are_quarantined(tmp_path: Path, bits: int, enough: bool) -> None:
    """Pillow keeps the upper eight bits of each colour alone: the lower ones cannot be brought back."""
    colours = np.asarray(picture()).astype(np.int64) * (2**bits - 1) // 255
    (tmp_path / "a.png").write_bytes(png_of_sixteen_bits(colours))
    photo = run(tmp_path / "a.png", size=512)
    assert (photo.jpeg is not None) is enough
    if not enough:
        assert "too dark" in photo.failures[0][1]


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (12, 9, 4), (180, 120, 90)])
def test_an_image_of_one_colour_is_quarantined(tmp_path: Path, colour: tuple[int, int, int], suffix: str) -> None:
    Image.new("RGB", (60, 40), colour).save(tmp_path / f"a.{suffix}")
    photo = run(tmp_path / f"a.{suffix}")
    assert photo.jpeg is None
    assert "shows nothing" in photo.failures[0][1] or "too dark" in photo.failures[0][1]


@pytest.mark.parametrize("size", [(1, 1), (1, 600), (600, 31)])
def test_a_tiny_image_is_quarantined(tmp_path: Path, size: tuple[int, int]) -> None:
    picture(*size).save(tmp_path / "a.png")
    photo = run(tmp_path / "a.png")
    assert photo.jpeg is None
    assert f"{size[0]}x{size[1]} pixels, too small" in photo.failures[0][1]


def test_a_smaller_file_takes_the_place_of_a_black_one(tmp_path: Path) -> None:
    Image.new("RGB", (600, 400)).save(tmp_path / "black.jpg")
    picture().save(tmp_path / "good.jpg")
    photo = run(tmp_path / "black.jpg", tmp_path / "good.jpg")
    assert photo.source == tmp_path / "good.jpg"
    assert [path.name for path, _ in photo.failures] == ["black.jpg"]


def tiff_of_tiles(side: int) -> bytes:
    """A TIFF of 60x40 pixels in one compressed tile, which libtiff would allocate whole."""
    data = zlib.compress(bytes(side**2 if side < 100 else 100))
    tags = {
        256: 60,
        257: 40,
        258: 8,
        259: 8,
        262: 1,
        277: 1,
        322: side,
        323: side,
        324: 8 + 2 + 120 + 4,
        325: len(data),
    }
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data


def test_a_tiff_of_enormous_tiles_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    for side, reason in ((64, "too dark"), (20_000, "tiles of more than 64 million pixels")):
        (tmp_path / "a.tif").write_bytes(tiff_of_tiles(side))
        assert reason in run(tmp_path / "a.tif").failures[0][1]


def test_files_of_all_formats_are_found_and_prepared(raw: Raw, out: Path) -> None:
    for number, suffix in enumerate(SUFFIXES):
        raw.image_2017(number, "MEL" if number % 2 else "NV")
        path = raw.folder / f"2017/ISIC-2017_Training_Data/ISIC_{number:07d}.jpg"
        with Image.open(path) as image:
            image.load()
        path.unlink()
        path = path.with_suffix(suffix if number % 2 else suffix.upper())
        if suffix in PHOTOGRAPHS["DICOM"]:
            path.write_bytes(dicom(image.tobytes(), "RGB", Rows=image.height, Columns=image.width))
        else:
            image.save(path)
    raw.image_2017(100, "NV")
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n"
    (raw.folder / "2017/ISIC-2017_Training_Data/ISIC_0000100.jpg").write_bytes(pointer)
    dataset = prepare(Request(raw.folder, ("2017",)), out)
    assert dataset.manifest["image_id"].tolist() == [f"ISIC_{number:07d}" for number in range(len(SUFFIXES))]
    (reason,) = read_side_table(dataset, QUARANTINE)["reason"]
    assert reason == "not an image, but a Git LFS pointer: fetch the image with `git lfs pull`"
