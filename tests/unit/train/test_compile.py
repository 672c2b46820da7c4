"""Blocks that a trunk repeats are compiled, one graph for each kind."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from melanoma_dist.models.classifier import build_classifier
from melanoma_dist.train.compile import repeated_blocks
from melanoma_dist.train.loss import MaskedLoss
from melanoma_dist.train.step import TrainStep
from melanoma_dist.world import World

from ..samples import tiny
from .test_step import TARGETS, batch, train, train_step

REPEATED = {
    "resnet152v2": {"PreActBottleneck": 47},  # and three that end a stack, each of its own size
    "inceptionresnetv2": {"Block35": 10, "Block17": 20, "Block8": 10},
    "densenet201": {},
    "test_vit": {"Block": 6},
}


@pytest.mark.parametrize("backbone", REPEATED)
def test_repeated_blocks_are_those_of_the_architecture(backbone: str) -> None:
    model = build_classifier(tiny(backbone=backbone).model, 32 if backbone == "test_vit" else 96, 8, 0)
    kinds = Counter(type(block).__name__ for block in repeated_blocks(model.trunk))
    assert {kind: kinds[kind] for kind in REPEATED[backbone]} == REPEATED[backbone]
    assert bool(kinds) == bool(REPEATED[backbone])


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[int]]:
    """Compile in earnest but for the kernels: the sizes of the graphs that the compiler gets."""
    sizes: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        sizes.append(len(graph.graph.nodes))
        return graph.forward

    compile_in_place = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda module: compile_in_place(module, backend=backend))
    monkeypatch.setenv("MELANOMA_DIST_CACHE", str(tmp_path))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    with torch._dynamo.config.patch():
        yield sizes
    torch._dynamo.reset()


def test_one_graph_serves_all_blocks_of_a_kind_and_takes_the_same_steps(graphs: list[int], tmp_path: Path) -> None:
    notes: list[str] = []
    config = tiny(compile=True, ema_decay=0.9)
    model = build_classifier(config.model, 32, 8, config.seed)
    compiled = TrainStep(model, MaskedLoss(config.loss, TARGETS), config, World(), notes.append)
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "compiled")
    compiled.begin_epoch(frozen=False)
    compiled.step(batch(0), 0, 0.01)
    assert len(graphs) == 1
    assert len(notes) == 1
    assert notes[0].startswith("compiled the model in its first step, which took ")
    compiled.step(batch(1), 1, 0.01)
    assert len(graphs) == len(notes) == 1
    expected = train(train_step(tiny(ema_decay=0.9)), 0, 1).model.state_dict()
    for key, value in compiled.model.state_dict().items():
        torch.testing.assert_close(value, expected[key], rtol=1e-5, atol=1e-6)


def test_a_trunk_that_repeats_nothing_is_compiled_as_a_whole(graphs: list[int]) -> None:
    train(train_step(tiny(backbone="test_resnet", compile=True)), 0)
    assert len(graphs) == 1
