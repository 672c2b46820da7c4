"""Which decoder reads JPEGs, what that costs the CPU, and whether the thread that launches kernels waits for it."""

from __future__ import annotations

import os
import re
import resource
import subprocess  # nosec B404  # for this program itself
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pynvml
import torch
from nvidia.dali import fn

from melanoma_dist import nvjpeg
from melanoma_dist.input.gpu_decoder import gpu_decoder
from on_gpu.learning import MAIN_BACKBONE, endless, loader, samples
from on_gpu.settings import Row, Settings, claim, skipped

_BENCHMARKS = Path(__file__).resolve().parents[1]
_LOG = re.compile(r"num_hw_engines=\d+|image on HW is (?:NOT )?supported|older than minimum|ROI decode with fancy[^.]*")
_LIMIT_S = 120.0
_BATCHES = 20
_SLEEP_CYCLES = 2_000_000_000  # of the GPU's clock: about a second


def decoder(settings: Settings) -> Iterator[Row]:
    """The nvJPEG that is loaded, the decoder of a probe, DALI's own log, the load of the engine, CPU time, waits."""
    version = nvjpeg.version() or ()
    yield claim(version >= (13, 2), "nvJPEG that DALI gets", ".".join(map(str, version)) or "none", "13.2 or newer")
    if settings.gpu is None:
        yield from skipped("the rest needs a GPU")
        return
    probed = gpu_decoder(settings.gpu)
    yield claim(probed.name not in ("unknown", "the CPU"), "decoder of a probe", probed.name, probed.reason)
    yield Row("DALI's own log of one batch", _log(settings))
    for how, without in {"as the program asks": False, "without the JPEG engine": True}.items():
        with no_jpeg_engine() if without else nullcontext():
            batches = endless(loader(samples(settings), MAIN_BACKBONE, "light", settings))
            yield from _cost(how, batches, settings)
            if not without:
                yield _wait(batches)


def _cost(how: str, batches: Iterator[Any], settings: Settings) -> Iterator[Row]:
    """CPU time of an image, images/s and the engine's load, over some batches after a warm-up."""
    for _ in range(5):
        next(batches)
    torch.cuda.synchronize()
    with _engine_load(settings.gpu or 0) as loads:
        cpu, start = _cpu_s(), time.monotonic()
        images = sum(len(next(batches).images) for _ in range(_BATCHES))
        torch.cuda.synchronize()
        cpu, wall = _cpu_s() - cpu, time.monotonic() - start
    yield Row(f"light, {how}", f"{1000 * cpu / images:.2f} CPU-ms/image", f"{images / wall:.0f} images/s")
    yield Row(f"load of the JPEG engine, {how}", f"{max(loads, default=0)} %", f"the highest of {len(loads)} samples")


def _wait(batches: Iterator[Any]) -> Row:
    """How long the next batch holds the launching thread while the GPU is busy with earlier work."""
    next(batches)
    torch.cuda.synchronize()
    start = time.monotonic()
    torch.cuda._sleep(_SLEEP_CYCLES)
    next(batches)
    returned = time.monotonic() - start
    torch.cuda.synchronize()
    busy = time.monotonic() - start
    value = f"{1000 * returned:.0f} ms of {1000 * busy:.0f} ms"
    return claim(
        returned < busy / 2, "the next batch, the GPU being busy", value, "waits for the GPU if both are equal"
    )


def _log(settings: Settings) -> str:
    """Count what nvImageCodec logs of its decoders in a process of its own, set up as a rank is."""
    program = "import sys, timm; from on_gpu.decoder import one_batch; one_batch(sys.argv[1])"
    path = os.pathsep.join(filter(None, [str(_BENCHMARKS), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(  # noqa: S603  # nosec B603  # this program itself
        [sys.executable, "-c", f"import melanoma_dist; {program}", str(settings.data or "")],
        env={**os.environ, "DALI_NVIMGCODEC_LOG_LEVEL": "4", "PYTHONPATH": path}, capture_output=True, text=True,
        timeout=_LIMIT_S,
    )  # fmt: skip
    lines = Counter(match[0] for match in _LOG.finditer(done.stdout + done.stderr))
    if done.returncode:
        return f"FAILED: {' '.join(done.stderr.split())[-200:]}"
    return "; ".join(f"{count} x {text}" for text, count in lines.items()) or "no line about decoders"


def one_batch(data: str) -> None:
    """Decode one batch as a training does."""
    settings = Settings(data=Path(data) if data else None)
    next(endless(loader(samples(settings), MAIN_BACKBONE, "light", settings)))
    torch.cuda.synchronize()


def no_jpeg_engine() -> mock._patch[object]:
    """Let CUDA decode, although the GPU has an engine for JPEGs."""
    original = fn.decoders.image_slice
    return mock.patch.object(fn.decoders, "image_slice", partial(_without_engine, original))


def _without_engine(original: Any, *inputs: Any, **options: Any) -> Any:
    return original(*inputs, **{**options, "hw_decoder_load": 0.0})


@contextmanager
def _engine_load(gpu: int) -> Iterator[list[int]]:
    """The load of the engine for JPEGs in percent, as the driver tells it several times a second."""
    pynvml.nvmlInit()
    handle, loads, ended = pynvml.nvmlDeviceGetHandleByIndex(gpu), [], threading.Event()

    def sample() -> None:
        with suppress(pynvml.NVMLError):  # a slice of a GPU tells nothing: no samples
            while True:  # samples at least once, however short the measurement is
                loads.append(int(pynvml.nvmlDeviceGetJpgUtilization(handle)[0]))
                if ended.wait(0.1):
                    return

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield loads
    finally:
        ended.set()
        thread.join()


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
