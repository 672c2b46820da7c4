"""Send a run to an experiment tracker, MLflow or Weights & Biases: parameters, metrics by epoch, results, the report.

Only the main process sends. A tracker that fails is left alone for the rest of the command: its curves are not worth a
training. A resumed run continues the tracker's run of the same folder.
"""

from __future__ import annotations

import hashlib
import importlib.util
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from melanoma_dist import console
from melanoma_dist.artifacts.mask_summary import MaskSummary
from melanoma_dist.artifacts.run_folder import RunFolder
from melanoma_dist.artifacts.run_record import Identity, read_run_record
from melanoma_dist.artifacts.summary import RunSummary
from melanoma_dist.config.run import RunConfig
from melanoma_dist.errors import ConfigError
from melanoma_dist.metrics.intervals import Interval
from melanoma_dist.train.events import EpochDone

_PROJECT = "melanoma-dist"


class Tracker(Protocol):
    """One run in an experiment tracker."""

    def log(self, values: Mapping[str, float], epoch: int | None) -> None:
        """Add metrics of an epoch, or without one the results of the run."""

    def close(self, report: Path | None) -> None:
        """End the run: with its report, or None if it is to be resumed."""


class RunTracker:
    """The tracker of a run, if the user wants one."""

    def __init__(self, tracker: Tracker | None) -> None:
        self._tracker = tracker

    def log_epoch(self, title: str, event: EpochDone) -> None:
        """Send the metrics of an epoch of the fold ``title``."""
        values = {
            "train_loss": event.train_loss,
            "validation_loss": event.validation_loss,
            event.score_name: event.score,
            "images_per_s": event.images_per_s,
        }
        self._send(lambda tracker: tracker.log({f"{title}/{key}": each for key, each in values.items()}, event.epoch))

    def finish(self, summary: RunSummary | MaskSummary, report: Path) -> None:
        """Send the results of the run and the place of its report."""
        self._send(lambda tracker: tracker.log(_results(summary), None))
        self.close(report.resolve())

    def close(self, report: Path | None = None) -> None:
        """End the tracker's run, once."""
        self._send(lambda tracker: tracker.close(report))
        self._tracker = None

    @property
    def is_open(self) -> bool:
        """Whether what is sent arrives: not closed, not failed, and the user wants a tracker."""
        return self._tracker is not None

    def _send(self, action: Callable[[Tracker], None]) -> None:
        if self._tracker is None:
            return
        try:
            action(self._tracker)
        except Exception as error:  # each tracker's library has classes of its own
            self._tracker = None
            console.info(f"note: the tracker failed ({_brief(error)}). The run continues without it.")


def check_tracker(config: RunConfig) -> None:
    """Raise ConfigError unless the library of the chosen tracker is installed."""
    if config.track != "none" and importlib.util.find_spec(config.track) is None:
        rule = f"the package {config.track} is not installed"
        raise ConfigError.of("track", config.track, rule, f"Type `pip install '{_PROJECT}[{config.track}]'`.")


@contextmanager
def open_tracker(config: RunConfig, folder: RunFolder, sweep: str | None = None) -> Iterator[RunTracker]:
    """Open the tracker's run of a run folder, and close it at the end of the block."""
    tracker = track_run(config, folder, sweep)
    try:
        yield tracker
    finally:
        tracker.close()


def track_run(config: RunConfig, folder: RunFolder, sweep: str | None = None) -> RunTracker:
    """Open the tracker's run of a run folder. ``sweep``: the name of the sweep that it belongs to."""
    return RunTracker(_open(config, folder, sweep))


def _open(config: RunConfig, folder: RunFolder, sweep: str | None) -> Tracker | None:
    if config.track == "none":
        return None
    started = read_run_record(folder.record).started
    key = hashlib.sha256(f"{folder.path.resolve()} {started}".encode()).hexdigest()[:16]
    try:
        return _KINDS[config.track](folder.path.name, key, folder.identity, sweep)
    except Exception as error:  # each tracker's library has classes of its own
        console.info(f"note: {config.track} cannot be used ({_brief(error)}). The run continues without it.")
        return None


class _MLflow:
    """A run of MLflow, where ``MLFLOW_TRACKING_URI`` says. By its client: the runs of a sweep are open side by side."""

    def __init__(self, name: str, key: str, parameters: Identity, sweep: str | None) -> None:
        import mlflow
        from mlflow.entities import Param
        from mlflow.tracking.context.registry import resolve_tags

        self._client: Any = mlflow.MlflowClient()
        experiment = mlflow.set_experiment(_PROJECT).experiment_id
        earlier = self._client.search_runs([experiment], f"tags.folder_key = '{key}'")
        if earlier:
            self._run = earlier[0].info.run_id
            self._client.update_run(self._run, "RUNNING")
            return
        tags = resolve_tags({"folder_key": key, **({"sweep": sweep} if sweep else {})})
        self._run = self._client.create_run(experiment, tags=tags, run_name=name).info.run_id
        self._client.log_batch(self._run, params=[Param(each, str(value)) for each, value in parameters.items()])

    def log(self, values: Mapping[str, float], epoch: int | None) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(self._run, [Metric(each, value, now, epoch or 0) for each, value in values.items()])

    def close(self, report: Path | None) -> None:
        if report is not None:
            self._client.set_tag(self._run, "report", str(report))
        self._client.set_terminated(self._run, "FINISHED" if report is not None else "KILLED")


class _WandB:
    """A run of Weights & Biases."""

    def __init__(self, name: str, key: str, parameters: Identity, sweep: str | None) -> None:
        import wandb

        # Runs of a sweep are open side by side, so each is one of its own.
        self._run: Any = wandb.init(
            project=_PROJECT, id=key, name=name, config=dict(parameters), resume="allow", group=sweep,
            reinit="create_new",
        )  # fmt: skip
        self._run.define_metric("*", step_metric="epoch")

    def log(self, values: Mapping[str, float], epoch: int | None) -> None:
        if epoch is None:
            self._run.summary.update(dict(values))
        else:
            self._run.log({"epoch": epoch, **values})

    def close(self, report: Path | None) -> None:
        if report is not None:
            self._run.summary["report"] = str(report)
        self._run.finish(0 if report is not None else 1)


_KINDS: dict[str, Callable[[str, str, Identity, str | None], Tracker]] = {"mlflow": _MLflow, "wandb": _WandB}


def _results(summary: RunSummary | MaskSummary) -> dict[str, float]:
    if isinstance(summary, MaskSummary):
        return _scores_of_masks(summary)
    pooled, headline = summary.out_of_fold.by_image, summary.label_set.headline
    interval = pooled.intervals[headline].auc
    values = {
        "out_of_fold/auc": interval.estimate,
        "out_of_fold/auc_low": interval.low,
        "out_of_fold/auc_high": interval.high,
        "out_of_fold/sensitivity": pooled.labels[headline].sensitivity,
        "out_of_fold/specificity": pooled.labels[headline].specificity,
        "out_of_fold/macro_auc": pooled.macro.auc,
        "over_folds/auc_mean": summary.over_folds[headline].auc.mean,
    }
    return {name: value for name, value in values.items() if value is not None}


def _scores_of_masks(summary: MaskSummary) -> dict[str, float]:
    """The mean of each score over the images, with its interval."""
    known = {name: score for name, score in summary.out_of_fold.items() if isinstance(score, Interval)}
    return {
        f"out_of_fold/{name}{end}": value
        for name, score in known.items()
        for end, value in (("", score.estimate), ("_low", score.low), ("_high", score.high))
    }


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
