"""The configuration of `predict`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from melanoma_dist.config.places import check_writable, exists
from melanoma_dist.config.rules import at_least, check, check_url, expand_home, optional_between
from melanoma_dist.config.run import MAX_ORIENTATIONS
from melanoma_dist.errors import ConfigError

OUTPUTS = (".csv", ".parquet", ".json")
"""Suffixes of files for predictions."""


@dataclass(frozen=True)
class PredictConfig:
    """Predict images with the ensemble of a finished run's folds, by the decision rules that the run fixed.

    Answers are for research only: they are no diagnosis.
    """

    run: Path
    """Folder of a finished run."""
    inputs: Annotated[tuple[Path, ...], arg(metavar="IMAGE [IMAGE ...]")]
    """Image files, folders of images, or tables (.csv, .tsv, .xlsx) with a column of paths."""
    out: Path | None = None
    """File for the predictions: .csv, .parquet or .json. Default: a table on the terminal."""
    explain: Path | None = None
    """Folder for explanations: the evidence for the headline label and every called label over each image, how far to
    trust it, and the most similar images of the run."""
    dataset: str | None = None
    """New place of the run's own data set, if it moved after the training. It shows which images the run has seen."""
    tta: int | None = None
    """Test-time augmentation: orientations of each image to average, 1 (none) to 8 (all flips and quarter turns).
    Default: as in the run, whose calibration and operating points hold for it."""
    batch_size: Annotated[int | None, arg(aliases=("-b",))] = None
    """Images per batch, 1 to 65536. Default: as in the run's validation."""
    gpus: int | None = None
    """GPUs to use: 1 (default), or 0 for the CPU. A machine without a GPU needs --gpus 0."""
    decode_threads: Annotated[int | None, arg(aliases=("-j",))] = None
    """Threads that decode images, and on the CPU also compute. Default: the number of CPU cores."""

    def __post_init__(self) -> None:
        expand_home(self, "run", "inputs", "out", "explain", "dataset")
        if not self.inputs:
            raise ConfigError("predict: name at least one image, folder or table after the run: `predict RUN IMAGE`.")
        check(self, "dataset", self.dataset is None or bool(self.dataset.strip()), "is empty: name a folder or a URL")
        check_url("dataset", self.dataset)
        optional_between(self, "tta", 1, MAX_ORIENTATIONS)
        optional_between(self, "batch_size", 1, 65536)
        check(self, "gpus", self.gpus in (None, 0, 1), "must be 0 or 1: one GPU holds all models of a run")
        at_least(self, 1, "decode_threads")


def check_outputs(out: Path | None, explain: Path | None, inputs: tuple[Path, ...]) -> None:
    """Raise ConfigError for a file of predictions that has another suffix, cannot be written, or is an input.

    And for a folder of explanations that cannot be written.
    """
    if explain is not None:
        check_writable("explain", explain)
    if out is None:
        return
    if out.suffix.lower() not in OUTPUTS:
        raise ConfigError.of("out", out, f"must end in {', '.join(OUTPUTS[:-1])} or {OUTPUTS[-1]}")
    if exists(out) and out.is_dir():
        raise ConfigError.of("out", out, "is a folder", "Name a file.")
    if out.resolve() in [path.resolve() for path in inputs]:
        raise ConfigError.of("out", out, "is an input, which it would replace", "Name another file.")
    check_writable("out", out.parent)
