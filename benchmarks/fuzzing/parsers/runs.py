"""Readers of runs and of the files that a run is given."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from fuzzing.files import BACKBONE, RUN
from fuzzing.parsers import Parser
from melanoma_dist.config.saved import as_flags, read_yaml, saved_config
from melanoma_dist.data.demo import open_dataset
from melanoma_dist.data.folds import read_folds
from melanoma_dist.data.labels import LABEL_SETS
from melanoma_dist.evaluate.comparison.cost import cost, differing
from melanoma_dist.evaluate.comparison.holdout import holdout_contenders
from melanoma_dist.evaluate.comparison.runs import out_of_fold_contenders
from melanoma_dist.evaluate.holdout.access_history import look_back
from melanoma_dist.evaluate.report.card import write_card
from melanoma_dist.evaluate.report.page import write_report
from melanoma_dist.inference.images import choose_holdout
from melanoma_dist.models.backbones import build_trunk

CONCLUDED = ("predictions.parquet", "decision_rules.json")
"""The files whose hashes a summary tells."""
_LOOK = "evaluations/001-holdout"


def _config(place: Path) -> None:
    list(as_flags(read_yaml(place / RUN / "config.yaml")))
    saved_config(place / RUN / "config.yaml").identity()


def _weights(place: Path) -> None:
    for suffix in ("safetensors", "pt"):
        build_trunk(BACKBONE, str(place / "files" / f"weights.{suffix}"), 32)


def rehash(folder: Path, teller: str, names: tuple[str, ...]) -> None:
    """Make the hashes that a file tells right, as whoever edits the others can."""
    path = folder / teller
    try:
        told = json.loads(path.read_bytes())
        told["files"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
        path.write_text(json.dumps(told))
    except (ValueError, TypeError, RecursionError):
        pass  # what is no object has no hashes


def _compared(place: Path) -> None:
    for name in ("first", "second"):
        rehash(place / "runs" / name, "summary.json", CONCLUDED)
    runs = [place / "runs" / "first", place / "runs" / "second"]
    contenders = out_of_fold_contenders(runs)
    [cost(each) for each in contenders], differing(contenders)


def _compared_unseen(place: Path) -> None:
    runs = [place / "runs" / "first", place / "runs" / "second"]
    rehash(runs[0] / _LOOK, "evaluation.json", ("predictions.parquet", "folds.parquet"))
    differing(holdout_contenders(runs, "holdout"))


def _looks(place: Path) -> None:
    chosen = choose_holdout(open_dataset(str(place / "data")), "holdout", LABEL_SETS["isic2017"])
    look_back(place / "runs" / "second", chosen.images)


def _report(place: Path) -> None:
    write_report(place / RUN)
    write_card(place / RUN)


def inside(folder: str, *names: str) -> tuple[str, ...]:
    """The names in a folder."""
    return tuple(f"{folder}/{name}" for name in names)


PARSERS: dict[str, Parser] = {
    "configuration": Parser(_config, ("runs",), inside(RUN, "config.yaml")),
    "folds": Parser(lambda place: read_folds(place / RUN / "folds.parquet"), ("runs",), inside(RUN, "folds.parquet")),
    "weights": Parser(_weights, ("files",), ("files/weights.safetensors", "files/weights.pt")),
    "compared-run": Parser(
        _compared, ("runs",),
        inside(RUN, "record.json", "summary.json", "folds.parquet", "predictions.parquet", "model/fold-0.safetensors"),
    ),
    "compared-look": Parser(
        _compared_unseen, ("runs",), inside(f"{RUN}/{_LOOK}", "evaluation.json", "predictions.parquet")
    ),
    "earlier-looks": Parser(
        _looks, ("runs", "data"), inside(f"{RUN}/{_LOOK}", "evaluation.json", "images.parquet")
    ),
    "report": Parser(
        _report, ("runs",),
        inside(RUN, "summary.json", "record.json", "config.yaml", "fold-0/metrics.jsonl", "gallery/gallery.json",
               f"{_LOOK}/evaluation.json"),
    ),
}  # fmt: skip
"""By name. Space files are no data but code, and are not among them."""
