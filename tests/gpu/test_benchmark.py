"""benchmarks/gpu.py without a GPU: every line of its claims runs on the CPU, where a tape stands in for CUDA graphs.

A GPU is lent for minutes. No typing error may waste them.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pynvml
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from on_gpu import child, decoder, learning, pixels, prove, resume
from on_gpu.report import Report
from on_gpu.settings import Row, Settings, claim

from melanoma_dist.config.hardware import HardwareConfig
from melanoma_dist.train import gradients, step
from melanoma_dist.train.cuda_graph import CudaGraphRecorder
from melanoma_dist.train.step_graph import Replay
from melanoma_dist.world import World
from tests.unit.train.recorders import TapeRecorder

SETTINGS = Settings(device="cpu", batch_size=4, seconds=0.1)


def test_a_report_that_is_cut_short_goes_on_where_it_was(tmp_path: Path) -> None:
    def cut() -> Iterator[Row]:
        yield Row("half", "1")
        raise KeyboardInterrupt

    report = Report("a GPU", tmp_path)
    report.add("one", [claim(True, "figure", "1"), claim(False, "other", "2")])
    report.add("two", [Row("figure", "1"), Row("FAILED", "-", "took more than 1 s")])
    with pytest.raises(KeyboardInterrupt):
        report.add("three", cut())
    again = Report("a GPU", tmp_path)
    assert [again.has(name) for name in ("one", "two", "three")] == [True, False, False]
    again.add("two", [Row("figure", "3")])
    lines = (tmp_path / "gpu.md").read_text().splitlines()
    rows = ["| one | figure | PASS: 1 |  |", "| one | other | FAIL: 2 |  |", "| two | figure | 3 |  |"]
    assert lines[4:] == [*rows, "", "1 claims hold, 1 do not"]
    assert not Report("another GPU", tmp_path).has("one")


@pytest.mark.slow
def test_a_part_has_its_own_process_and_its_time() -> None:
    with child.Child() as one, child.Child() as other:
        assert list(one.run("settings:skipped", ("a reason",), 550)) == [Row("skipped", "-", "a reason")]
        assert next(iter(other.run("speed:nothing", (), 550))).value == "AttributeError"
    with child.Child() as slow:
        assert list(slow.run("settings:skipped", ("a reason",), 0.5)) == [Row("FAILED", "-", "took more than 0 s")]


def fail(recorder: CudaGraphRecorder, function: Callable[[], None]) -> Replay:
    TapeRecorder().record(function)
    raise RuntimeError("operation not permitted when stream is capturing")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU whose tensors lie on the CPU."""
    monkeypatch.setattr(Settings, "gpu", 0)
    monkeypatch.setattr(Settings, "world", World())
    monkeypatch.setattr(Settings, "size", lambda settings, backbone: 64)
    monkeypatch.setattr(learning, "detect", lambda gpu, threads: World())
    monkeypatch.setattr(learning, "fastest_kernels", lambda: None)
    monkeypatch.setattr(step, "graph_recorder", recorder_of)
    monkeypatch.setattr(gradients, "compile_model", lambda model: None)
    for name in ("synchronize", "empty_cache", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)
    monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: time.sleep(0.01))
    monkeypatch.setattr(CudaGraphRecorder, "__init__", lambda recorder: None)
    monkeypatch.setattr(CudaGraphRecorder, "warm_up", lambda recorder, function: function())
    monkeypatch.setattr(CudaGraphRecorder, "record", fail)
    monkeypatch.setattr(prove, "_STEPS", prove._NOT_FINITE + 2)
    monkeypatch.setattr(prove, "_SMALL", "test_resnet")
    for module in (prove, decoder, pixels):
        monkeypatch.setattr(module, "MAIN_BACKBONE", "test_resnet")
    for name, value in (("Init", None), ("DeviceGetHandleByIndex", 0), ("DeviceGetJpgUtilization", [37, 1])):
        monkeypatch.setattr(pynvml, f"nvml{name}", lambda *arguments, value=value: value)


def recorder_of(hardware: HardwareConfig, world: World) -> TapeRecorder | None:
    return None if hardware.cuda_graph == "off" else TapeRecorder()


def verdicts(rows: Iterator[Row]) -> dict[str, str]:
    """PASS or FAIL of each claim."""
    return {row.figure: row.value.partition(":")[0] for row in rows if row.value.startswith(("PASS", "FAIL"))}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_claims_of_a_step(gpu: None) -> None:
    claims = verdicts(prove.backbone("test_resnet", SETTINGS))
    assert len(claims) == 8
    assert all(verdict == "PASS" for figure, verdict in claims.items() if " / " not in figure), claims
    assert set(verdicts(prove.failed_recording(SETTINGS)).values()) == {"PASS"}
    assert verdicts(prove.compiled(SETTINGS))["test_resnet, compiled and replayed"] == "PASS"


@pytest.mark.slow
def test_the_claims_of_the_input(gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    log = "decoding image on HW is NOT supported\nHW decoder available num_hw_engines=7"
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 0, log, ""))
    rows = list(decoder.decoder(SETTINGS))
    assert not [row for row in rows if row.figure == "FAILED"]
    assert {row.figure: row.value for row in rows}["load of the JPEG engine, as the program asks"] == "37 %"
    monkeypatch.setattr(Settings, "gpu", None)
    assert set(verdicts(pixels.pixels(SETTINGS)).values()) == {"PASS"}


@pytest.mark.slow
def test_the_claims_of_units_that_are_left() -> None:
    assert set(verdicts(resume.replayed(SETTINGS)).values()) == {"PASS"}
