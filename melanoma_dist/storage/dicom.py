"""Open the picture of a DICOM object: a photograph of the skin, and nothing else from the file.

Of the header only the elements in `_ELEMENTS` are read. None of them identifies a person, and none is copied.
A JPEG or JPEG 2000 image inside goes to Pillow as it is: its pixels are those of the same file alone.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from melanoma_dist.storage.image_error import ImageError, too_many_pixels

if TYPE_CHECKING:
    import pydicom

_PREAMBLE, _SIGN = 128, b"DICM"
_ELEMENTS = (
    "SOPClassUID", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows",
    "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelData",
)  # fmt: skip
_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.77.1.7": "Dermoscopic Photography Image",
    "1.2.840.10008.5.1.4.1.1.77.1.4": "VL Photographic Image",
    "1.2.840.10008.5.1.4.1.1.7": "Secondary Capture Image",
}
"""The classes that hold photographs of the skin. Older exports call them Secondary Capture."""
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "MONOCHROME1", "MONOCHROME2")
_JPEG = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")  # transfer syntaxes: baseline and extended JPEG
_JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")


def is_dicom(data: bytes) -> bool:
    """Whether a file's bytes begin as those of a DICOM object."""
    return data[_PREAMBLE : _PREAMBLE + len(_SIGN)] == _SIGN


def open_dicom(data: bytes, most_pixels: int, open_encoded: Callable[[bytes], Image.Image]) -> Image.Image:
    """Open the picture of a DICOM object. ``open_encoded`` opens the bytes of a JPEG or JPEG 2000 image.

    Raises ImageError without pydicom, for a corrupt object, and for one that is no single photograph of 8 bits.
    """
    try:
        import pydicom
    except ModuleNotFoundError:
        raise ImageError(
            "dicom_package",
            "a DICOM file: `pip install 'melanoma-dist[dicom]'` reads it, or save its picture as JPEG or PNG",
        ) from None
    try:
        dataset = pydicom.dcmread(io.BytesIO(data), specific_tags=list(_ELEMENTS))
        _refuse_others(dataset, most_pixels)
    except ImageError:
        raise
    except Exception as error:  # pydicom raises a dozen kinds of errors for corrupt bytes
        reason = type(error).__name__
        raise ImageError("dicom_corrupt", f"a corrupt DICOM file ({reason})", reason=reason) from error
    return _picture(dataset, open_encoded)


def _refuse_others(dataset: pydicom.Dataset, most_pixels: int) -> None:
    kind = str(dataset.get("SOPClassUID", "")) or "unknown"
    frames, bits = int(dataset.get("NumberOfFrames") or 1), int(dataset.BitsAllocated)
    if kind not in _CLASSES:
        allowed = ", ".join(_CLASSES.values())
        text = f"a DICOM object of class {kind}, not a photograph: allowed are {allowed}"
        raise ImageError("dicom_class", text, kind=kind, allowed=allowed)
    if frames != 1:
        text = f"a DICOM object with {frames} frames: save the one to predict as a JPEG"
        raise ImageError("dicom_frames", text, frames=frames)
    if bits != 8:
        raise ImageError("dicom_bits", f"a DICOM object with {bits} bits per colour: save it with 8", bits=bits)
    if (colours := str(dataset.PhotometricInterpretation)) not in _COLOURS:
        raise ImageError("dicom_colours", f"a DICOM object in the colours {colours}: save it as RGB", colours=colours)
    if int(dataset.Rows) * int(dataset.Columns) > most_pixels:
        raise too_many_pixels(int(dataset.Columns), int(dataset.Rows), most_pixels)


def _picture(dataset: pydicom.Dataset, open_encoded: Callable[[bytes], Image.Image]) -> Image.Image:
    from pydicom.encaps import generate_frames
    from pydicom.pixels.utils import pixel_array

    syntax, colours = str(dataset.file_meta.TransferSyntaxUID), str(dataset.PhotometricInterpretation)
    try:
        # Pillow takes any JPEG of three colours for YCbCr. One that holds RGB goes through pydicom, which knows better.
        if (syntax in _JPEG and colours != "RGB") or syntax in _JPEG_2000:
            frame = next(iter(generate_frames(dataset.PixelData, number_of_frames=1)))
        else:
            pixels = pixel_array(dataset)
            return Image.fromarray(255 - pixels if colours == "MONOCHROME1" else np.ascontiguousarray(pixels))
    except Exception as error:  # as above
        text = f"a corrupt DICOM file, or one whose compression cannot be read ({error})"
        raise ImageError("dicom_pixels", text, reason=str(error)) from error
    return open_encoded(frame)
