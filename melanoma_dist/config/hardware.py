"""The configuration of where a run is trained."""

from __future__ import annotations

import re
from dataclasses import dataclass

from melanoma_dist.config.rules import between, check
from melanoma_dist.errors import ConfigError


@dataclass(frozen=True)
class HardwareConfig:
    """Where the run is trained. Nothing here is meant to change what is learnt."""

    gpus: int | None = None
    """GPUs to use; 0 trains on the CPU; all that the machine or the cluster has where not given."""
    gpus_per_unit: float | None = None
    """GPUs (ranks) that train one fold together, or a share of one, such as 0.5, that small backbones do with; chosen
    from the number of GPUs where not given."""
    ranks_per_unit: int | None = None
    """Ranks that train one fold together on the CPU (with `--gpus 0`); 1 where not given."""
    address: str | None = None
    """Ray cluster to join (`auto`, or HOST:PORT); a private one on this machine where not given."""
    amp: bool = True
    """bfloat16 autocast on GPUs (the CPU always computes in float32)."""
    channels_last: bool = True
    """Channels-last memory layout on GPUs."""
    compile: bool = False
    """Compile the model with torch.compile: minutes at the start, faster steps after."""
    sync_batchnorm: bool = False
    """Batch statistics over all ranks of a fold (GPUs only)."""
    decode_threads: int | None = None
    """Threads of a rank that decode images, and on the CPU compute; the CPUs divided among ranks where not given."""
    max_restarts: int = 3
    """How often a fold whose processes died is restarted from its last checkpoint."""
    max_preemptions: int = 20
    """How often a fold whose node was taken away or died is started again elsewhere."""
    grace_s: int = 25
    """Seconds that folds are given to save when the command is asked to end (Ctrl-C, SIGTERM, SIGUSR1)."""
    max_skipped_steps: int = 10
    """How many steps of an epoch may be skipped because their gradient is not finite before the fold stops."""
    max_corrupt_images: int = 10
    """How many images of a fold may turn out damaged, and are then not learnt from, before it stops."""
    collective_timeout_s: int = 300
    """Seconds after which a rank that waits for another one gives up."""
    checkpoint_every: str = "10m"
    """Time (`90s`, `10m`, `2h`) or steps (`500`) between checkpoints; at the end of each epoch there is one anyway."""
    allow_resize: bool = False
    """Let a fold go on with another number of ranks than it was begun with: the same images in each global batch,
    figures that differ in their last digits."""
    accept_changes: bool = False
    """Let a run go on with other code, libraries or arithmetic (GPU or CPU, threads of the CPU, amp, channels_last,
    compile, sync_batchnorm) than it was begun with; its record keeps both codes and libraries."""

    def __post_init__(self) -> None:
        check(self, "gpus", self.gpus is None or self.gpus >= 0, "must not be negative")
        for name in ("ranks_per_unit", "decode_threads"):
            value = getattr(self, name)
            check(self, name, value is None or value >= 1, "must be at least 1")
        share = self.gpus_per_unit
        whole = share is None or 0.05 <= share <= 1 or (share > 1 and float(share).is_integer())
        check(self, "gpus_per_unit", whole, "must be a number of GPUs, or a share of one from 0.05 to 1")
        if self.gpus == 0 and self.gpus_per_unit is not None:
            raise ConfigError.of(
                "gpus_per_unit", self.gpus_per_unit, "does not go with --gpus 0", "--ranks-per-unit does."
            )
        if self.gpus != 0 and self.ranks_per_unit is not None:
            raise ConfigError.of(
                "ranks_per_unit", self.ranks_per_unit, "is for the CPU, --gpus 0", "Use --gpus-per-unit."
            )
        for name in ("max_restarts", "max_preemptions", "max_skipped_steps", "max_corrupt_images", "grace_s"):
            check(self, name, getattr(self, name) >= 0, "must not be negative")
        between(self, "collective_timeout_s", 5, 86400)
        rule = "must be a number of steps, or a time such as 90s, 10m or 2h"
        check(self, "checkpoint_every", re.fullmatch(r"0*[1-9]\d{0,8}[smh]?", self.checkpoint_every) is not None, rule)

    @property
    def checkpoint_interval(self) -> tuple[int | None, float | None]:
        """``checkpoint_every`` in steps or in seconds."""
        seconds = {"s": 1, "m": 60, "h": 3600}.get(self.checkpoint_every[-1])
        if seconds is None:
            return int(self.checkpoint_every), None
        return None, float(self.checkpoint_every[:-1]) * seconds
