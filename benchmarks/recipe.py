"""Does a recipe beat a plain script and frozen features? All on the same folds, from the same weights.

    python benchmarks/recipe.py --data DATA --weights tf_efficientnet_lite0.safetensors
    python benchmarks/recipe.py ... --recipes plain default mine.yaml --seeds 0 1 2 --holdout 2017-validation

Recipes: `default` (the program without flags of its own), a configuration file, `plain` (a short timm script, see
`recipe_plain.py`) and `frozen` (a logistic regression on the backbone's features, see `recipe_frozen.py`). Each trains
k folds; each seed makes other folds. Prints the out-of-fold AUC of each recipe and its difference to the first one,
with the paired bootstrap interval over lesions, averaged over the seeds. `--holdout` also prints the AUC of each
ensemble on a holdout: each time is one look at it.

A recipe that was trained before is read from `--runs`. On 2 CPU cores, ISIC 2017 at 160 pixels and 6 epochs takes
about ten minutes per recipe and seed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import tyro
from conditions import commit, launch, machine, run_benchmark
from recipe_frozen import frozen_features
from recipe_plain import plain_script
from recipe_task import Floats, Rows, Task

from melanoma_dist import console
from melanoma_dist.artifacts.predictions import arrays, predictions_table, read_predictions, write_predictions
from melanoma_dist.config.label_sets import label_set
from melanoma_dist.data.folds import make_folds
from melanoma_dist.data.labels import targets
from melanoma_dist.data.manifest import load_dataset
from melanoma_dist.inference.images import holdouts
from melanoma_dist.metrics.bootstrap import Bootstrap, bootstrap, difference
from melanoma_dist.metrics.classification import Settings as MetricSettings

Script = Callable[[Task], Floats]
_SCRIPTS: dict[str, Script] = {"plain": plain_script, "frozen": frozen_features}
_UNSEEN = -1  # fold of the images of holdouts


@dataclass(frozen=True)
class Settings:
    """What to compare, and on what."""

    data: Path
    """Prepared data set."""
    weights: Path
    """ImageNet weights of the backbone."""
    recipes: tuple[str, ...] = ("plain", "frozen", "default")
    """plain, frozen, default or configuration files. The others are compared with the first."""
    backbone: str = "tf_efficientnet_lite0"
    """Backbone that the weights are of."""
    labels: str = "isic2017"
    """Label set."""
    image_size: int = 160
    """Side of the input in pixels."""
    epochs: int = 6
    """Epochs of every recipe."""
    folds: int = 3
    """Folds."""
    seeds: tuple[int, ...] = (0, 1)
    """Seeds of folds and trainings."""
    holdout: str | None = None
    """Holdout to look at, such as 2017-validation. Default: none."""
    gpus: int = 0
    """GPUs; 0 for the CPU."""
    runs: Path = Path("runs/recipes")
    """Folder of runs and predictions."""


def main() -> None:
    """Train what is not trained yet, then print the comparison."""
    settings = tyro.cli(Settings, description=__doc__)
    console.info(f"{machine()}; commit {commit()}; {settings}")
    results = {recipe: [_result(recipe, settings, seed) for seed in settings.seeds] for recipe in settings.recipes}
    labels, seeds = label_set(settings.labels), ", ".join(map(str, settings.seeds))
    _print(f"AUC out of fold, mean of seeds {seeds}", results, labels)
    if settings.holdout:
        holdout = {recipe: [_holdout(recipe, settings, seed) for seed in settings.seeds] for recipe in settings.recipes}
        _print(f"AUC of the ensemble on {settings.holdout}, mean of seeds {seeds}", holdout, labels)


def _result(recipe: str, settings: Settings, seed: int) -> pd.DataFrame:
    """The out-of-fold predictions of a recipe, trained if there are none yet."""
    if recipe in _SCRIPTS:
        table = _scripted(recipe, settings, seed)
        return table[table["fold"] != _UNSEEN]
    flags = {
        "data": settings.data, "labels": settings.labels, "folds": settings.folds, "backbone": settings.backbone,
        "weights": settings.weights, "image-size": settings.image_size, "epochs": settings.epochs, "seed": seed,
        "gpus": settings.gpus, "runs": settings.runs, "name": _name(recipe, settings, seed),
    }  # fmt: skip
    config = () if recipe == "default" else (f"--config={recipe}",)
    launch(*config, *(f"--{flag}={value}" for flag, value in flags.items()))
    return read_predictions(settings.runs / _name(recipe, settings, seed) / "predictions.parquet")


def _holdout(recipe: str, settings: Settings, seed: int) -> pd.DataFrame:
    """The predictions of a recipe's ensemble on the holdout."""
    if recipe in _SCRIPTS:
        table = _scripted(recipe, settings, seed)
        manifest = load_dataset(settings.data).manifest
        images = manifest.loc[manifest["split"] == settings.holdout, "image_id"]
        return table[table["image_id"].isin(images)]
    run = settings.runs / _name(recipe, settings, seed)
    looks = f"evaluations/*-{settings.holdout}/predictions.parquet"
    if not list(run.glob(looks)):
        launch("evaluate", str(run), f"--holdout={settings.holdout}", f"--gpus={min(settings.gpus, 1)}")
    return read_predictions(next(run.glob(looks)))


def _name(recipe: str, settings: Settings, seed: int) -> str:
    parts = (settings.backbone, settings.labels, settings.image_size, settings.epochs, settings.folds, seed)
    return "-".join([Path(recipe).stem, *map(str, parts)])


def _scripted(recipe: str, settings: Settings, seed: int) -> pd.DataFrame:
    """The predictions of a recipe that is not the program's: out of fold, and of its ensemble for all holdouts."""
    path = settings.runs / f"{_name(recipe, settings, seed)}.parquet"
    if not path.exists():
        settings.runs.mkdir(parents=True, exist_ok=True)
        write_predictions(_over_folds(_SCRIPTS[recipe], settings, seed), path)
    return read_predictions(path)


def _over_folds(script: Script, settings: Settings, seed: int) -> pd.DataFrame:
    """Train on the folds that the program makes of the same data and seed."""
    dataset, labels = load_dataset(settings.data), label_set(settings.labels)
    manifest = dataset.manifest
    folds = make_folds(manifest, labels, settings.folds, seed).set_index("image_id")["fold"]
    fold_of = manifest["image_id"].map(folds)
    unseen = np.flatnonzero(manifest["split"].isin(list(holdouts(manifest))))
    tables, ensemble = [], np.zeros((len(unseen), len(labels)), dtype=np.float32)

    def table(rows: Rows, fold: int, probability: Floats) -> pd.DataFrame:
        images = manifest.iloc[rows]
        return predictions_table(images, fold, labels, probability, targets(images, labels))

    for fold in console.progress(range(settings.folds), settings.folds, f"{script.__name__}, seed {seed}"):
        own, others = np.flatnonzero(fold_of == fold), np.flatnonzero(fold_of.notna() & (fold_of != fold))
        probability = script(
            Task(
                dataset, labels, settings.backbone, settings.weights, settings.image_size, settings.epochs, seed,
                "cuda" if settings.gpus else "cpu", others, np.concatenate([own, unseen]),
            )
        )  # fmt: skip
        tables.append(table(own, fold, probability[: len(own)]))
        ensemble += probability[len(own) :] / settings.folds
    return pd.concat([*tables, table(unseen, _UNSEEN, ensemble)], ignore_index=True)


def _print(title: str, results: dict[str, list[pd.DataFrame]], labels: tuple[str, ...]) -> None:
    """One row per recipe and label: the AUC, and the difference to the first recipe with its interval."""
    boots = {recipe: [_bootstrap(table, labels) for table in tables] for recipe, tables in results.items()}
    first = next(iter(boots))
    rows = []
    for label in (*labels, "macro"):
        for recipe, each in boots.items():
            auc = np.mean([boot.estimate[boot.columns.index((label, "auc"))] for boot in each])
            rows.append(
                [label, recipe, f"{auc:.4f}", "" if recipe == first else _difference(each, boots[first], label)]
            )
    console.table(title, ["label", "recipe", "AUC", f"minus {first} (95 %)"], rows)


def _bootstrap(table: pd.DataFrame, labels: tuple[str, ...]) -> Bootstrap:
    table = table.sort_values("image_id")
    return bootstrap(*arrays(table, labels), table["group"].to_numpy(), labels, MetricSettings())


def _difference(each: list[Bootstrap], first: list[Bootstrap], label: str) -> str:
    """The mean over seeds of the paired difference. The images are the same for all seeds, so are the resamples."""
    pairs = [difference(own, other) for own, other in zip(each, first, strict=True)]
    at = pairs[0].columns.index((label, "auc"))
    samples = np.mean([pair.samples[at] for pair in pairs], axis=0)
    low, high = np.nanpercentile(samples, [2.5, 97.5])
    return f"{np.mean([pair.estimate[at] for pair in pairs]):+.4f} ({low:+.4f} to {high:+.4f})"


if __name__ == "__main__":
    run_benchmark(main)
