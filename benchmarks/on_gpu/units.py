"""One fold of a small training, as the command would give it to a rank, in a folder of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from melanoma_dist.config.run import RunConfig, with_values
from melanoma_dist.data.folds import make_folds
from melanoma_dist.data.labels import LABEL_SETS
from melanoma_dist.data.manifest import write_table
from melanoma_dist.train.unit import Unit
from on_gpu.learning import dataset
from on_gpu.settings import Settings

_LABELS = "melanoma"  # which any data set has


def unit_in(run: Path, settings: Settings, **values: Any) -> Unit:
    """Fold 0 in the folder ``run``, which is created. ``values`` by dotted field, ``__`` for the dot."""
    prepared = dataset(settings)
    fields = {name.replace("__", "."): value for name, value in values.items()}
    config = with_values(RunConfig(), {"data.labels": _LABELS, "model.weights": "none", "optimizer.lr": 1e-3, **fields})
    run.mkdir(parents=True)
    folds = make_folds(prepared.manifest, LABEL_SETS[_LABELS], config.data.folds, config.seed)
    write_table(run / "folds.parquet", folds)
    return Unit(config, 0, str(prepared.folder), prepared.fingerprint, run)
