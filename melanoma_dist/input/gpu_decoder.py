"""Which decoder of a GPU's machine reads our JPEGs: found out by decoding one, never assumed.

DALI decodes with nvImageCodec, which tries its decoders in a fixed order and takes the first that can read the image as
asked. We ask for a region, with chroma upsampled as on the CPU. What can do that depends on the GPU (only some have an
engine for JPEGs), on the driver and on nvJPEG's version. The pixels of two decoders differ in their last bit, so the
decoder belongs to the arithmetic of a training.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from PIL import Image

from melanoma_dist import nvjpeg

_ORDER = {
    "HW_GPU_ONLY": "the JPEG engine of the GPU",
    "GPU_ONLY": "CUDA",
    "HYBRID_CPU_GPU": "CUDA, with Huffman decoding on the CPU",
    "CPU_ONLY": "the CPU",
}
"""Kinds of decoders as nvImageCodec names them, in the order in which it prefers them."""
_OLDEST = (13, 2)  # the first nvJPEG that decodes regions with chroma upsampled as on the CPU
_REGION = (64, 96, 320, 416)  # top, left, bottom, right of the probe's region
_OPTIONS = ":fancy_upsampling=1"  # chroma upsampled as on the CPU

Decodes = Callable[[str], bool]
"""Whether the decoder of a kind can decode a region of our JPEGs."""


@dataclass(frozen=True)
class GpuDecoder:
    """The decoder of a rank with a GPU."""

    name: str
    """In words; "unknown" if nvImageCodec cannot be asked."""
    nvjpeg: str
    """Version of nvJPEG; "none" without it."""
    reason: str = ""
    """Why no part of the GPU decodes."""

    def describe(self) -> str:
        """One sentence for the user."""
        return f"decodes JPEGs with {self.name} (nvJPEG {self.nvjpeg})" + (f": {self.reason}" if self.reason else "")


@cache
def gpu_decoder(gpu: int) -> GpuDecoder:
    """Find out what decodes JPEGs beside GPU ``gpu``, by decoding one with each kind of decoder."""
    try:
        decodes = decoders_of(gpu)
    except (ImportError, RuntimeError) as error:
        return choose(nvjpeg.version(), None, " ".join(str(error).split())[:200])
    return choose(nvjpeg.version(), decodes)


def choose(version: nvjpeg.Version | None, decodes: Decodes | None, error: str = "") -> GpuDecoder:
    """Choose as nvImageCodec does: the first kind that ``decodes``. None means that it cannot be asked."""
    text = ".".join(map(str, version)) if version else "none"
    if decodes is None:
        return GpuDecoder("unknown", text, error)
    kind = next((kind for kind in _ORDER if decodes(kind)), None)
    if kind is None:
        return GpuDecoder("unknown", text, "no decoder reads the probe")
    return GpuDecoder(_ORDER[kind], text, _why_not_the_gpu(version) if kind == "CPU_ONLY" else "")


def _why_not_the_gpu(version: nvjpeg.Version | None) -> str:
    if version is None:
        return "nvJPEG is not installed"
    if version[:2] < _OLDEST:
        oldest = ".".join(map(str, _OLDEST))
        return f"nvJPEG before {oldest} decodes no regions. Import melanoma_dist before torchvision and timm"
    return "no decoder of the GPU reads the probe"


def decoders_of(gpu: int | None) -> Decodes:
    """Return what tries the decoders of GPU ``gpu``, or of the CPU alone. Raises ImportError without nvImageCodec."""
    from nvidia import nvimgcodec

    source = nvimgcodec.CodeStream(_probe())
    region = source.get_sub_code_stream(region=nvimgcodec.Region(*_REGION))
    device = nvimgcodec.NVIMGCODEC_DEVICE_CPU_ONLY if gpu is None else gpu

    def decodes(kind: str) -> bool:
        backends = [nvimgcodec.Backend(getattr(nvimgcodec.BackendKind, kind))]
        try:
            decoder = nvimgcodec.Decoder(device_id=device, backends=backends, options=_OPTIONS)
            return decoder.decode(region) is not None
        except RuntimeError:
            return False

    return decodes


def _probe() -> bytes:
    """A baseline JPEG with halved chroma, as `data prepare` writes them."""
    file = io.BytesIO()
    ramp = Image.linear_gradient("L").resize((682, 512))
    Image.merge("RGB", (ramp, ramp.transpose(Image.Transpose.FLIP_LEFT_RIGHT), ramp.rotate(180))).save(
        file, "JPEG", quality=90, subsampling="4:2:0"
    )
    return file.getvalue()
