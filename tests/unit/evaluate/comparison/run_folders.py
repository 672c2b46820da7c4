"""Write run folders as a finished training and an evaluation leave them, and build compared runs in memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from safetensors.torch import save_file

from melanoma_dist.artifacts.assessment import AssessedMetrics, Assessment, BootstrapSettings
from melanoma_dist.artifacts.evaluation import (
    EvaluatedData,
    EvaluationRecord,
    EvaluationResults,
    HoldoutCalibration,
)
from melanoma_dist.artifacts.evaluation import write_evaluation as write_evaluation_record
from melanoma_dist.artifacts.integrity import hashes_of
from melanoma_dist.artifacts.predictions import arrays
from melanoma_dist.artifacts.run_folder import RunFolder
from melanoma_dist.artifacts.run_record import Environment, Machine, RunRecord, read_run_record, write_run_record
from melanoma_dist.artifacts.summary import (
    Calibration,
    FoldTraining,
    RunSummary,
    TrainedData,
    read_summary,
    write_summary,
)
from melanoma_dist.data.labels import LABEL_SETS
from melanoma_dist.evaluate.comparison.runs import ComparedRun
from melanoma_dist.metrics.calibration import quality
from melanoma_dist.metrics.classification import METRICS, Metrics, PerMetric, Settings, compute_metrics
from melanoma_dist.metrics.cross_validation import FoldSpread
from melanoma_dist.metrics.intervals import MetricInterval, Undefined

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


ENVIRONMENT = Environment("0.1.0", None, "c" * 64, "3.12", {"torch": "2.9"}, Machine("Linux", 2))
UNUSED = Undefined("A comparison does not read it.")


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
    summary = replace(run_summary(name, labels, predictions), **changed)
    write_run_record(folder / "record.json", RunRecord(summary.identity, ENVIRONMENT, f"2026-01-01 {name}"))
    (folder / "decision_rules.json").write_text("{}")
    _write_summary(folder, summary)
    return folder


def summarize_again(run: Path, **changed: Any) -> None:
    """Compute summary and record again from the tables; ``changed`` replaces fields of the summary."""
    summary = replace(read_summary(run), **changed)
    table = pd.read_parquet(run / "predictions.parquet")
    again = run_summary(summary.backbone, summary.labels, table)
    names = ("out_of_fold", "folds", "over_folds", "calibration", "operating_points", "decision_curve")
    record = replace(read_run_record(run / "record.json"), identity=summary.identity)
    write_run_record(run / "record.json", record)
    _write_summary(run, replace(summary, **{name: getattr(again, name) for name in names}))


def _write_summary(run: Path, summary: RunSummary) -> None:
    """Write a summary with the hashes of the files beside it."""
    write_summary(run, replace(summary, files=hashes_of(*RunFolder(run, {}).hashed)))


def _metrics(predictions: pd.DataFrame, labels: tuple[str, ...]) -> Metrics:
    return compute_metrics(*arrays(predictions, labels), labels, Settings())


def _assessment(predictions: pd.DataFrame, labels: tuple[str, ...], threshold: float = 0.5) -> Assessment:
    """An assessment without intervals, which a comparison computes itself."""
    metrics, absent = _metrics(predictions, labels), MetricInterval(None, None, None, 0)
    assessed = AssessedMetrics(
        **vars(metrics),
        intervals=dict.fromkeys([*labels, "macro", "micro"], PerMetric(**dict.fromkeys(METRICS, absent))),
        isic_score_intervals=dict.fromkeys(metrics.isic_scores, absent),
        delong=dict.fromkeys(labels, UNUSED),
    )
    rows, lesions = len(predictions), predictions["group"].nunique()
    settings = BootstrapSettings(0, 0, 0.95)
    return Assessment(rows, lesions, 0, assessed, assessed, settings, dict.fromkeys(labels, threshold))


def _predictions(table: pd.DataFrame, probability: Floats, labels: tuple[str, ...]) -> pd.DataFrame:
    predictions = table[["image_id", "group", "fold"]].copy()
    for at, label in enumerate(labels):
        predictions[label] = probability[:, at].astype(np.float32)
    for label in labels:
        predictions[f"{label}_true"] = table[f"{label}_true"].astype(np.float32)
    return predictions


def run_summary(name: str, labels: tuple[str, ...], table: pd.DataFrame) -> RunSummary:
    """The summary of a run with these predictions."""
    spread = PerMetric(**dict.fromkeys(METRICS, FoldSpread(None, None, None, None, 0)))
    folds = {int(str(fold)): _metrics(rows, labels) for fold, rows in table.groupby("fold")}
    known = {known: name for name, known in LABEL_SETS.items()}[labels]
    return RunSummary(
        synthetic=False, backbone=name, seed=0, repeats=1, threshold=0.5, labels=labels,
        data=TrainedData("data", "f" * 64, 512, len(table), table["group"].nunique(), 0, ("2017",)),
        out_of_fold=_assessment(table, labels), folds=folds, over_folds=dict.fromkeys([*labels, "macro"], spread),
        calibration=Calibration("logistic", dict.fromkeys(labels, UNUSED)),
        operating_points=dict.fromkeys(labels, UNUSED), decision_curve=dict.fromkeys(labels), subgroups=(),
        seed_repeats=None, training=dict.fromkeys(folds, FoldTraining(4, 3, 100.0, "GPU", 1200.0, 250.0, 0.05)),
        incidents=(), seconds_of_last_command=1.0, environment=ENVIRONMENT, finished="2026-01-01T00:00:00+00:00",
        identity={"seed": 0, "data.folds": FOLDS, "data.labels": known, "model.backbone": name, "data": "f" * 64},
        files={},
    )  # fmt: skip


def write_evaluation(
    run: Path, number: int, name: str, table: pd.DataFrame, probability: Floats,
    labels: tuple[str, ...] = LABELS, finished: bool = True, **changed: Any,
) -> Path:  # fmt: skip
    """Write an evaluation of a run; ``changed`` replaces fields of its record."""
    folder = run / "evaluations" / f"{number:03d}-{name}"
    folder.mkdir(parents=True)
    predictions = _predictions(table.assign(fold=np.int32(-1)), probability, labels)
    predictions.to_parquet(folder / "predictions.parquet")
    calibrated = quality(*(values[:, 0] for values in arrays(predictions, labels[:1])))
    results = EvaluationResults(
        ensemble=_assessment(predictions, labels, 0.4), folds={0: _metrics(predictions, labels)}, prevalence=None,
        operating_points=dict.fromkeys(labels, UNUSED), decision_curve=dict.fromkeys(labels),
        calibration=dict.fromkeys(labels, HoldoutCalibration(calibrated, calibrated)), subgroups=(),
        files=hashes_of(folder / "predictions.parquet"), finished="2026-01-02", environment=ENVIRONMENT,
    )  # fmt: skip
    record = EvaluationRecord(
        number=number, name=name, kind="holdout", synthetic=False, started="2026-01-02", tta=1,
        data=EvaluatedData("data", "f" * 64, len(table), table["group"].nunique()), images_sha256="a" * 64,
        models={0: "e" * 64}, earlier=(), seen_before=0, labels=labels, labels_absent={},
        results=results if finished else None,
    )  # fmt: skip
    write_evaluation_record(folder, replace(record, **changed))
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
    return ComparedRun(Path(name), name, run_summary(name, labels, predictions), predictions, (0.5,) * len(labels))
