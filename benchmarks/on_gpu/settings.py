"""What is measured on a GPU and for how long, and what it came to: a row for each figure."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from melanoma_dist.errors import ConfigError
from melanoma_dist.models.backbones import published_input, timm_name
from melanoma_dist.models.names import LITERATURE
from melanoma_dist.world import World

Name = Literal[
    "prove", "decoder", "pixels", "command", "resume", "checkpoint", "memory", "train", "input", "nccl", "modes",
    "compile", "share",
]  # fmt: skip
NAMES: tuple[Name, ...] = get_args(Name)
PASS, FAIL = "PASS", "FAIL"
_SMOKE_SIZE = 96  # pixels; the real sizes would take a CPU minutes


@dataclass(frozen=True)
class Settings:
    """What is measured, and for how long."""

    sections: tuple[Name, ...] = NAMES
    """Sections, in the order in which they are tried: the most important first."""
    data: Path | None = None
    """Prepared data set; the demo data, made on first use, where not given."""
    out: Path | None = None
    """Folder for gpu.md, gpu.json and the output of the command. What its gpu.json has is not measured again."""
    device: Literal["cuda", "cpu"] = "cuda"
    """cuda, or cpu for a smoke test of this script."""
    batch_size: int = 64
    """Images per step and GPU, 2 to 4096."""
    seconds: float = 20.0
    """Length of each measurement, above 0 and at most 600."""
    minutes: float = 12.0
    """All ends after this; what was not measured by then is named. Above 0 and at most 600."""
    backbones: tuple[str, ...] = field(default=tuple(LITERATURE))
    """Backbones whose speed of training is measured."""
    threads: int | None = None
    """DALI threads; all cores but one where not given."""

    def __post_init__(self) -> None:
        rules = {"batch_size": (2, 4096), "seconds": (0.01, 600), "minutes": (0.01, 600)}
        for name, (low, high) in rules.items():
            if not low <= getattr(self, name) <= high:
                raise ConfigError.of(name, getattr(self, name), f"must be {low} to {high}")
        for backbone in self.backbones:
            timm_name(backbone)

    @property
    def gpu(self) -> int | None:
        """Index of the GPU that everything runs on but NCCL, which takes all."""
        return 0 if self.device == "cuda" else None

    def size(self, backbone: str) -> int:
        """Side of the input in pixels: the backbone's own."""
        return _SMOKE_SIZE if self.gpu is None else published_input(backbone).size

    @property
    def world(self) -> World:
        """The one rank of everything but NCCL."""
        return World(gpu=self.gpu, threads=self.threads or max(1, len(os.sched_getaffinity(0)) - 1))


@dataclass(frozen=True)
class Row:
    """One line of the result; its section is filled in later."""

    figure: str
    value: str
    remark: str = ""
    section: str = ""

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """As a table has it."""
        return self.section, self.figure, self.value, self.remark


Section = Callable[[], Iterator[Row]]


def claim(holds: bool, figure: str, value: str, remark: str = "") -> Row:
    """A row that says whether a claim holds."""
    return Row(figure, f"{PASS if holds else FAIL}: {value}", remark)


def skipped(why: str) -> Iterator[Row]:
    """A section that does not run here."""
    yield Row("skipped", "-", why)
