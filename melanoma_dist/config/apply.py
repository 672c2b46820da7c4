"""The configuration of `segment apply`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from melanoma_dist.config.rules import at_least, check_url, expand_home, optional_between


@dataclass(frozen=True)
class ApplyConfig:
    """Segment every image of a data set with a finished segmentation run.

    The masks are for `--region lesion` and `--mask channel` of a classifier.

    No image is segmented by a model that was trained on it, or on another image of its group. Re-running the command
    segments only what is missing.
    """

    run: Path
    """Folder of a finished segmentation run."""
    out: Path = Path("lesions")
    """Folder for masks and table. A classifier reads it with --lesions."""
    data: str | None = None
    """The data set that the run was trained on (folder or URL). Default: where it was then."""
    batch_size: Annotated[int | None, arg(aliases=("-b",))] = None
    """Images per batch, 1 to 65536. Default: as in the run's validation."""
    gpus: int | None = None
    """GPUs of this machine to use (default: 1), or 0 for the CPU. A machine without a GPU needs --gpus 0."""
    decode_threads: Annotated[int | None, arg(aliases=("-j",))] = None
    """Threads that decode images for each GPU, and on the CPU also compute. Default: the CPU cores, shared by GPUs."""

    def __post_init__(self) -> None:
        expand_home(self, "run", "out", "data")
        check_url("data", self.data)
        optional_between(self, "batch_size", 1, 65536)
        at_least(self, 0, "gpus")
        at_least(self, 1, "decode_threads")
