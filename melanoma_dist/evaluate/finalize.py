"""The end of a run: its folds' predictions become one table, what is frozen, the figures, the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from melanoma_dist.artifacts.epochs import read_epochs
from melanoma_dist.artifacts.predictions import arrays, read_predictions, write_predictions
from melanoma_dist.artifacts.run_folder import RunFolder, hashes_of, made_with, now, trainings, write_json
from melanoma_dist.config.run import RunConfig
from melanoma_dist.data.labels import LABEL_SETS, targets
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.errors import ConfigError
from melanoma_dist.evaluate.decision_rules import fit_decision_rules
from melanoma_dist.evaluate.incidents import incidents
from melanoma_dist.evaluate.report.card import write_card
from melanoma_dist.evaluate.report.error_gallery import write_error_gallery
from melanoma_dist.evaluate.report.page import write_report
from melanoma_dist.evaluate.report.tensorboard import write_run_events
from melanoma_dist.evaluate.summary import check_truth, out_of_fold, summarise
from melanoma_dist.inference.ensemble import Ensemble
from melanoma_dist.metrics.classification import Settings, figures
from melanoma_dist.metrics.cross_validation import over_folds, variance_components
from melanoma_dist.world import World


def finalize(
    config: RunConfig, dataset: Dataset, folds: pd.DataFrame, folder: RunFolder, seconds: float
) -> dict[str, Any]:
    """Compute the figures of a run whose folds are finished, from their predictions, and write them.

    ``seconds`` is what the command took. Raises DataError unless each image was predicted once, by the right fold.
    """
    labels = LABEL_SETS[config.data.labels]
    about = dataset.manifest.set_index("image_id")
    tables = [_collect(place, config, folds, about) for _, place in trainings(config, folder)]
    table = tables[0]
    frozen = fit_decision_rules(table, labels)
    summary = {
        "schema": 2,
        "synthetic": dataset.synthetic,
        "backbone": config.model.backbone,
        "seed": config.seed,
        "repeats": config.repeats,
        "data": _data(dataset, folds),
        **summarise(table, about, labels, config.threshold, frozen),
        "repeats_of": _repeats(tables, labels, config),
        "training": _training(folder.path, config.data.folds),
        "incidents": incidents(config, folder),
        "seconds_of_last_command": round(seconds, 1),
        "identity": folder.identity,
        "made_with": made_with(),
        "finished": now(),
    }
    write_json(folder.decision_rules, frozen.to_dict())
    summary["files"] = hashes_of(*folder.concluded)
    ensemble = Ensemble(folder.path, config, dataset.fingerprint, frozen, dataset.size, World())
    write_error_gallery(folder.path, ensemble, dataset, table, config.threshold)
    write_report(folder.path, summary)
    write_card(folder.path, summary)
    write_run_events(summary, table, config, folder.path)
    write_json(folder.summary, summary)
    return summary


def _collect(place: Path, config: RunConfig, folds: pd.DataFrame, about: pd.DataFrame) -> pd.DataFrame:
    """The predictions of one training's folds as one table, proven and written."""
    labels = LABEL_SETS[config.data.labels]
    parts = [read_predictions(place / f"fold-{fold}" / "predictions.parquet") for fold in range(config.data.folds)]
    table = out_of_fold(parts, folds)
    check_truth(table, targets(about.loc[table["image_id"]], labels), labels)
    write_predictions(table, place / "predictions.parquet")
    return table


def _data(dataset: Dataset, folds: pd.DataFrame) -> dict[str, Any]:
    years = sorted({year for text in dataset.manifest["years"].unique() for year in text.split("+")})
    return {
        "folder": dataset.folder.name,
        "fingerprint": dataset.fingerprint,
        "size": dataset.size,
        "images": len(folds),
        "lesions": int(folds["group"].nunique()),
        "kept_out": len(dataset.manifest) - len(folds),
        "years": years,
    }


def _repeats(tables: list[pd.DataFrame], labels: tuple[str, ...], config: RunConfig) -> dict[str, Any] | None:
    """What the folds gave with every seed: AUCs [folds][seeds] of each label, and where their variance comes from."""
    if len(tables) < 2:
        return None
    settings = Settings()
    found = [
        {fold: figures(*arrays(rows, labels), labels, settings)["labels"] for fold, rows in table.groupby("fold")}
        for table in tables
    ]
    auc = {label: [[seed[fold][label]["auc"] for seed in found] for fold in found[0]] for label in labels}
    return {
        "seeds": [config.seed + repeat for repeat in range(config.repeats)],
        "auc": auc,
        "components": {label: _components(values) for label, values in auc.items()},
        "over_folds": {label: _over_all(values) for label, values in auc.items()},
    }


def _components(values: list[list[float | None]]) -> dict[str, Any]:
    known = _all_known(values)
    if known is None:
        return {"not_defined": "some folds have no AUC"}
    try:
        found = variance_components(known)
    except ConfigError as error:
        return {"not_defined": str(error)}
    parts = {"mean": found.mean, "folds": found.folds, "seeds": found.seeds, "remainder": found.remainder}
    return {**parts, "within_fold": found.within_fold}


def _over_all(values: list[list[float | None]]) -> dict[str, Any]:
    known = _all_known(values)
    if known is None:
        return {"not_defined": "some folds have no AUC"}
    found = over_folds([value for row in known for value in row], repeats=len(known[0]))
    return {"mean": found.mean, "sd": found.sd, "low": found.low, "high": found.high}


def _all_known(values: list[list[float | None]]) -> list[list[float]] | None:
    known = [[value for value in row if value is not None] for row in values]
    return known if [len(row) for row in known] == [len(row) for row in values] else None


def _training(place: Path, folds: int) -> dict[str, Any]:
    """Epochs, best epoch, time, cost and speed of each fold, from its ``metrics.jsonl``."""
    told = {}
    for fold in range(folds):
        epochs = read_epochs(place / f"fold-{fold}")
        told[str(fold)] = {
            "epochs": len(epochs),
            "best_epoch": epochs[-1].best_epoch,
            "seconds": round(sum(epoch.seconds for epoch in epochs), 1),
            "device": epochs[-1].device,
            "device_seconds": round(sum(epoch.seconds * epoch.devices for epoch in epochs), 1),
            "images_per_s": round(sum(epoch.images_per_s for epoch in epochs) / len(epochs), 1),
            "input_wait_share": round(sum(epoch.wait_share for epoch in epochs) / len(epochs), 4),
        }
    return told
