"""Names of the samples, and copies of them."""

from __future__ import annotations

import shutil
from pathlib import Path

TABLE = "ISIC_2019_Training_GroundTruth.csv"
METADATA = "ISIC_2019_Training_Metadata.csv"
BACKBONE = "test_resnet"
RUN = "runs/first"
HUB = "hub"


def copy_samples(samples: Path, place: Path, folders: tuple[str, ...]) -> None:
    """Copy the sample folders that a parser reads into ``place``."""
    for name in folders:
        shutil.copytree(samples / name, place / name)
