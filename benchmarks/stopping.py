"""By which criterion should a fold choose its best epoch? Measured on images that took no part in the choice.

    python benchmarks/stopping.py --data DATA --weights tf_efficientnet_lite0.safetensors --schedule plateau

Trains folds to their end, in this process and on the CPU, and keeps the predictions of every epoch. Then it halves the
validation lesions of each fold at random, many times: each criterion chooses an epoch on one half, and the melanoma AUC
of that epoch is taken on the other half. Prints the mean over halves and folds, and the difference to today's criterion
with the standard deviation of the folds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tyro
from conditions import commit, machine, run_benchmark
from sklearn.metrics import roc_auc_score

from melanoma_dist import console
from melanoma_dist.artifacts.run_folder import RunFolder, locate_run, open_run
from melanoma_dist.config.label_sets import LabelSet, label_set
from melanoma_dist.config.model import ModelConfig
from melanoma_dist.config.run import DataConfig, InputConfig, RunConfig, Schedule, ScheduleConfig
from melanoma_dist.data.demo import open_dataset
from melanoma_dist.data.folds import make_folds
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.train.classification import ClassificationTask
from melanoma_dist.train.device import configure_device
from melanoma_dist.train.events import EpochDone, Event
from melanoma_dist.train.loop import train_unit
from melanoma_dist.train.predict import Predictions
from melanoma_dist.train.unit import Unit
from melanoma_dist.train.validation import Validation
from melanoma_dist.world import World

Floats = npt.NDArray[np.float32]
Curve = npt.NDArray[np.float64]
_HALVES = 50
_TODAY = "melanoma AUC"


@dataclass(frozen=True)
class Settings:
    """What to train."""

    data: str
    """Prepared data set."""
    weights: str
    """ImageNet weights of the backbone."""
    backbone: str = "tf_efficientnet_lite0"
    """Backbone that the weights are of."""
    labels: str = "isic2017"
    """Label set."""
    image_size: int = 64
    """Side of the input in pixels."""
    epochs: int = 30
    """Epochs of every fold."""
    schedule: Schedule = "plateau"
    """Schedule of the learning rate."""
    folds: int = 3
    """Folds."""
    seed: int = 0
    """Seed of folds and trainings."""
    threads: int = 1
    """CPU cores."""
    runs: Path = Path("runs/stopping")
    """Folder of the run and of the predictions."""


@dataclass(frozen=True)
class FoldCurve:
    """The predictions of one fold's validation images in every epoch."""

    probability: Floats
    """[epochs, n, L]"""
    truth: Floats
    """[n, L] 1, 0 or NaN."""
    groups: npt.NDArray[np.str_]
    """[n] lesions."""


def main() -> None:
    """Train what is not trained yet, then print the table."""
    settings = tyro.cli(Settings, description=__doc__)
    console.info(f"{machine()}; commit {commit()}; {settings}")
    labels = label_set(settings.labels)
    curves = [_curve(settings, fold) for fold in range(settings.folds)]
    results = {
        name: np.array([_held_out(curve, labels, choose) for curve in curves]) for name, choose in _CRITERIA.items()
    }
    rows = [[name, f"{auc.mean():.4f}", _difference(auc - results[_TODAY])] for name, auc in results.items()]
    console.table("Melanoma AUC on the other half", ["chosen by", "AUC", f"minus {_TODAY}"], rows)


def _difference(folds: Curve) -> str:
    return f"{folds.mean():+.4f} (sd {folds.std(ddof=1):.4f})"


def _curve(settings: Settings, fold: int) -> FoldCurve:
    dataset, config = open_dataset(settings.data), _config(settings)
    folder = locate_run(config, dataset)
    path = folder.path / f"curve-{fold}.npz"
    if not path.is_file():
        _train(config, dataset, folder, fold, path)
    with np.load(path) as arrays:
        return FoldCurve(arrays["probability"], arrays["truth"], arrays["groups"])


def _config(settings: Settings) -> RunConfig:
    return RunConfig(
        runs=settings.runs,
        seed=settings.seed,
        data=DataConfig(data=settings.data, labels=settings.labels, folds=settings.folds),
        input=InputConfig(image_size=settings.image_size),
        model=ModelConfig(backbone=settings.backbone, weights=settings.weights),
        schedule=ScheduleConfig(epochs=settings.epochs, schedule=settings.schedule, patience=settings.epochs),
    )


def _train(config: RunConfig, dataset: Dataset, folder: RunFolder, fold: int, path: Path) -> None:
    folds = make_folds(dataset.manifest, config.data.label_set(), config.data.folds, config.seed)
    open_run(folder, config, folds)
    results: list[Predictions] = []
    validate = ClassificationTask.validate
    tasks: list[ClassificationTask] = []

    def keep(task: ClassificationTask, predictions: Predictions) -> Validation:
        results.append(predictions)
        tasks[:] = [task]
        return validate(task, predictions)

    configure_device(None, threads=1)
    ClassificationTask.validate = keep  # type: ignore[method-assign, assignment]
    try:
        unit = Unit(config, fold, str(dataset.folder), dataset.fingerprint, folder.path)
        train_unit(unit, World(threads=1), _report)
    finally:
        ClassificationTask.validate = validate  # type: ignore[method-assign]
    validation = tasks[0]._data.validation
    groups = dataset.manifest["group"].to_numpy(dtype=np.str_)[validation.rows]
    np.savez(path, probability=np.stack(results), truth=validation.targets, groups=groups)


def _report(event: Event) -> None:
    if isinstance(event, EpochDone):
        console.info(f"fold {event.fold}, epoch {event.epoch}: AUC {event.score:.4f}")


def _held_out(curve: FoldCurve, labels: LabelSet, choose: Callable[[Curve, Curve, Curve], int]) -> float:
    """The melanoma AUC of the chosen epoch on images that took no part in the choice, the mean of many halves."""
    rng, lesions = np.random.default_rng(0), np.unique(curve.groups)
    results = []
    for _ in range(_HALVES):
        half = np.isin(curve.groups, rng.permutation(lesions)[: len(lesions) // 2])
        first, second = _judge(curve, labels, half), _judge(curve, labels, ~half)
        results += [second[0][choose(*first)], first[0][choose(*second)]]
    return float(np.mean(results))


def _judge(curve: FoldCurve, labels: LabelSet, rows: npt.NDArray[np.bool_]) -> tuple[Curve, Curve, Curve]:
    """Melanoma AUC, macro AUC and mean log loss of every epoch, each [epochs], on some rows."""
    auc = np.empty((len(curve.probability), len(labels)))
    for column in range(len(labels)):
        known = rows & ~np.isnan(curve.truth[:, column])
        for epoch, probability in enumerate(curve.probability[:, known, column]):
            auc[epoch, column] = roc_auc_score(curve.truth[known, column], probability)
    right = np.where(curve.truth == 1, curve.probability, 1 - curve.probability)[:, rows]
    loss = -np.log(right.clip(1e-7))[:, ~np.isnan(curve.truth[rows])]
    return auc[:, labels.headline_column], auc.mean(axis=1), loss.mean(axis=1).astype(np.float64)


def _smooth(values: Curve) -> Curve:
    """The mean of each epoch and the two before it."""
    return np.array([values[max(0, at - 2) : at + 1].mean() for at in range(len(values))])


_CRITERIA: dict[str, Callable[[Curve, Curve, Curve], int]] = {
    _TODAY: lambda auc, macro, loss: int(np.argmax(auc)),
    "melanoma AUC, mean of three epochs": lambda auc, macro, loss: int(np.argmax(_smooth(auc))),
    "macro AUC": lambda auc, macro, loss: int(np.argmax(macro)),
    "mean of melanoma and macro AUC": lambda auc, macro, loss: int(np.argmax(auc + macro)),
    "the same, mean of three epochs": lambda auc, macro, loss: int(np.argmax(_smooth(auc + macro))),
    "validation loss": lambda auc, macro, loss: int(np.argmin(loss)),
    "the last epoch": lambda auc, macro, loss: len(auc) - 1,
}


if __name__ == "__main__":
    run_benchmark(main)
