"""DICOM objects: the pixels of the photograph inside, and nothing about the patient."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, RLELossless, generate_uid

from melanoma_dist.storage.dicom import _ELEMENTS
from melanoma_dist.storage.images import PHOTOGRAPHS, open_image

from ..data.test_photo import decoded, picture, run

DERMOSCOPIC = "1.2.840.10008.5.1.4.1.1.77.1.7"


def dicom(pixels: bytes, colours: str, syntax: str = pydicom.uid.ExplicitVRLittleEndian, **elements: Any) -> bytes:
    """A dermoscopic object of the picture's size, with the name of a patient."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = elements.get("SOPClassUID", DERMOSCOPIC)
    meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID = generate_uid(), syntax
    dataset = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    width, height = picture().size
    values = {
        "SOPClassUID": DERMOSCOPIC, "PatientName": "Doe^Jane", "PatientID": "4711", "Rows": height, "Columns": width,
        "SamplesPerPixel": 1 if colours.startswith("MONO") else 3, "PhotometricInterpretation": colours,
        "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelRepresentation": 0, "PlanarConfiguration": 0,
    } | elements  # fmt: skip
    for name, value in values.items():
        setattr(dataset, name, value)
    compressed = syntax != pydicom.uid.ExplicitVRLittleEndian
    dataset.PixelData = encapsulate([pixels]) if compressed else pixels + bytes(len(pixels) % 2)
    dataset["PixelData"].VR = "OB"
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def encoded(form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture().save(buffer, form, **options)
    return buffer.getvalue()


def pixels_of(data: bytes) -> Any:
    with open_image(data, PHOTOGRAPHS) as image:
        return np.asarray(image.convert("RGB")).astype(int)


@pytest.mark.parametrize("form", ["JPEG", "JPEG2000"])
def test_an_encoded_picture_has_the_pixels_of_its_own_file(form: str) -> None:
    data = encoded(form, **({"quality": 90} if form == "JPEG" else {}))
    syntax, colours = (JPEGBaseline8Bit, "YBR_FULL_422") if form == "JPEG" else (JPEG2000Lossless, "YBR_RCT")
    assert np.array_equal(pixels_of(dicom(data, colours, syntax)), pixels_of(data))


def test_raw_pixels_keep_their_values() -> None:
    truth = np.asarray(picture()).astype(int)
    assert np.array_equal(pixels_of(dicom(truth.astype(np.uint8).tobytes(), "RGB")), truth)
    planes = truth.astype(np.uint8).transpose(2, 0, 1).tobytes()
    assert np.array_equal(pixels_of(dicom(planes, "RGB", PlanarConfiguration=1)), truth)


def test_raw_ycbcr_becomes_rgb() -> None:
    data = dicom(np.asarray(picture().convert("YCbCr")).tobytes(), "YBR_FULL")
    assert np.abs(pixels_of(data) - np.asarray(picture())).max() <= 3


def test_grey_values_of_both_directions_agree() -> None:
    grey = np.asarray(picture().convert("L"))
    bright = pixels_of(dicom(grey.tobytes(), "MONOCHROME2"))
    inverted = pixels_of(dicom((255 - grey).tobytes(), "MONOCHROME1"))
    assert np.array_equal(bright, inverted)
    assert np.array_equal(bright[..., 0], grey)


def test_a_jpeg_that_holds_rgb_is_not_taken_for_ycbcr() -> None:
    data = dicom(encoded("JPEG", quality=95, keep_rgb=True, subsampling=0), "RGB", JPEGBaseline8Bit)
    assert np.abs(pixels_of(data) - np.asarray(picture())).mean() < 4


def test_run_lengths_are_decoded() -> None:
    raw = pydicom.dcmread(io.BytesIO(dicom(np.asarray(picture()).tobytes(), "RGB")))
    raw.compress(RLELossless)
    buffer = io.BytesIO()
    raw.save_as(buffer)
    assert np.array_equal(pixels_of(buffer.getvalue()), np.asarray(picture()))


def test_prepare_takes_an_object_of_any_name(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(dicom(encoded("JPEG", quality=95), "YBR_FULL_422", JPEGBaseline8Bit))
    photo = run(tmp_path / "a.jpg", size=512)
    assert np.abs(decoded(photo) - np.asarray(picture()).astype(int)).mean() < 4
    assert b"Jane" not in (photo.jpeg or b"")


def test_nothing_about_the_patient_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    elements: set[str] = set()
    read = pydicom.dcmread

    def dcmread(*arguments: Any, **options: Any) -> FileDataset:
        dataset = read(*arguments, **options)
        elements.update(element.keyword for element in dataset)
        return dataset

    monkeypatch.setattr(pydicom, "dcmread", dcmread)
    pixels_of(dicom(np.asarray(picture()).tobytes(), "RGB"))
    assert {"PixelData", "Rows"} <= elements <= {*_ELEMENTS, "SpecificCharacterSet"}


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"NumberOfFrames": 2}, "2 frames"),
        ({"BitsAllocated": 16, "BitsStored": 12}, "16 bits"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}, "not a photograph"),
        ({"PhotometricInterpretation": "HSV"}, "save it as RGB"),
        ({"Rows": 60_000, "Columns": 60_000}, "more than 64 million"),
    ],
)
def test_other_objects_are_refused_by_name(tmp_path: Path, elements: dict[str, Any], reason: str) -> None:
    (tmp_path / "a.dcm").write_bytes(dicom(np.asarray(picture()).tobytes(), "RGB", **elements))
    ((_, failure),) = run(tmp_path / "a.dcm").failures
    assert reason in failure


@pytest.mark.parametrize("length", [132, 200, 400, 900])
def test_a_truncated_object_is_called_corrupt(tmp_path: Path, length: int) -> None:
    (tmp_path / "a.dcm").write_bytes(dicom(np.asarray(picture()).tobytes(), "RGB")[:length])
    ((_, failure),) = run(tmp_path / "a.dcm").failures
    assert "corrupt DICOM" in failure


def test_without_pydicom_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.dcm").write_bytes(dicom(np.asarray(picture()).tobytes(), "RGB"))
    monkeypatch.setitem(sys.modules, "pydicom", None)
    ((_, failure),) = run(tmp_path / "a.dcm").failures
    assert "pip install 'melanoma-dist[dicom]'" in failure
