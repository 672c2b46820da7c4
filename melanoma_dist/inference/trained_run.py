"""A finished run: its configuration, metrics, decision rules and data."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from melanoma_dist import console
from melanoma_dist.artifacts.decision_rules import DecisionRules, read_decision_rules
from melanoma_dist.artifacts.integrity import check_untouched
from melanoma_dist.artifacts.predictions import read_predictions
from melanoma_dist.artifacts.run_folder import RunFolder
from melanoma_dist.artifacts.run_record import RECORD, read_run_record
from melanoma_dist.artifacts.summary import REFINALIZE, RunSummary, read_summary
from melanoma_dist.config.label_sets import LabelSet
from melanoma_dist.config.places import NO_DATA, SUMMARY
from melanoma_dist.config.run import RunConfig
from melanoma_dist.config.saved import saved_config
from melanoma_dist.config.weights import GEOMETRY, is_keras
from melanoma_dist.data.demo import open_dataset
from melanoma_dist.data.folds import read_folds
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.errors import ConfigError, DataError, UserError
from melanoma_dist.inference.images import Images

if TYPE_CHECKING:
    from melanoma_dist.inference.ensemble import Ensemble

_OUTSIDE = ("data", "lesions", "model.weights")  # of an identity: hashes, which are not in a configuration


@dataclass(frozen=True)
class TrainedRun:
    """A finished run."""

    folder: RunFolder
    config: RunConfig
    summary: RunSummary
    decision_rules: DecisionRules

    def __repr__(self) -> str:
        return f"TrainedRun({str(self.folder.path)!r})"

    @property
    def synthetic(self) -> bool:
        """Whether it was trained on images that the program drew."""
        return self.summary.synthetic

    @property
    def image_size(self) -> int:
        """Pixels to which its data set reduced the shorter side of images."""
        return self.summary.data.size

    def predictions(self) -> pd.DataFrame:
        """The out-of-fold predictions: ``image_id, group, fold``, and columns for each label.

        ``<label>`` is the raw probability, ``<label>_true`` the truth, ``<label>_calibrated`` the calibrated
        probability. Its calibrator was fitted on the other folds.
        """
        return read_predictions(self.folder.predictions)

    def ensemble(self, gpus: int | None = 0, threads: int | None = None) -> Ensemble:
        """Its models together, ready to predict images; see `Ensemble.load`."""
        from melanoma_dist.inference.ensemble import Ensemble, one_process  # PyTorch takes seconds to import

        return Ensemble.of(self, one_process(gpus, threads))

    @property
    def labels(self) -> LabelSet:
        """What its models answer, and the label that leads."""
        return self.config.data.label_set()

    @property
    def fingerprint(self) -> str:
        """Of the data set that it was trained on."""
        return str(self.folder.identity["data"])

    @property
    def lesions(self) -> str | None:
        """Fingerprint of the side table of lesions; None for a run that sees whole images."""
        lesions = self.folder.identity.get("lesions")
        return None if lesions is None else str(lesions)

    def require_sight(self) -> None:
        """Raise ConfigError for a run that sees lesions and holds no segmenter to find them in photographs."""
        if self.lesions is not None:
            from melanoma_dist.inference.lesion_finder import require_segmenter  # PyTorch takes seconds to import

            require_segmenter(self.folder.path, self.config.region)

    def dataset(self, moved_to: str | None) -> Dataset:
        """The data set that it was trained on. Raises DataError for one that cannot be read or is another now."""
        return dataset_of(self.folder, self.config, moved_to)

    def trained(self, dataset: Dataset) -> Images:
        """The images that its folds were trained on, all of them. Raises DataError where ``dataset`` lacks one."""
        return trained_images(self.folder, dataset)


def dataset_of(folder: RunFolder, config: RunConfig, moved_to: str | None) -> Dataset:
    """The data set that a run was trained on, or what has ``moved_to`` another place; see `TrainedRun.dataset`."""
    fingerprint = str(folder.identity["data"])
    try:
        dataset = open_dataset(moved_to or config.data.data or "")
    except UserError as error:
        reason = str(error).removesuffix(NO_DATA).rstrip()
        remedy = "Name another --dataset." if moved_to else "If it was moved, --dataset says where it is."
        raise DataError(f"The data set that {folder.path} was trained on cannot be read: {reason} {remedy}") from error
    if dataset.fingerprint != fingerprint:
        raise DataError(
            f"{dataset.folder}: has fingerprint {dataset.fingerprint[:12]}, but {folder.path} was trained on "
            f"{fingerprint[:12]}. Give the data set that it was trained on with --dataset: it shows which images the "
            "run has seen."
        )
    return dataset


def trained_images(folder: RunFolder, dataset: Dataset) -> Images:
    """The images in the folds of a run; see `TrainedRun.trained`."""
    folds = read_folds(folder.folds)
    ids = folds["image_id"].tolist() if "image_id" in folds else []
    known = dataset.manifest["image_id"].isin(ids).to_numpy()
    if int(known.sum()) != len(ids) or not len(ids):
        raise DataError(f"{folder.folds}: names images that the run's data set does not have: it was changed.")
    return Images.of(dataset, known)


def open_trained_run(path: Path) -> TrainedRun:
    """Read a run. Raises ConfigError or DataError unless it is one, whole and finished."""
    record = path / RECORD
    if path.is_file():
        raise ConfigError(f"{path}: is a file. Name the folder of a run, such as the one that it lies in.")
    if not record.is_file():
        raise ConfigError(
            f"{path}: is not the folder of a run. Runs are folders in `runs`, or where a training had its --runs."
        )
    folder = RunFolder(path, read_run_record(record).identity)
    refuse_unfinished(folder)
    if "data" not in folder.identity:
        raise DataError(f"{record}: does not say which data the run was trained on: it is corrupt. Bring it back.")
    config = saved_config(path / "config.yaml")
    _refuse_another_geometry(folder, config)
    _refuse_another_config(folder, config)
    summary, rules = read_summary(path), read_decision_rules(path)
    check_untouched(folder.summary, summary.files, folder.hashed, REFINALIZE)
    return TrainedRun(folder, config, summary, rules)


def refuse_unfinished(folder: RunFolder, command: str = "") -> None:
    """Raise ConfigError for a run without metrics. ``command``: `segment`, for the run of a segmenter.

    The remedy names the folder: its configuration has another place and name if it was copied or renamed.
    """
    if not folder.finished():
        path = folder.path.resolve()
        place = shlex.join(["--config", str(path / "config.yaml"), "--runs", str(path.parent), "--name", path.name])
        raise ConfigError(
            f"{folder.path}: is not finished: it has no {SUMMARY}. Finish it: "
            f"{' '.join(filter(None, (console.program(), command, place)))}. This trains what is not trained yet."
        )


def other_orientations(fixed: int) -> str:
    """What follows where other orientations of an image are averaged than the ``fixed`` number of the run."""
    return (
        f"Calibration and operating points were fixed for {fixed} orientation{'s' * (fixed > 1)}: with another number, "
        "probabilities are less well calibrated, and the sensitivity of an operating point may differ."
    )


def _refuse_another_geometry(folder: RunFolder, config: RunConfig) -> None:
    if is_keras(config.model.backbone) and GEOMETRY not in folder.identity:
        name = config.model.backbone
        raise DataError(
            f"{folder.path}: was trained when {name} meant a model of timm. Now it means Keras's architecture, which "
            "computes another function. Open the run with the version that trained it, or train again: the model of "
            "timm is --backbone resnetv2_152."
        )


def _refuse_another_config(folder: RunFolder, config: RunConfig) -> None:
    now = config.identity()
    changed = [
        f"{key} ({value!r} in record.json, {now.get(key)!r} in config.yaml)"
        for key, value in folder.identity.items()
        if key not in _OUTSIDE and now.get(key) != value
    ]
    if changed:
        raise DataError(
            f"{folder.path}: config.yaml is not what the run was made with: {', '.join(changed)}. "
            "Bring the file back; the models cannot be rebuilt from another one."
        )
