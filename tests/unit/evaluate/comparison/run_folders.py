"""Write run folders as a finished training and an evaluation leave them, and build compared runs in memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from safetensors.torch import save_file

from melanoma_dist.artifacts.integrity import hashes_of
from melanoma_dist.artifacts.legacy import former_metrics
from melanoma_dist.artifacts.predictions import arrays
from melanoma_dist.artifacts.run_folder import RunFolder
from melanoma_dist.data.labels import LABEL_SETS
from melanoma_dist.evaluate.comparison.runs import ComparedRun
from melanoma_dist.metrics.classification import Settings, compute_metrics

LABELS = ("MEL", "BKL")
FOLDS = 3
Floats = npt.NDArray[np.floating[Any]]


def images(lesions: int = 120, seed: int = 0) -> pd.DataFrame:
    """Lesions of one or two images in folds, with truth: a third MEL, a third BKL; a few answers are unknown."""
    rng = np.random.default_rng(seed)
    lesion = np.sort(np.concatenate([np.arange(lesions), rng.choice(lesions, lesions // 3, replace=False)]))
    table = pd.DataFrame({
        "image_id": [f"ISIC_{number:07d}" for number in range(len(lesion))],
        "group": [f"lesion-{number:04d}" for number in lesion],
        "fold": (lesion // 3 % FOLDS).astype(np.int32),
    })  # fmt: skip
    for at, label in enumerate(LABELS):
        table[f"{label}_true"] = (lesion % 3 == at).astype(np.float32)
    table.loc[::17, "BKL_true"] = np.nan
    return table


def scores(table: pd.DataFrame, strength: float, seed: int) -> Floats:
    """Probabilities [n, L] that follow the truth with ``strength``; all seeds share half of their noise."""
    shared, own = (np.random.default_rng(number).normal(size=(len(table), len(LABELS))) for number in (99, seed))
    truth = np.nan_to_num(table[[f"{label}_true" for label in LABELS]].to_numpy())
    return np.asarray(1 / (1 + np.exp(-(strength * (2 * truth - 1) + shared + own) / 2)), dtype=np.float32)


def write_run(
    runs: Path, name: str, table: pd.DataFrame, probability: Floats, labels: tuple[str, ...] = LABELS, **changed: Any
) -> Path:
    """Write a finished run; ``changed`` replaces fields of its summary."""
    folder = runs / name
    (folder / "model").mkdir(parents=True)
    table[["image_id", "group", "fold"]].to_parquet(folder / "folds.parquet", index=False)
    predictions = _predictions(table, probability, labels)
    predictions.to_parquet(folder / "predictions.parquet", index=False)
    weights = {"a.weight": torch.full((3, 5), float(probability.sum())), "bn.running_mean": torch.zeros(7)}
    save_file(weights, folder / "model/fold-0.safetensors")
    summary = {**_summary(name, labels, predictions), **changed}
    record = {"identity": summary["identity"], "begun": f"2026-01-01 {name}"}
    (folder / "record.json").write_text(json.dumps(record))
    (folder / "decision_rules.json").write_text("{}")
    _write_summary(folder, summary)
    return folder


def summarize_again(run: Path, **changed: Any) -> None:
    """Compute summary and record again from the tables; ``changed`` replaces fields of the summary."""
    summary = {**json.loads((run / "summary.json").read_text()), **changed}
    table, labels = pd.read_parquet(run / "predictions.parquet"), tuple(summary["labels"])
    summary["out_of_fold"] = {"by_image": _figures(table, labels)}
    summary["folds"] = {str(fold): _figures(rows, labels) for fold, rows in table.groupby("fold")}
    record = json.loads((run / "record.json").read_text()) | {"identity": summary["identity"]}
    (run / "record.json").write_text(json.dumps(record))
    _write_summary(run, summary)


def _write_summary(run: Path, summary: dict[str, Any]) -> None:
    """Write a summary with the hashes of the files beside it."""
    files = hashes_of(*RunFolder(run, {}).hashed)
    (run / "summary.json").write_text(json.dumps({**summary, "files": files}))


def _figures(predictions: pd.DataFrame, labels: tuple[str, ...]) -> dict[str, Any]:
    return former_metrics(compute_metrics(*arrays(predictions, labels), labels, Settings()))


def _predictions(table: pd.DataFrame, probability: Floats, labels: tuple[str, ...]) -> pd.DataFrame:
    predictions = table[["image_id", "group", "fold"]].copy()
    for at, label in enumerate(labels):
        predictions[label] = probability[:, at].astype(np.float32)
    for label in labels:
        predictions[f"{label}_true"] = table[f"{label}_true"].astype(np.float32)
    return predictions


def _summary(name: str, labels: tuple[str, ...], table: pd.DataFrame) -> dict[str, Any]:
    training = {
        "epochs": 4, "best_epoch": 3, "seconds": 100.0, "device_seconds": 1200.0, "device": "GPU",
        "images_per_s": 250.0, "input_wait_share": 0.05,
    }  # fmt: skip
    return {
        "schema": 2, "synthetic": False, "backbone": name, "seed": 0, "repeats": 1,
        "data": {"folder": "data", "fingerprint": "f" * 64, "images": len(table)},
        "labels": list(labels), "headline": "AUC of MEL", "threshold": 0.5,
        "out_of_fold": {"by_image": _figures(table, labels)},
        "folds": {str(fold): _figures(rows, labels) for fold, rows in table.groupby("fold")},
        "training": {str(fold): training for fold in range(FOLDS)},
        "identity": {
            "seed": 0, "data.folds": FOLDS, "data.labels": {known: name for name, known in LABEL_SETS.items()}[labels],
            "model.backbone": name, "data": "f" * 64,
        },
        "made_with": {"version": "0.1.0", "code": "c" * 64, "libraries": {"torch": "2.9"}, "machine": {"cores": 2}},
        "finished": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip


def write_evaluation(
    run: Path, number: int, what: str, table: pd.DataFrame, probability: Floats,
    labels: tuple[str, ...] = LABELS, **changed: Any,
) -> Path:  # fmt: skip
    """Write an evaluation of a run, finished unless ``changed`` has ``finished=None``."""
    folder = run / "evaluations" / f"{number:03d}-{what}"
    folder.mkdir(parents=True)
    predictions = _predictions(table.assign(fold=np.int32(-1)), probability, labels)
    predictions.to_parquet(folder / "predictions.parquet")
    record = {
        "schema": 1, "number": number, "what": what, "kind": "holdout", "synthetic": False, "begun": "2026-01-02",
        "finished": "2026-01-02", "tta": 1, "images_sha256": "a" * 64, "earlier": [], "labels": list(labels),
        "data": {"folder": "data", "fingerprint": "f" * 64}, "labels_absent": {},
        "files": hashes_of(folder / "predictions.parquet"),
        "ensemble": {
            "by_image": _figures(predictions, labels), "settings": {"thresholds": dict.fromkeys(labels, 0.4)},
        },
    }  # fmt: skip
    (folder / "evaluation.json").write_text(json.dumps({**record, **changed}))
    return folder


def rewrite(path: Path, change: Any) -> None:
    """Change a table on disk."""
    table = pd.read_parquet(path)
    changed = change(table)
    (table if changed is None else changed).to_parquet(path, index=False)


def compared_run(name: str, table: pd.DataFrame, probability: Floats, labels: tuple[str, ...] = LABELS) -> ComparedRun:
    predictions = table.copy()
    for at, label in enumerate(labels):
        predictions[label] = probability[:, at]
    summary: dict[str, Any] = {
        "synthetic": False, "backbone": name, "seed": 0, "repeats": 1, "labels": list(labels), "training": {},
        "data": {}, "identity": {},
    }  # fmt: skip
    return ComparedRun(Path(name), name, summary, predictions, (0.5,) * len(labels))
