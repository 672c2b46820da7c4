"""The folder of a run: where its files lie, and the refusal to mix two runs in one folder."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import yaml

from melanoma_dist.artifacts.lesion_table import read_lesions
from melanoma_dist.artifacts.run_record import (
    RECORD,
    Identity,
    RunRecord,
    Scalar,
    current_environment,
    now,
    read_run_record,
    write_run_record,
)
from melanoma_dist.artifacts.segmenter_copy import bring_segmenter
from melanoma_dist.config.places import DECISION_RULES, SUMMARY
from melanoma_dist.config.run import RunConfig, nested
from melanoma_dist.config.sweep import SweepConfig
from melanoma_dist.data.folds import read_folds
from melanoma_dist.data.manifest import Dataset, write_table
from melanoma_dist.errors import ConfigError
from melanoma_dist.storage import atomic


@dataclass(frozen=True)
class RunFolder:
    """A run on disk."""

    path: Path
    identity: Identity

    @property
    def record(self) -> Path:
        """Identity and environment, written first."""
        return self.path / RECORD

    @property
    def folds(self) -> Path:
        """Which fold validates which image."""
        return self.path / "folds.parquet"

    @property
    def predictions(self) -> Path:
        """Out-of-fold predictions."""
        return self.path / "predictions.parquet"

    @property
    def summary(self) -> Path:
        """The metrics, written last: a run that has them is finished."""
        return self.path / SUMMARY

    @property
    def decision_rules(self) -> Path:
        """Calibrators and operating points, fitted on the predictions."""
        return self.path / DECISION_RULES

    @property
    def hashed(self) -> tuple[Path, Path]:
        """The files whose hashes the summary keeps."""
        return self.predictions, self.decision_rules

    @property
    def report(self) -> Path:
        """The metrics for people."""
        return self.path / "report.html"

    def finished(self) -> bool:
        """Whether the run is complete."""
        return self.summary.is_file()


def trainings(config: RunConfig, folder: RunFolder) -> list[tuple[RunConfig, Path]]:
    """The configuration of each seed, and the folder of its folds. The first seed's metrics are the run's."""
    seeds = range(config.seed, config.seed + config.repeats)
    return [
        (replace(config, seed=seed, repeats=1), folder.path if seed == config.seed else folder.path / f"seed-{seed}")
        for seed in seeds
    ]


def remove_checkpoints(config: RunConfig, fold: Path) -> None:
    """Remove the checkpoints of a fold from which nothing resumes, unless the user wants to keep them.

    Weights and predictions of a finished fold are elsewhere.
    """
    if not config.fault_tolerance.keep_checkpoints:
        shutil.rmtree(fold / "checkpoints", ignore_errors=True)


def locate_run(config: RunConfig, dataset: Dataset) -> RunFolder:
    """The folder of a configuration's run, whether it exists or not."""
    identity = identity_of(config, dataset)
    return RunFolder(config.runs / (config.name or _name(config, identity)), identity)


def open_run(folder: RunFolder, config: RunConfig, folds: pd.DataFrame) -> None:
    """Create the run's folder, or open the one that the same configuration created before.

    Raises ConfigError when the folder cannot be written or holds another run, with the fields that differ.
    """
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        if folder.record.is_file():
            refuse_other_run(folder, folds)
            if not folder.finished():
                refuse_other_environment(folder.record, config.fault_tolerance.accept_changes)
            _bring_segmenter(config, folder)
            return
        for _, place in trainings(config, folder):
            place.mkdir(exist_ok=True)
            write_table(place / folder.folds.name, folds)
        _bring_segmenter(config, folder)
        atomic.write_text(folder.path / "config.yaml", yaml.safe_dump(nested(config), sort_keys=False))
        write_run_record(folder.record, RunRecord(folder.identity, current_environment(), now()))
    except OSError as error:
        rule = f"the run's folder cannot be written ({error.strerror or error})"
        raise ConfigError.of("runs", config.runs, rule, "Name a folder that can be.") from error


def refuse_other_run(folder: RunFolder, folds: pd.DataFrame) -> None:
    """Raise ConfigError, with the fields that differ, if the folder holds a run of another configuration or folds."""
    if folder.record.is_file():
        refuse_another(folder.path, read_run_record(folder.record).identity, folder.identity)
        _refuse_other_folds(folder, folds)


def _bring_segmenter(config: RunConfig, folder: RunFolder) -> None:
    if config.region.needs_lesions and config.region.lesions is not None:
        bring_segmenter(Path(config.region.lesions), folder.path)


def identity_of(config: RunConfig, dataset: Dataset) -> Identity:
    """Everything the result of a run depends on: its configuration, data, lesions and weights."""
    identity: Identity = {**config.identity(), "data": dataset.fingerprint}
    if config.region.needs_lesions and config.region.lesions is not None:
        identity["lesions"] = read_lesions(Path(config.region.lesions), dataset).record.fingerprint
    if file := config.model.weights_file():
        try:
            identity["model.weights"] = f"sha256:{atomic.sha256(file.resolve())}"
        except OSError as error:
            rule = f"is neither imagenet, none nor a file that can be read ({error.strerror})"
            raise ConfigError.of("weights", config.model.weights, rule) from error
    return identity


def _name(config: RunConfig, identity: Identity) -> str:
    """Backbone, data and eight digits: the same command finds its run again."""
    data = Path(config.data.data or "data").name
    model = f"unet-{config.model.backbone}" if config.task == "segmentation" else config.model.backbone
    return "-".join(part.replace("/", "_") for part in (model, data, digest_of(identity)))


def digest_of(identity: Identity) -> str:
    """Eight digits of an identity, without fields that have their default: a new field renames no existing folder."""
    defaults = _defaults()
    chosen = {key: value for key, value in identity.items() if key not in defaults or value != defaults[key]}
    return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:8]


def _defaults() -> Identity:
    return RunConfig().identity() | SweepConfig().policy()


def refuse_another(path: Path, stored: Mapping[str, Scalar], identity: Mapping[str, Scalar]) -> None:
    """Raise ConfigError, with the fields that differ, unless a folder's identity is the expected one.

    A field that is younger than the folder has its default there.
    """
    stored = {key: value for key, value in _defaults().items() if key in identity} | dict(stored)
    different = [
        f"{key}: {stored.get(key)!r} there, {identity.get(key)!r} now"
        for key in sorted({*stored, *identity})
        if stored.get(key) != identity.get(key)
    ]
    if different:
        rule = f"{path} holds another run ({'; '.join(different)})"
        raise ConfigError.of("name", path.name, rule, "Choose another name.")


def _refuse_other_folds(folder: RunFolder, folds: pd.DataFrame) -> None:
    if not read_folds(folder.folds).equals(folds):
        raise ConfigError.of(
            "name", folder.path.name, f"the folds in {folder.folds} are not those made now of the same data and seed",
            "Another version of this program made them. Choose another name.",
        )  # fmt: skip


def refuse_other_environment(path: Path, accept: bool) -> None:
    """Compare the environment in a record with the current one, code and libraries.

    Raises ConfigError, field by field, where they differ; ``accept``: adds the current one to the record instead.
    """
    record, current = read_run_record(path), current_environment()
    different = [record.environment, *record.resumed_with][-1].differences(current)
    if not different:
        return
    if not accept:
        rule = f"{path.parent} was started with other code or libraries ({'; '.join(different)})"
        remedy = "Resume with those, or give --accept-changes: the result is then no longer that of one program."
        raise ConfigError.of("name", path.parent.name, rule, remedy)
    write_run_record(path, replace(record, resumed_with=(*record.resumed_with, current)))
