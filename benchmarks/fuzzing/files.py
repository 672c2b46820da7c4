"""The samples by their names, and copies of them."""

from __future__ import annotations

import shutil
from pathlib import Path

TABLE = "ISIC_2019_Training_GroundTruth.csv"
METADATA = "ISIC_2019_Training_Metadata.csv"
BACKBONE = "test_resnet"
RUN = "runs/first"


def copy_samples(made: Path, place: Path, folders: tuple[str, ...]) -> None:
    """The sample folders that a parser reads, in a place of its own."""
    for name in folders:
        shutil.copytree(made / name, place / name)
