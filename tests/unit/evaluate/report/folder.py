"""The folder of a finished run as the training and the evaluations leave it, from synthetic predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import numpy as np
import pandas as pd
import yaml

from melanoma_dist.artifacts.decision_rules import read_decision_rules, write_decision_rules
from melanoma_dist.artifacts.epochs import write_epochs
from melanoma_dist.artifacts.evaluation import (
    EarlierEvaluation,
    EvaluatedData,
    EvaluationRecord,
    EvaluationResults,
    HoldoutCalibration,
)
from melanoma_dist.artifacts.predictions import arrays, predictions_table, write_predictions
from melanoma_dist.artifacts.records import write_record
from melanoma_dist.artifacts.run_record import Environment, Machine, RunRecord, write_run_record
from melanoma_dist.artifacts.summary import FoldTraining, RunSummary, TrainedData, read_summary, write_summary
from melanoma_dist.config.label_sets import LabelSet
from melanoma_dist.config.run import RunConfig, nested
from melanoma_dist.evaluate import summary as of_summary
from melanoma_dist.evaluate.assessment import assess
from melanoma_dist.evaluate.decision_rules import decision_curve, fit_decision_rules
from melanoma_dist.evaluate.finalize import _seed_repeats as repeats_of
from melanoma_dist.evaluate.holdout.metrics import _mask_assessment
from melanoma_dist.metrics.calibration import quality
from melanoma_dist.metrics.classification import Settings, compute_metrics
from melanoma_dist.metrics.intervals import Undefined
from melanoma_dist.metrics.operating_points import evaluate_points
from melanoma_dist.metrics.subgroups import subgroups

from ...samples import EPOCH

LABELS = ("MEL", "NV", "BKL")
RESAMPLES = 60  # of 2000: what is tested is that the page says what the summary does
ENVIRONMENT = Environment("0.1", "abc", "c0de", "3.12", {"torch": "2.9"}, Machine("Linux", 8))


def predictions(seed: int, images: int, labels: tuple[str, ...], folds: int | None, prefix: str) -> pd.DataFrame:
    """Half of the lesions have a second image; fold -1 where there are no folds."""
    rng = np.random.default_rng(seed)
    lesion = np.concatenate([np.arange(images * 2 // 3), rng.integers(images * 2 // 3, size=images - images * 2 // 3)])
    kinds = max(len(labels), 2)
    kind = rng.choice(kinds, images * 2 // 3, p=[0.25, *[0.75 / (kinds - 1)] * (kinds - 1)])
    truth = np.eye(kinds, dtype=np.float32)[kind[lesion], : len(labels)]
    truth[rng.random(truth.shape) < 0.02] = np.nan
    score = 2.2 * np.eye(kinds)[kind[lesion], : len(labels)] - 1 + rng.normal(0, 1.1, truth.shape)
    about = pd.DataFrame(
        {
            "image_id": [f"{prefix}_{number:07d}" for number in range(images)],
            "group": [f"{prefix}-lesion-{number}" for number in lesion],
        }
    )
    table = predictions_table(about, -1, labels, (1 / (1 + np.exp(-score))).astype(np.float32), truth)
    if folds is not None:
        table["fold"] = (lesion % folds).astype(np.int32)
    return table


def about(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of a manifest for the images of a table; lesions differ in sex, age and site."""
    rng = np.random.default_rng(3)
    names = table["group"].unique()
    of_lesion = pd.DataFrame(
        {
            "sex": rng.choice(["female", "male", None], len(names), p=[0.5, 0.45, 0.05]),
            "age": rng.integers(20, 85, len(names)).astype(float),
            "site": rng.choice(["head/neck", "palms/soles", None], len(names), p=[0.6, 0.3, 0.1]),
            "years": rng.choice(["2017", "2019"], len(names)),
        },
        index=names,
    )
    rows = of_lesion.loc[table["group"]].set_index(table["image_id"])
    return rows.assign(source_width=1024, source_height=768)


def write_run(
    folder: Path,
    labels: tuple[str, ...] = LABELS,
    folds: int = 3,
    images: int = 300,
    synthetic: bool = False,
    repeats: int = 1,
    table: pd.DataFrame | None = None,
) -> RunSummary:
    """Write a finished run; return its summary."""
    table = predictions(1, images, labels, folds, "ISIC") if table is None else table
    folder.mkdir(parents=True, exist_ok=True)
    write_predictions(table, folder / "predictions.parquet")
    config, rules = RunConfig(repeats=repeats), fit_decision_rules(table, labels)
    few = {name: partial(getattr(of_summary, name), resamples=RESAMPLES) for name in ("assess", "subgroups")}
    with mock.patch.multiple(of_summary, **few):
        metrics = of_summary.summarise(table, about(table), LabelSet(labels), 0.5, rules)
    summary = RunSummary(
        synthetic=synthetic, backbone="densenet201", seed=0, repeats=repeats,
        data=TrainedData("prepared", "f1" * 32, 64, len(table), table["group"].nunique(), 41, ("2017", "2019")),
        threshold=0.5, labels=labels, **metrics._asdict(),
        seed_repeats=_repeats(table, labels, config),
        training={fold: FoldTraining(4, 3, 61.5, "GPU", 61.5, 512.3, 0.031) for fold in range(folds)},
        incidents=("fold 1 skipped steps whose gradient was not finite: 2 in epoch 3.",),
        seconds_of_last_command=190.2, identity=config.identity(), environment=ENVIRONMENT,
        finished="2026-02-03T04:05:06+00:00", files={},
    )  # fmt: skip
    write_decision_rules(folder, rules)
    write_summary(folder, summary)
    (folder / "config.yaml").write_text(yaml.safe_dump(nested(config)))
    write_run_record(folder / "record.json", RunRecord(summary.identity, ENVIRONMENT, "2026-02-03"))
    for fold in range(folds):
        auc = metrics.folds[fold].labels["MEL"].auc
        _write_history(folder / f"fold-{fold}", fold, 0.5 if auc is None else auc)  # a training needs melanomas
    return summary


def _repeats(table: pd.DataFrame, labels: tuple[str, ...], config: RunConfig) -> Any:
    rng = np.random.default_rng(5)
    others = [table.assign(MEL=np.clip(table["MEL"] + rng.normal(0, 0.1, len(table)), 0, 1).astype(np.float32))
              for _ in range(config.repeats - 1)]  # fmt: skip
    return repeats_of([table, *others], labels, config)


def _write_history(fold: Path, number: int, auc: float) -> None:
    fold.mkdir()
    write_epochs(fold, [
        replace(EPOCH, epoch=epoch, train_loss=1 / epoch + 0.01 * number, score=auc, best_epoch=min(epoch, 3))
        for epoch in range(1, 5)
    ])  # fmt: skip


def write_evaluation(
    folder: Path,
    number: int = 1,
    name: str = "2017-test",
    earlier: int = 0,
    synthetic: bool = False,
    absent: Sequence[str] = (),
    images: int = 150,
    kind: Literal["holdout", "data"] = "holdout",
    prevalence: float = 0.05,
) -> EvaluationRecord:
    """Write a finished evaluation of a run; return its record. No image has a known truth of ``absent`` labels."""
    summary = read_summary(folder)
    labels, rules = summary.labels, read_decision_rules(folder)
    raw = predictions(10 + number, images, labels, None, f"TEST{name}")
    for label in absent:
        raw[f"{label}_true"] = np.nan
    table = rules.calibrate(raw, labels)
    thresholds, reasons = rules.thresholds(labels, 0.5), dict.fromkeys(absent, f"no image of {name} tells it")
    settings, group = Settings(thresholds, (prevalence,)), table["group"].to_numpy()
    ensemble = _mask_assessment(assess(table, labels, settings, RESAMPLES), reasons)
    points = {label: Undefined("absent") if label in absent
              else evaluate_points(rules.points(label), *arrays(table, labels), group, column, RESAMPLES)
              for column, label in enumerate(labels)}  # fmt: skip
    record = EvaluationRecord(
        number=number, name=name, kind=kind, synthetic=synthetic, started=f"2026-03-0{number}T00:00:00+00:00",
        data=EvaluatedData("prepared", "f1" * 32, len(table), 100), tta=1, images_sha256="ab" * 32,
        models=dict.fromkeys(summary.folds, "cd" * 32),
        earlier=tuple(EarlierEvaluation("another", at + 1, "2026-02-20T00:00:00", images) for at in range(earlier)),
        seen_before=images if earlier else 0, labels=labels, labels_absent=reasons,
        results=EvaluationResults(
            ensemble=ensemble,
            folds=dict.fromkeys(summary.folds, compute_metrics(*arrays(table, labels), labels, Settings(thresholds))),
            prevalence=prevalence, operating_points=points,
            calibration={label: HoldoutCalibration(quality(*_of(raw, label)), quality(*_of(table, label)))
                         for label in labels},
            decision_curve={label: decision_curve(*_of(table, label)) for label in labels},
            subgroups=() if "MEL" in absent else subgroups(table, about(table), "MEL", thresholds[0], RESAMPLES),
            files={}, finished=f"2026-03-0{number}T00:01:00+00:00", environment=ENVIRONMENT,
        ),
    )  # fmt: skip
    place = folder / "evaluations" / f"{number:03d}-{name}"
    place.mkdir(parents=True)
    write_predictions(table, place / "predictions.parquet")
    write_record(place / "evaluation.json", record)
    return record


def _of(table: pd.DataFrame, label: str) -> tuple[Any, Any]:
    return table[f"{label}_true"].to_numpy(), table[label].to_numpy()
