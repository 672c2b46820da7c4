"""The configuration of the machines that train a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import arg

from melanoma_dist.config.rules import at_least, check
from melanoma_dist.errors import ConfigError

CudaGraph = Literal["auto", "on", "off"]


@dataclass(frozen=True)
class HardwareConfig:
    """Where and how fast the run trains. The images in each global batch do not depend on it."""

    gpus: int | None = None
    """GPUs to use; 0 trains on the CPU. Default: all GPUs of the machine or the cluster."""
    gpus_per_unit: float | None = None
    """GPUs (ranks) that train one fold together, or a share of one GPU (0.05 to 1) for small backbones.
    Default: chosen from the number of GPUs."""
    ranks_per_unit: int | None = None
    """Ranks that train one fold together on the CPU (with `--gpus 0`). Default: 1."""
    address: str | None = None
    """Ray cluster to join: `auto` or HOST:PORT. Default: a private cluster on this machine."""
    amp: bool = True
    """bfloat16 autocast on GPUs. The CPU always computes in float32."""
    channels_last: bool = True
    """Channels-last memory layout on GPUs."""
    compile: bool = False
    """Compile the repeated blocks of the backbone with torch.compile: a slow first step, faster ones afterwards."""
    cuda_graph: CudaGraph = "auto"
    """Replay each training step from a CUDA graph: auto (where one GPU trains a fold), on (an error elsewhere) or off.
    The start proves that the bits are those of the step itself; otherwise the fold trains without a graph."""
    sync_batchnorm: bool = False
    """Batch statistics over all ranks of a fold (GPUs only)."""
    decode_threads: Annotated[int | None, arg(aliases=("-j",))] = None
    """Threads of a rank that decode images, and on the CPU also compute. Default: the CPUs, divided among the ranks."""

    def __post_init__(self) -> None:
        at_least(self, 0, "gpus")
        at_least(self, 1, "ranks_per_unit", "decode_threads")
        share = self.gpus_per_unit
        whole = share is None or 0.05 <= share <= 1 or (share > 1 and float(share).is_integer())
        check(self, "gpus_per_unit", whole, "must be a number of GPUs, or a share of one from 0.05 to 1")
        one = self.gpus != 0 and (share is None or share <= 1)
        check(self, "cuda_graph", self.cuda_graph != "on" or one, "needs one GPU for each fold")
        if self.gpus == 0 and self.gpus_per_unit is not None:
            remedy = "Use --ranks-per-unit."
            raise ConfigError.of("gpus_per_unit", self.gpus_per_unit, "is for GPUs, and --gpus is 0", remedy)
        if self.gpus != 0 and self.ranks_per_unit is not None:
            remedy = "Use --gpus-per-unit, or add --gpus 0."
            raise ConfigError.of("ranks_per_unit", self.ranks_per_unit, "is for the CPU (--gpus 0)", remedy)
