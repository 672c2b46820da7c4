from __future__ import annotations

import pytest

from melanoma_dist import nvjpeg
from melanoma_dist.input.gpu_decoder import choose, decoders_of

NEW, OLD = (13, 3, 2), (13, 1, 0)
GPU = ("HW_GPU_ONLY", "GPU_ONLY", "HYBRID_CPU_GPU")


@pytest.mark.parametrize(
    ("able", "name"),
    [
        ((*GPU, "CPU_ONLY"), "the JPEG engine of the GPU"),
        (("GPU_ONLY", "CPU_ONLY"), "CUDA"),
        (("HYBRID_CPU_GPU", "CPU_ONLY"), "CUDA, with Huffman decoding on the CPU"),
        (("CPU_ONLY",), "the CPU"),
        ((), "unknown"),
    ],
)
def test_the_first_decoder_that_reads_the_probe_is_in_use(able: tuple[str, ...], name: str) -> None:
    decoder = choose(NEW, able.__contains__)
    assert decoder.name == name
    assert decoder.nvjpeg == "13.3.2"
    assert bool(decoder.reason) == (name in ("the CPU", "unknown"))
    assert decoder.describe().startswith(f"decodes JPEGs with {name} (nvJPEG 13.3.2)")


@pytest.mark.parametrize(("version", "reason"), [(OLD, "before 13.2"), (None, "not installed"), (NEW, "no decoder")])
def test_decoding_on_the_cpu_has_a_reason(version: nvjpeg.Version | None, reason: str) -> None:
    assert reason in choose(version, lambda kind: kind == "CPU_ONLY").reason


def test_a_decoder_that_cannot_be_asked_is_unknown_and_not_assumed() -> None:
    decoder = choose(NEW, None, "libnvimgcodec.so.0: cannot open")
    assert decoder.name == "unknown"
    assert "cannot open" in decoder.describe()


def test_without_a_gpu_only_the_cpu_reads_the_probe() -> None:
    decodes = decoders_of(None)
    assert [kind for kind in (*GPU, "CPU_ONLY") if decodes(kind)] == ["CPU_ONLY"]
