"""Starts a unit from the checkpoint of another one that trained alike so far: a child of a population, of its parent.

The rest of the child's training follows from this state and its own configuration. So it ends with the same bytes as
one that trains from its start, which is what happens where there is no such checkpoint.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from melanoma_dist.config.changes import parse_changes, write_changes
from melanoma_dist.config.run import RunConfig, Value, with_values
from melanoma_dist.storage import atomic
from melanoma_dist.train.checkpoint import Checkpoints
from melanoma_dist.train.fallbacks import copy_fallbacks
from melanoma_dist.train.unit import Unit


def inherit(unit: Unit, parent: RunConfig, folder: Path, epochs: int) -> bool:
    """Copy what the parent's fold in ``folder`` saved after ``epochs`` epochs into the folder of ``unit``.

    Nothing is copied if the unit has checkpoints already. Returns whether it has some now: not if the parent has no
    intact checkpoint of that epoch, or trained with another configuration until then.
    """
    own = unit.folder / "checkpoints"
    if atomic.committed_folders(own, "epoch-*"):
        return True
    if _identity_until(parent, epochs) != _identity_until(unit.config, epochs):
        return False
    parts = Checkpoints(folder / "checkpoints", warn=lambda text: None).after_epoch(epochs)
    if not parts:
        return False
    shutil.rmtree(own, ignore_errors=True)  # what a kill left
    unit.folder.mkdir(parents=True, exist_ok=True)
    copy_fallbacks(folder, unit.folder)

    def copy(aside: Path) -> None:
        for name, part in parts.items():
            shutil.copytree(part, aside / name)

    atomic.write_tree(own, copy)
    return True


def _identity_until(config: RunConfig, epochs: int) -> dict[str, Value]:
    """What the first ``epochs`` epochs depend on."""
    changes = (change for change in parse_changes(config.schedule.changes) if change.epoch <= epochs)
    return with_values(config, {"schedule.changes": write_changes(changes)}).identity()
