"""The configurations of the commands on finished runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from melanoma_dist.config.rules import at_least, check, check_url, expand_home, optional_between
from melanoma_dist.config.run import MAX_ORIENTATIONS
from melanoma_dist.errors import ConfigError


@dataclass(frozen=True)
class EvaluateConfig:
    """Evaluate the ensemble of a finished run's folds on images that no fold has seen.

    RUN/evaluations records every evaluation with its date, before any image is scored. A second evaluation on the same
    images is marked as such: images are unseen only once.
    """

    run: Path
    """Folder of a finished run."""
    holdout: str | None = None
    """Holdout of the run's own data set, such as 2017-test or holdout."""
    data: str | None = None
    """Another data set from `data prepare` (folder or URL). All its images with known labels are scored."""
    exclude_seen: bool = False
    """Leave out images that the run was trained on, with copies and photographs of the same lesions or patients."""
    dataset: str | None = None
    """New place of the run's own data set, if it moved after the training."""
    tta: int | None = None
    """Test-time augmentation: orientations of each image to average, 1 (none) to 8 (all flips and quarter turns).
    Default: as in the run, whose calibration and operating points hold for it."""
    prevalence: float | None = None
    """Prevalence of the headline label, above 0 and below 1, for which to report PPV and NPV. Default: none."""
    batch_size: Annotated[int | None, arg(aliases=("-b",))] = None
    """Images per batch, 1 to 65536. Default: as in the run's validation."""
    gpus: int | None = None
    """GPUs to use: 1 (default), or 0 for the CPU. A machine without a GPU needs --gpus 0."""
    decode_threads: Annotated[int | None, arg(aliases=("-j",))] = None
    """Threads that decode images, and on the CPU also compute. Default: the number of CPU cores."""

    def __post_init__(self) -> None:
        expand_home(self, "run", "data", "dataset")
        for name in ("holdout", "data", "dataset"):
            value = getattr(self, name)
            check(self, name, value is None or bool(value.strip()), "is empty: give a name, or leave the flag out")
        check_url("data", self.data)
        check_url("dataset", self.dataset)
        if (self.holdout is None) == (self.data is None):
            raise ConfigError(
                "--holdout, --data: give one of them: --holdout NAME for a holdout of the run's own data set, "
                "or --data DIR for all images of another one."
            )
        optional_between(self, "tta", 1, MAX_ORIENTATIONS)
        share = self.prevalence
        check(self, "prevalence", share is None or 0 < share < 1, "must be above 0 and below 1")
        optional_between(self, "batch_size", 1, 65536)
        check(self, "gpus", self.gpus in (None, 0, 1), "must be 0 or 1: one GPU holds all models of a run")
        at_least(self, 1, "decode_threads")


@dataclass(frozen=True)
class CompareConfig:
    """Compare finished runs over the same folds: differences with confidence intervals, and the cost of each run."""

    runs: tuple[Path, ...]
    """Folders of two or more finished runs, such as runs/densenet201-isic-1a2b3c4d."""
    holdout: str | None = None
    """Compare on these images, by the name that `evaluate` gave its result (2017-test). Default: out of fold."""
    out: Path | None = None
    """Folder for comparison.html and comparison.json. Default: compare-A-B beside the runs."""

    def __post_init__(self) -> None:
        expand_home(self, "runs", "out")
        if len(self.runs) < 2:
            listed = ", ".join(str(run) for run in self.runs) or "none"
            raise ConfigError(
                f"compare: give two or more finished runs, such as `compare RUN RUN`. Runs given: {listed}."
            )
        for at, run in enumerate(self.runs):
            if run.resolve() in [other.resolve() for other in self.runs[:at]]:
                raise ConfigError(f"compare: {run} is listed twice. Name each run once.")
