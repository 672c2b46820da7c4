"""Replayed steps have the bits of computed ones, or are not used. A tape of operations stands in for the CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
import torch

from melanoma_dist.config.hardware import HardwareConfig
from melanoma_dist.config.run import RunConfig, with_values
from melanoma_dist.errors import ConfigError
from melanoma_dist.models.classifier import build_classifier
from melanoma_dist.train import cuda_graph
from melanoma_dist.train.loss import MaskedLoss
from melanoma_dist.train.step import TrainStep
from melanoma_dist.train.step_graph import Recorder, Replay
from melanoma_dist.world import World

from ..samples import tiny
from .recorders import FailingRecorder, LyingRecorder, TapeRecorder
from .test_non_finite import CHOICES, flat, spoilt
from .test_step import TARGETS, batch

CONFIG = tiny(optimizer="adam", ema_decay=0.9, **CHOICES)


def build(config: RunConfig, recorder: Recorder | None, notes: list[str] | None = None) -> TrainStep:
    model = build_classifier(config.model, 32, 8, config.seed)
    note: Callable[[str], object] = [].append if notes is None else notes.append
    return TrainStep(model, MaskedLoss(config.loss, TARGETS), config, World(), note, recorder)


def take(step: TrainStep, *numbers: int, frozen: bool = False, spoil: int | None = None) -> TrainStep:
    """Steps of other images, known labels, rates and seeds each."""
    step.begin_epoch(frozen)
    for number in numbers:
        step.step(spoilt(number) if number == spoil else batch(number), number, 0.01 / (1 + number))
    return step


def state(step: TrainStep) -> dict[str, bytes]:
    tensors = flat({"shared": step.state_dict(), "rank": step.rank_state()["buffers"]})
    plain = {key: value for key, value in step.rank_state().items() if key not in ("buffers", "average")}
    return {**{key: value.numpy().tobytes() for key, value in tensors.items()}, "plain": repr(plain).encode()}


@pytest.mark.parametrize("spoil", [None, 0, 2])
@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_replayed_steps_have_the_bits_of_computed_ones(optimizer: str, accumulate: int, spoil: int | None) -> None:
    config = tiny(optimizer=optimizer, accumulate=accumulate, ema_decay=0.9, **CHOICES)
    recorder, notes = TapeRecorder(), list[str]()
    replayed = take(build(config, recorder, notes), 0, 1, 2, 3, spoil=spoil)
    assert replayed.replays
    assert (recorder.records, notes) == (1, [])
    assert state(replayed) == state(take(build(config, None), 0, 1, 2, 3, spoil=spoil))


def test_no_bit_depends_on_the_step_that_was_recorded() -> None:
    """A number in the record (a rate, the known labels, the number of the step) would be that of the first step."""
    saved = take(build(CONFIG, None), 0, 1).state_dict()
    late = build(CONFIG, TapeRecorder())
    late.load_state_dict(saved)
    early = take(build(CONFIG, TapeRecorder()), 0, 1, 2, 3)
    expected, actual = early.state_dict(), take(late, 2, 3).state_dict()
    for part in ("model", "average"):
        assert all(value.equal(actual[part][key]) for key, value in expected[part].items())


def test_a_thawed_trunk_is_recorded_and_proven_anew() -> None:
    recorder = TapeRecorder()
    step, plain = build(CONFIG, recorder), build(CONFIG, None)
    for each in (step, plain):
        take(each, 0, 1, frozen=True)
        take(each, 2, 3, frozen=True)
    assert recorder.records == 1
    for each in (step, plain):
        take(each, 4, 5)
        take(each, 6)
    assert recorder.records == 2
    assert state(step) == state(plain)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_changed_hyperparameters_are_recorded_anew(optimizer: str) -> None:
    """They are numbers in the record, and others make other groups of parameters."""
    config = tiny(optimizer=optimizer, ema_decay=0.9, **CHOICES)
    other = with_values(
        config,
        {"optimizer.weight_decay": 0.1, "optimizer.layer_decay": 0.5, "optimizer.clip_norm": 0.2, "model.dropout": 0.5},
    )
    recorder = TapeRecorder()
    step, plain = build(config, recorder), build(config, None)
    for each in (step, plain):
        take(each, 0, 1, frozen=True)
        groups = len(each.optimizer.param_groups)
        each.change(other)
        assert len(each.optimizer.param_groups) > groups
        take(each, 2, 3)
        each.change(other)
        take(each, 4)
    assert recorder.records == 2
    assert state(step) == state(plain)
    assert sum(len(group["params"]) for group in step.optimizer.param_groups) == len(list(step.model.parameters()))


def test_a_loaded_state_is_recorded_anew() -> None:
    recorder = TapeRecorder()
    step, plain = build(CONFIG, recorder), build(CONFIG, None)
    for each in (step, plain):
        take(each, 0, 1)
        saved = each.state_dict()
        take(each, 2)
        each.load_state_dict(saved)
        take(each, 3, 4)
    assert recorder.records == 2
    assert state(step) == state(plain)


@pytest.mark.parametrize("way", ["layout", "size"])
def test_a_batch_that_the_record_does_not_fit_is_computed(way: str) -> None:
    third = batch(2)
    if way == "layout":
        third = replace(third, images=third.images.contiguous(memory_format=torch.channels_last))
    else:
        third = replace(third, images=third.images[:4], targets=third.targets[:4])
    results = []
    for recorder in (TapeRecorder(), None):
        step = take(build(CONFIG, recorder), 0, 1)
        step.step(third, 2, 0.01)
        results.append(state(take(step, 3)))
        assert step.replays == (recorder is not None)
    assert results[0] == results[1]


LIES = {
    "weight": lambda step: step.model.linear.weight,
    "statistic": lambda step: step.model.norm.running_var,
    "moment": lambda step: next(iter(step.optimizer.state.values()))["exp_avg_sq"],
    "loss": lambda step: step._loss_sum,
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("first", [(0,), (0, 1)])
def test_a_graph_with_another_bit_is_not_used(lie: str, first: tuple[int, ...]) -> None:
    notes: list[str] = []
    steps: list[TrainStep] = []
    recorder = LyingRecorder(lambda: LIES[lie](steps[0]))
    steps.append(build(CONFIG, recorder, notes))
    take(steps[0], *first)
    take(steps[0], 2, 3)
    assert not steps[0].replays
    assert len(notes) == 1
    assert "uses no CUDA graph" in notes[0]
    assert "its bits are not those of the step itself: " in notes[0]
    plain = build(CONFIG, None)
    take(plain, *first)
    assert state(steps[0]) == state(take(plain, 2, 3))


def test_the_reason_names_what_differs() -> None:
    notes: list[str] = []
    steps: list[TrainStep] = []
    steps.append(build(CONFIG, LyingRecorder(lambda: LIES["weight"](steps[0])), notes))
    take(steps[0], 0)
    assert notes == [
        "uses no CUDA graph, and launches the kernels of a step one by one (its bits are not those of the step itself: "
        "linear.weight)"
    ]


def test_a_step_that_cannot_be_recorded_is_computed() -> None:
    notes: list[str] = []
    step = take(build(CONFIG, FailingRecorder(), notes), 0, 1, 2)
    assert not step.replays
    reason = "it could not be recorded: operation not permitted when stream is capturing"
    assert notes == [f"uses no CUDA graph, and launches the kernels of a step one by one ({reason})"]
    assert state(step) == state(take(build(CONFIG, None), 0, 1, 2))


def test_the_optimizer_is_marked_while_it_is_recorded_and_not_in_checkpoints() -> None:
    marks: list[list[bool]] = []

    class Watching(TapeRecorder):
        def record(self, function: Callable[[], None]) -> Replay:
            marks.append([group["capturable"] for group in steps[0].optimizer.param_groups])
            return super().record(function)

    steps = [build(CONFIG, Watching())]
    take(steps[0], 0)
    assert set(marks[0]) == {True}
    assert not any(group["capturable"] for group in steps[0].state_dict()["optimizer"]["param_groups"])


@pytest.mark.parametrize(
    ("choice", "world", "recorder"),
    [
        ("auto", World(), None),
        ("off", World(gpu=0), None),
        ("auto", World(gpu=0), "a recorder"),
        ("on", World(gpu=0), "a recorder"),
        ("auto", World(0, 2, 0), None),
    ],
)
def test_one_rank_on_a_gpu_records_unless_told_otherwise(
    choice: Any, world: World, recorder: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_graph, "CudaGraphRecorder", lambda: "a recorder")
    assert cuda_graph.graph_recorder(HardwareConfig(cuda_graph=choice), world) == recorder


@pytest.mark.parametrize(("world", "ranks"), [(World(), "1 ranks on the CPU"), (World(0, 4, 0), "4 ranks on GPUs")])
def test_a_graph_that_cannot_be_is_refused_if_it_is_required(world: World, ranks: str) -> None:
    with pytest.raises(ConfigError, match=f"--cuda-graph on: needs one GPU for each fold, and {ranks} train this fold"):
        cuda_graph.graph_recorder(HardwareConfig(cuda_graph="on"), world)


def test_the_recorder_calls_pytorch_as_its_signatures_want() -> None:
    calls: list[str] = []
    with mock.patch.multiple(
        torch.cuda,
        Stream=mock.create_autospec(torch.cuda.Stream),
        current_stream=mock.create_autospec(torch.cuda.current_stream),
        stream=mock.MagicMock(),
        graph=mock.create_autospec(torch.cuda.graph),
        CUDAGraph=mock.create_autospec(torch.cuda.CUDAGraph),
    ):
        recorder = cuda_graph.CudaGraphRecorder()
        recorder.warm_up(lambda: calls.append("warm-up"))
        replay = recorder.record(lambda: calls.append("record"))
        replay()
        graph, arguments = torch.cuda.CUDAGraph.return_value, torch.cuda.graph.call_args  # type: ignore[attr-defined]
        assert arguments == mock.call(graph, stream=recorder._stream, capture_error_mode="thread_local")
        graph.replay.assert_called_once_with()
    assert calls == ["warm-up", "record"]


class FailedCapture:
    """What ``torch.cuda.graph`` of PyTorch 2.11 is when a kernel waits for the device: the stream stays current."""

    def __init__(self, graph: object, stream: object, capture_error_mode: str) -> None:
        self._stream = stream

    def __enter__(self) -> None:
        torch.cuda.set_stream(self._stream)  # type: ignore[arg-type]

    def __exit__(self, *error: object) -> None:
        raise RuntimeError("operation failed due to a previous error during capture")


def test_a_recording_that_fails_leaves_the_stream_and_a_generator_that_works() -> None:
    stream, count = mock.sentinel.training, len(cuda_graph._FAILED)
    generators = [mock.Mock(), mock.create_autospec(torch.Generator, instance=True)]
    with mock.patch.multiple(
        torch.cuda,
        Stream=mock.create_autospec(torch.cuda.Stream),
        CUDAGraph=mock.create_autospec(torch.cuda.CUDAGraph),
        current_stream=mock.create_autospec(torch.cuda.current_stream, return_value=stream),
        set_stream=mock.create_autospec(torch.cuda.set_stream),
        current_device=mock.create_autospec(torch.cuda.current_device, return_value=1),
        default_generators=generators,
        graph=FailedCapture,
    ):
        recorder = cuda_graph.CudaGraphRecorder()
        with pytest.raises(RuntimeError, match="operation failed"):
            recorder.record(lambda: None)
        streams = [call.args for call in torch.cuda.set_stream.call_args_list]  # type: ignore[attr-defined]
        assert streams == [(recorder._stream,), (stream,)]
        generators[1].graphsafe_set_state.assert_called_once_with(generators[1].clone_state.return_value)
        assert cuda_graph._FAILED.pop() is torch.cuda.CUDAGraph.return_value  # type: ignore[attr-defined]
    assert len(cuda_graph._FAILED) == count
