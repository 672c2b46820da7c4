"""The configurations of the commands on finished runs. Nothing heavy is imported to know them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from melanoma_dist.config.rules import check_url
from melanoma_dist.errors import ConfigError

MOST_VIEWS = 8


@dataclass(frozen=True)
class EvaluateConfig:
    """Judge the ensemble of a finished run's folds by images that none of them has seen.

    Each evaluation is kept in RUN/evaluations with its date. Images are only new once: a second look at the same ones
    is marked as such.
    """

    run: Path
    """Folder of a finished run."""
    holdout: str | None = None
    """Holdout of the run's own data set, such as 2017-test or holdout."""
    data: str | None = None
    """Another data set made by `data prepare` (folder or URL): all its images whose labels are known."""
    dataset: str | None = None
    """Where the run's own data set lies now, if it was moved since."""
    tta: int = 1
    """Orientations of each image whose probabilities are averaged, 1 (as it is) to 8 (all flips and quarter turns)."""
    prevalence: float | None = None
    """Share of melanomas among the people of whom PPV and NPV are to tell, above 0 and below 1; not told without."""
    batch_size: int | None = None
    """Images at a time, 1 to 65536; as many as at validation where not given."""
    gpus: int | None = None
    """GPUs to use, 0 (the CPU) or 1; the one of this machine where not given."""
    decode_threads: int | None = None
    """Threads that decode images (on the CPU: and compute); as many as there are cores where not given."""

    def __post_init__(self) -> None:
        for name, value in (("holdout", self.holdout), ("data", self.data), ("dataset", self.dataset)):
            _check(name, value, value is None or bool(value.strip()), "is empty: name what is meant, or leave it out")
        check_url("data", self.data)
        check_url("dataset", self.dataset)
        if (self.holdout is None) == (self.data is None):
            raise ConfigError(
                "--holdout, --data: give one of them: --holdout NAME for a holdout of the run's own data set, "
                "or --data DIR for all images of another one."
            )
        _check("tta", self.tta, 1 <= self.tta <= MOST_VIEWS, f"must be 1 to {MOST_VIEWS}")
        share = self.prevalence
        _check("prevalence", share, share is None or 0 < share < 1, "must be above 0 and below 1")
        size, gpus, threads = self.batch_size, self.gpus, self.decode_threads
        _check("batch_size", size, size is None or 1 <= size <= 65536, "must be 1 to 65536")
        _check("gpus", gpus, gpus in (None, 0, 1), "must be 0 or 1: models are small beside what one GPU holds")
        _check("decode_threads", threads, threads is None or threads >= 1, "must be at least 1")


@dataclass(frozen=True)
class CompareConfig:
    """Compare finished runs over the same folds: what can be said of their difference, and what each cost."""

    runs: tuple[Path, ...]
    """Folders of two or more finished runs, such as runs/densenet201-isic-1a2b3c4d."""
    holdout: str | None = None
    """Compare the ensembles on these images, as `evaluate` named its result (2017-test), instead of out of fold."""
    out: Path | None = None
    """Folder for comparison.html and comparison.json; compare-A-B beside the runs where not given."""

    def __post_init__(self) -> None:
        if len(self.runs) < 2:
            given = ", ".join(str(run) for run in self.runs) or "none"
            raise ConfigError(f"compare: give two or more finished runs; {given} was given.")
        for at, run in enumerate(self.runs):
            if run.resolve() in [other.resolve() for other in self.runs[:at]]:
                raise ConfigError(f"compare: {run} was given twice; a run has nothing to differ in from itself.")


def _check(name: str, value: object, holds: bool, rule: str) -> None:
    if not holds:
        raise ConfigError.of(name, value, rule)
