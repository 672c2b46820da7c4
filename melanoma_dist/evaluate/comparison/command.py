"""``compare`` as a story: read the runs, refuse what cannot be compared, compare, say and write what came of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from melanoma_dist import console
from melanoma_dist.artifacts.run_folder import made_with, now, write_json
from melanoma_dist.config.evaluate import CompareConfig
from melanoma_dist.data.folds import HEADLINE
from melanoma_dist.data.manifest import SYNTHETIC
from melanoma_dist.errors import ConfigError
from melanoma_dist.evaluate.comparison.conclusions import limits, verdict
from melanoma_dist.evaluate.comparison.cost import cost, differing
from melanoma_dist.evaluate.comparison.holdout import holdout_contenders
from melanoma_dist.evaluate.comparison.page import write_page
from melanoma_dist.evaluate.comparison.paired import pair_up
from melanoma_dist.evaluate.comparison.runs import ComparedRun, out_of_fold_contenders
from melanoma_dist.evaluate.comparison.tables import cost_table, metrics_table, pairs_table

_LONGEST = 150  # characters of a folder's name; file systems take 255 bytes


def compare(settings: CompareConfig) -> None:
    """Compare finished runs, show the outcome, and leave it as ``comparison.json`` and ``comparison.html``."""
    if settings.holdout is None:
        contenders = out_of_fold_contenders(settings.runs)
    else:
        contenders = holdout_contenders(settings.runs, settings.holdout)
    out = settings.out or default_folder(settings.runs, settings.holdout)
    _make(out)
    comparison = describe(contenders, settings.holdout)
    try:
        write_json(out / "comparison.json", comparison)
        write_page(comparison, out / "comparison.html")
    except OSError as error:
        raise _unwritable(out, error) from error
    _show(comparison, out)


def default_folder(runs: Sequence[Path], holdout: str | None) -> Path:
    """Beside the runs, named after them: the same comparison finds its folder again."""
    folders = [run.resolve() for run in runs]
    name = "-".join(["compare", *(folder.name for folder in folders), *(["on", holdout] if holdout else [])])
    if len(name) > _LONGEST:
        name = f"compare-{len(folders)}-runs-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return Path(os.path.commonpath([folder.parent for folder in folders])) / name


def describe(
    contenders: Sequence[ComparedRun], holdout: str | None = None, resamples: int | None = None
) -> dict[str, Any]:
    """The whole comparison as plain values: runs, pairs, what differs, the sentences and their limits."""
    found = pair_up(contenders, resamples)
    first = contenders[0]
    comparison = {
        "schema": 1,
        "synthetic": any(
            told.get("synthetic") for each in contenders for told in (each.summary, each.evaluation or {})
        ),
        "holdout": holdout,
        "headline": f"AUC of {HEADLINE}",
        "labels": list(first.labels),
        "images": len(first.table),
        "lesions": int(first.table["group"].nunique()),
        "positives": {label: int((first.table[f"{label}_true"] == 1).sum()) for label in first.labels},
        "data": (first.evaluation or first.summary).get("data"),
        **found,
        "runs": [
            told | _about(each) | {"cost": cost(each)} for told, each in zip(found["runs"], contenders, strict=True)
        ],
        "differences": differing(contenders),
    }
    sentences = {"verdict": verdict(comparison), "limits": limits(comparison)}
    return {**comparison, **sentences, "made_with": made_with(), "finished": now()}


def _about(contender: ComparedRun) -> dict[str, Any]:
    summary, evaluation = contender.summary, contender.evaluation or {}
    return {
        "folder": contender.folder.resolve().name,
        "backbone": summary["backbone"],
        "seed": summary["seed"],
        "repeats": summary.get("repeats"),
        "data": summary["data"].get("fingerprint"),
        "trained": summary.get("finished"),
        "thresholds": dict(zip(contender.labels, contender.thresholds, strict=True)),
        "evaluation": {key: evaluation.get(key) for key in ("number", "finished", "tta")} if evaluation else None,
        "earlier": evaluation.get("earlier") or [],
    }


def _make(out: Path) -> None:
    """Make the folder before minutes of work. Raises ConfigError where it cannot be, or is a run's own."""
    if (out / "record.json").exists():
        raise ConfigError.of("out", out, "is the folder of a run or a sweep", "Name another.")
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not os.access(out, os.W_OK):
            raise PermissionError("Permission denied")
    except OSError as error:
        raise _unwritable(out, error) from error


def _unwritable(out: Path, error: OSError) -> ConfigError:
    return ConfigError.of("out", out, f"cannot be written ({error.strerror or error})", "Name a folder that can be.")


def _show(comparison: dict[str, Any], out: Path) -> None:
    mark = f" — {SYNTHETIC}" if comparison["synthetic"] else ""
    where = comparison["holdout"] or "out of fold"
    title = f"{HEADLINE}, {where}: {comparison['images']} images of {comparison['lesions']} lesions{mark}"
    pairs = pairs_table(comparison)
    for table in (
        metrics_table(comparison, title),
        pairs._replace(caption=pairs.caption + mark),
        cost_table(comparison)._replace(caption="Cost"),
    ):
        console.table(*table)
    if comparison["synthetic"]:
        console.info(SYNTHETIC)
    for line in comparison["verdict"]:
        console.info(line)
    console.info("What this does not say:")
    for line in comparison["limits"]:
        console.info(f"- {line}")
    console.info(f"page: {out / 'comparison.html'}  figures: {out / 'comparison.json'}")
