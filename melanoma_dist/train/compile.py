"""Compiles a model with torch.compile, block by block.

A deep trunk repeats a few blocks many times. Compiled as a whole, each repetition is compiled again; compiled block by
block, the first of its kind serves all of them. A trunk that repeats nothing is compiled as a whole.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator

from torch import nn

from melanoma_dist.data.node_copies import cache_folder
from melanoma_dist.models.backbones import TrunkModel

_CACHE = "TORCHINDUCTOR_CACHE_DIR"
_VARIANTS = 64  # of one block: shapes, training and evaluation, frozen or not. PyTorch's default is 8


def compile_model(model: TrunkModel) -> None:
    """Compile the blocks of a model in place. The compiler runs in the first step.

    Its results are kept in the user's cache, or where ``TORCHINDUCTOR_CACHE_DIR`` points. PyTorch finds them there by
    code, versions and GPU, for other folds and later runs.
    """
    import torch._dynamo.config  # here: trainings that compile nothing start without the compiler
    import torch._inductor.config

    os.environ.setdefault(_CACHE, str(cache_folder() / "compiled"))
    torch._dynamo.config.recompile_limit = _VARIANTS
    # A resumed training must compile what the first one did. By default, a shape that changes makes later graphs
    # dynamic, also those of later processes, and the fastest of several kernels is taken, which sum in other orders.
    torch._dynamo.config.automatic_dynamic_shapes = False
    torch._inductor.config.deterministic = True
    # The compiler looks at the input of each block, and PyTorch warns of it. Nothing here reads such a gradient.
    warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")
    for module in repeated_blocks(model.trunk) or [model]:
        module.compile()


def repeated_blocks(trunk: nn.Module) -> list[nn.Module]:
    """Return the outermost modules of each kind that mostly repeats itself: the same layers of the same sizes."""
    structures: dict[type[nn.Module], list[str]] = {}
    for module in trunk.modules():
        if _is_block(module):
            structures.setdefault(type(module), []).append(str(module))
    kinds = {kind for kind, texts in structures.items() if len(texts) >= 2 * len(set(texts))}
    return list(_outermost(trunk, kinds))


def _is_block(module: nn.Module) -> bool:
    """Whether a module joins layers. PyTorch's own modules are too small, or mere containers."""
    layers = sum(any(True for _ in part.parameters(recurse=False)) for part in module.modules())
    return layers > 1 and not type(module).__module__.startswith("torch.nn.")


def _outermost(module: nn.Module, kinds: set[type[nn.Module]]) -> Iterator[nn.Module]:
    for child in module.children():
        if type(child) in kinds:
            yield child
        else:
            yield from _outermost(child, kinds)
