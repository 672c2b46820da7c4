"""Changes to run folders that a comparison must notice."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from melanoma_dist.artifacts.summary import read_summary
from melanoma_dist.data.labels import LABEL_SETS

from .run_folders import rewrite, summarize_again


def change(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def set_identity(run: Path, labels: str = "isic2017", data: str = "f" * 64, seed: int = 0) -> None:
    """Give a run another configuration, in all its files."""
    identity = {"seed": seed, "data.folds": 3, "data.labels": labels, "model.backbone": run.name, "data": data}
    trained = replace(read_summary(run).data, fingerprint=data)
    summarize_again(run, identity=identity, seed=seed, data=trained, labels=LABEL_SETS[labels])


def other_folds(run: Path) -> None:
    """Exchange the folds of two lesions."""

    def exchange(table: pd.DataFrame) -> None:
        first, last = table["group"] == "lesion-0000", table["group"] == "lesion-0059"
        table.loc[first, "fold"], table.loc[last, "fold"] = 2, 0

    for name in ("folds.parquet", "predictions.parquet"):
        rewrite(run / name, exchange)
    set_identity(run, seed=1)


def swap(run: Path) -> None:
    """Exchange the probabilities of two labels."""
    rewrite(run / "predictions.parquet", lambda table: table.assign(MEL=table["BKL"], BKL=table["MEL"]))
