"""Write an exported graph as ONNX, and run it with ONNX Runtime."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from melanoma_dist.app.export.description import Description, as_texts
from melanoma_dist.app.export.graph import INPUT, METADATA, Graph
from melanoma_dist.app.export.parity import Answer, Answers
from melanoma_dist.app.export.torch_file import AXES, trace

_OPSET = 20
_LARGEST = 1_800_000_000  # bytes of weights; a file of ONNX must stay below 2 GiB


def write_onnx(graph: Graph, path: Path, description: Description, largest: int = _LARGEST) -> None:
    """Write a graph with its description. Weights of more than ``largest`` bytes go to a second file, PATH.data."""
    inputs = [INPUT, METADATA] if graph.fields else [INPUT]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about its own versions
        exported: Any = torch.onnx.export(
            trace(graph), input_names=inputs, output_names=list(graph.outputs), opset_version=_OPSET, dynamo=True,
            verbose=False,
        )  # fmt: skip
    _name_axes(exported.model)
    exported.model.metadata_props.update(as_texts(description))
    weights = sum(value.numel() * value.element_size() for value in graph.state_dict().values())
    exported.save(path, external_data=weights > largest)


def _name_axes(model: Any) -> None:
    """Name the axes of variable length, to which the exporter gives numbers."""
    names = {str(axis): name for axis, name in zip(model.graph.inputs[0].shape, AXES, strict=False)}
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.shape = type(value.shape)([names.get(str(axis), axis) for axis in value.shape])


def open_onnx(path: Path, threads: int) -> Answer:
    """Run a file with ONNX Runtime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def answer(*inputs: npt.NDArray[np.generic]) -> Answers:
        return tuple(session.run(None, dict(zip((INPUT, METADATA), inputs, strict=False))))

    return answer
