"""GPUs are counted without PyTorch, and never fewer than PyTorch would find."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace

import pytest
import torch

from melanoma_dist.config.run import RunConfig, with_values
from melanoma_dist.distributed import gpus, preflight
from melanoma_dist.distributed.gpus import count_gpus, index_of, own_gpu
from melanoma_dist.errors import ClusterError


class Nvml:
    """NVIDIA's library on a machine with four GPUs."""

    def nvmlInit_v2(self) -> int:  # its own name
        return 0

    def nvmlDeviceGetCount_v2(self, count: object) -> int:
        ctypes.cast(count, ctypes.POINTER(ctypes.c_uint))[0] = 4  # type: ignore[arg-type]
        return 0

    def nvmlShutdown(self) -> int:
        return 0


def test_this_machine_has_as_many_as_pytorch_finds() -> None:
    assert count_gpus() in (torch.cuda.device_count(), None)


@pytest.mark.parametrize(
    ("visible", "count"),
    [
        (None, 4),
        ("0,1", 2),
        ("0,1,2,3,4,5", 4),
        ("", 0),
        ("-1", 0),
        ("2,-1,3", 1),
        ("MIG-a,MIG-b,MIG-c,MIG-d,MIG-e", 5),
    ],
)
def test_the_visible_devices_limit_the_count(visible: str | None, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus.ctypes, "CDLL", lambda _: Nvml())
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert count_gpus() == count


def test_a_machine_with_cuda_but_without_nvml_is_left_to_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(library: str) -> object:
        if "nvidia-ml" in library:
            raise OSError(library)
        return object()

    monkeypatch.setattr(gpus.ctypes, "CDLL", load)
    assert count_gpus() is None


def test_the_demo_falls_back_to_the_cpu_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(preflight, "count_gpus", lambda: 0)
    demo = with_values(RunConfig(), {"data.data": "demo"})
    assert preflight.settle_flags(demo).hardware.gpus == 0
    assert "the demo trains on the CPU" in capsys.readouterr().out
    for fixed in ({"hardware.gpus": 2}, {"hardware.address": "auto"}, {"data.data": "elsewhere"}):
        config = with_values(demo, fixed)
        assert preflight.settle_flags(config) == config
    monkeypatch.setattr(preflight, "count_gpus", lambda: 1)
    assert preflight.settle_flags(demo) == demo


@pytest.mark.parametrize(
    ("names", "visible", "index"),
    [
        (["2"], "2", 0),  # Ray hides the others
        (["2"], "0,1,2,3", 2),  # or it does not
        (["3"], "", 3),
        (["GPU-8f"], "GPU-8f", 0),
        (["GPU-8f"], "", None),
        (["2"], "0,1", None),
        ([], "0", None),
        (["0", "1"], "0,1", None),
    ],
)
def test_the_gpu_of_an_actor_among_those_it_sees(names: list[str], visible: str, index: int | None) -> None:
    assert index_of(names, visible) == index


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_pytorch_does_not_see_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    context = SimpleNamespace(get_accelerator_ids=lambda: {"GPU": ["0"]})
    monkeypatch.setattr("ray.get_runtime_context", lambda: context)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(ClusterError, match=r"Ray gives this fold GPU 0, and PyTorch sees 0 GPUs .*--gpus 0"):
        own_gpu()
