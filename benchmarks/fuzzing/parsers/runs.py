"""Readers of runs and of the input files of a run."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from fuzzing.files import BACKBONE, RUN
from fuzzing.parsers import Parser
from melanoma_dist.config.model import ModelConfig
from melanoma_dist.config.saved import as_flags, read_yaml, saved_config
from melanoma_dist.data.demo import open_dataset
from melanoma_dist.data.folds import read_folds
from melanoma_dist.data.labels import LABEL_SETS
from melanoma_dist.evaluate.comparison.cost import cost, differences
from melanoma_dist.evaluate.comparison.holdout import read_holdout_runs
from melanoma_dist.evaluate.comparison.runs import read_out_of_fold_runs
from melanoma_dist.evaluate.holdout.access_history import read_history
from melanoma_dist.evaluate.report.card import write_card
from melanoma_dist.evaluate.report.page import write_report
from melanoma_dist.evaluate.report.run_results import read_run_results
from melanoma_dist.inference.images import select_holdout
from melanoma_dist.models.backbones import build_trunk

FINAL_FILES = ("predictions.parquet", "decision_rules.json")
"""The files whose hashes a summary holds."""
_EVALUATION = "evaluations/001-holdout"


def _config(place: Path) -> None:
    list(as_flags(read_yaml(place / RUN / "config.yaml")))
    saved_config(place / RUN / "config.yaml").identity()


def _weights(place: Path) -> None:
    for suffix in ("safetensors", "pt"):
        build_trunk(ModelConfig(BACKBONE, str(place / "files" / f"weights.{suffix}")), 32)


def rehash(folder: Path, index: str, names: tuple[str, ...]) -> None:
    """Fix the hashes in the file ``index``, as an attacker who edits the others can."""
    path = folder / index
    try:
        content = json.loads(path.read_bytes())
        content["files"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
        path.write_text(json.dumps(content))
    except (ValueError, TypeError, RecursionError):
        pass  # without an object there are no hashes


def _compared(place: Path) -> None:
    for name in ("first", "second"):
        rehash(place / "runs" / name, "summary.json", FINAL_FILES)
    runs = [place / "runs" / "first", place / "runs" / "second"]
    compared = read_out_of_fold_runs(runs)
    [cost(run) for run in compared], differences(compared)


def _compared_evaluation(place: Path) -> None:
    runs = [place / "runs" / "first", place / "runs" / "second"]
    rehash(runs[0] / _EVALUATION, "evaluation.json", ("predictions.parquet", "folds.parquet"))
    differences(read_holdout_runs(runs, "holdout"))


def _earlier_evaluations(place: Path) -> None:
    chosen = select_holdout(open_dataset(str(place / "data")), "holdout", LABEL_SETS["isic2017"])
    read_history(place / "runs" / "second", chosen.images)


def _report(place: Path) -> None:
    results = read_run_results(place / RUN)
    write_report(results)
    write_card(results)


def inside(folder: str, *names: str) -> tuple[str, ...]:
    """Return the paths of files in a folder."""
    return tuple(f"{folder}/{name}" for name in names)


PARSERS: dict[str, Parser] = {
    "configuration": Parser(_config, ("runs",), inside(RUN, "config.yaml")),
    "folds": Parser(lambda place: read_folds(place / RUN / "folds.parquet"), ("runs",), inside(RUN, "folds.parquet")),
    "weights": Parser(_weights, ("files",), ("files/weights.safetensors", "files/weights.pt")),
    "compared-run": Parser(
        _compared, ("runs",),
        inside(RUN, "record.json", "summary.json", "folds.parquet", "predictions.parquet", "model/fold-0.safetensors"),
    ),
    "compared-evaluation": Parser(
        _compared_evaluation, ("runs",), inside(f"{RUN}/{_EVALUATION}", "evaluation.json", "predictions.parquet")
    ),
    "earlier-evaluations": Parser(
        _earlier_evaluations, ("runs", "data"), inside(f"{RUN}/{_EVALUATION}", "evaluation.json", "images.parquet")
    ),
    "report": Parser(
        _report, ("runs",),
        inside(RUN, "summary.json", "record.json", "config.yaml", "fold-0/metrics.jsonl", "gallery/gallery.json",
               f"{_EVALUATION}/evaluation.json"),
    ),
}  # fmt: skip
"""Parsers by name. Space files are code, not data, and are not among them."""
