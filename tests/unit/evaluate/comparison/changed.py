"""Changes to runs written by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from melanoma_dist.data.labels import LABEL_SETS

from .made import replay, rewrite


def change(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def tell(run: Path, labels: str = "isic2017", data: str = "f" * 64, seed: int = 0) -> None:
    """A run that is whole, with another configuration."""
    told = {"seed": seed, "data.folds": 3, "data.labels": labels, "model.backbone": run.name, "data": data}
    replay(run, identity=told, seed=seed, data={"fingerprint": data}, labels=list(LABEL_SETS[labels]))


def other_folds(run: Path) -> None:
    """Two lesions change places."""

    def exchange(table: pd.DataFrame) -> None:
        first, last = table["group"] == "lesion-0000", table["group"] == "lesion-0059"
        table.loc[first, "fold"], table.loc[last, "fold"] = 2, 0

    for name in ("folds.parquet", "predictions.parquet"):
        rewrite(run / name, exchange)
    tell(run, seed=1)


def swap(run: Path) -> None:
    """The probabilities of two labels change places."""
    rewrite(run / "predictions.parquet", lambda table: table.assign(MEL=table["BKL"], BKL=table["MEL"]))
