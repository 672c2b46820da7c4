"""Write an exported graph as a program of ``torch.export``, and run it with PyTorch alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.export import Dim, ExportedProgram

from melanoma_dist.app.export.description import Description
from melanoma_dist.app.export.graph import INPUT, METADATA, Graph
from melanoma_dist.app.export.parity import Answer, Answers

AXES = ("batch", "height", "width")
DESCRIPTION = "export.json"
_LONGEST = 65_500  # pixels of a JPEG's side
_MOST_IMAGES = 4096  # of a batch


def trace(graph: Graph) -> ExportedProgram:
    """Trace a graph for any batch and any size of images."""
    # Two images of unequal sides: PyTorch would take a length of 1, or two equal ones, for a constant.
    examples = [torch.zeros(2, 70, 90, graph.channels, dtype=torch.uint8)]
    most = (_MOST_IMAGES, _LONGEST, _LONGEST)
    axes = {axis: Dim(name, min=1, max=limit) for axis, (name, limit) in enumerate(zip(AXES, most, strict=True))}
    shapes: dict[str, Any] = {INPUT: axes}
    if graph.fields:
        examples.append(torch.zeros(2, len(graph.fields)))
        shapes[METADATA] = {0: axes[0]}
    with torch.no_grad():
        return torch.export.export(graph.eval(), tuple(examples), dynamic_shapes=shapes)


def write_torch(graph: Graph, path: Path, description: Description) -> None:
    """Write a graph with its description."""
    torch.export.save(trace(graph), path, extra_files={DESCRIPTION: json.dumps(description)})


def open_torch(path: Path, threads: int) -> Answer:
    """Run a file with PyTorch on the CPU, on as many threads as the process has."""
    module = torch.export.load(path).module()

    def answer(*inputs: npt.NDArray[np.generic]) -> Answers:
        with torch.no_grad():
            outputs = module(*map(torch.from_numpy, inputs))
        return tuple(each.numpy() for each in (outputs if isinstance(outputs, tuple) else (outputs,)))

    return answer
