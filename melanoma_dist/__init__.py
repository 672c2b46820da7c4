"""Dermoscopy classifiers over k folds: train, evaluate and use them. See README.md."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from melanoma_dist import nvjpeg

if TYPE_CHECKING:
    from ray.tune import ResultGrid

    from melanoma_dist.config.sweep import SweepConfig
    from melanoma_dist.inference.ensemble import Ensemble
    from melanoma_dist.inference.trained_run import TrainedRun

nvjpeg.preload()  # before anything imports torchvision, which brings an older one

__version__ = "0.1.0"
__all__ = ["__version__", "load_hub", "load_run", "load_sweep", "run_sweep"]


def load_run(path: str | Path) -> TrainedRun:
    """Open a finished run: its ``.config``, ``.summary``, ``.predictions()`` and ``.ensemble()``.

    Raises ConfigError for a folder without a finished run, DataError for one with corrupt or edited files.
    """
    from melanoma_dist.inference.trained_run import open_trained_run  # the command line parses without it

    return open_trained_run(Path(path).expanduser())


def load_hub(folder: str | Path, gpus: int | None = 0, threads: int | None = None) -> Ensemble:
    """Load the ensemble of a folder that ``export --format hub`` wrote; see `Ensemble.load` for the arguments.

    Raises DataError for files that are missing, corrupt or changed.
    """
    from melanoma_dist.app.export.hub import load_hub

    return load_hub(Path(folder).expanduser(), gpus, threads)


def run_sweep(settings: SweepConfig) -> ResultGrid:
    """Search configurations as ``launch.py sweep`` does, or ``segment sweep`` for a SegmentSweepConfig.

    Returns what `load_sweep` does.

    Raises ConfigError for wrong settings, and TrainingError if every configuration failed.
    """
    from melanoma_dist.sweep.command import sweep

    return load_sweep(sweep(settings))


def load_sweep(path: str | Path) -> ResultGrid:
    """Open the folder of a sweep as Ray Tune's results: one for each unit, a fold of a configuration.

    The metric is ``best_score``, the best validation AUC, or Jaccard index of a segmenter. ``leaderboard.csv`` compares
    configurations over folds.
    Tune's files are unpickled, which can execute code: open only folders that you or your cluster wrote.

    Raises ConfigError for a folder without an experiment of Ray Tune: of another kind, or of a sweep without Ray.
    """
    from melanoma_dist.sweep.results import open_results

    return open_results(Path(path).expanduser())
