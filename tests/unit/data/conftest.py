"""Small challenge folders in the official layouts, with real JPEG files."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from melanoma_dist.data.manifest import MANIFEST, Dataset, fingerprint, hash_tables
from melanoma_dist.data.prepare import Request, prepare


def write_image(path: Path, seed: int = 0, size: tuple[int, int] = (48, 36), **options: object) -> Path:
    """A smooth photograph-like picture of its own for each seed."""
    grid = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(grid).resize(size, Image.Resampling.BICUBIC).save(path, **options)
    return path


def write_mask(path: Path, size: tuple[int, int] = (48, 36)) -> Path:
    """A lesion in the middle, 0 and 255."""
    mask = np.zeros((size[1], size[0]), np.uint8)
    mask[size[1] // 4 : -size[1] // 4, size[0] // 4 : -size[0] // 4] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)
    return path


def write_table(path: Path, *rows: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n")
    return path


class Raw:
    """A folder of challenge data that grows image by image."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tables: dict[Path, list[str]] = {}

    def row(self, path: str, header: str, line: str) -> None:
        rows = self.tables.setdefault(self.folder / path, [header])
        rows.append(line)
        write_table(self.folder / path, *rows)

    def image_2017(self, number: int, label: str = "NV", part: str = "Training", **options: object) -> str:
        name = f"ISIC_{number:07d}"
        line = f"{name},{float(label == 'MEL')},{float(label == 'BKL')}"
        self.row(f"2017/ISIC-2017_{part}_Part3_GroundTruth.csv", "image_id,melanoma,seborrheic_keratosis", line)
        return self._image(f"2017/ISIC-2017_{part}_Data/{name}.jpg", number, options)

    def image_2018(
        self, number: int, label: str = "NV", part: str = "Training", lesion: str = "", **options: object
    ) -> str:
        name, table = f"ISIC_{number:07d}", f"ISIC2018_Task3_{part}_GroundTruth"
        classes = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")
        if part == "Training":
            header = "image,lesion_id,diagnosis_confirm_type"
            self.row(
                "2018/ISIC2018_Task3_Training_LesionGroupings.csv",
                header,
                f"{name},{lesion or f'HAM_{number:07d}'},histopathology",
            )
        self.row(f"2018/{table}/{table}.csv", ",".join(("image", *classes)), self._hot(name, label, classes))
        return self._image(f"2018/ISIC2018_Task3_{part}_Input/{name}.jpg", number, options)

    def image_2019(
        self,
        number: int,
        label: str = "NV",
        part: str = "Training",
        suffix: str = "",
        lesion: str = "",
        **options: object,
    ) -> str:
        name = f"ISIC_{number:07d}{suffix}"
        classes = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK")
        header = ",".join(("image", *classes))
        self.row(f"2019/ISIC_2019_{part}_GroundTruth.csv", header, self._hot(name, label, classes))
        if part == "Training":
            header = "image,age_approx,anatom_site_general,lesion_id,sex"
            self.row("2019/ISIC_2019_Training_Metadata.csv", header, f"{name},55,head/neck,{lesion},female")
        return self._image(f"2019/ISIC_2019_{part}_Input/{name}.jpg", number, options)

    def _hot(self, name: str, label: str, classes: Iterable[str]) -> str:
        return ",".join((name, *(str(float(label == each)) for each in classes)))

    def _image(self, path: str, number: int, options: dict[str, object]) -> str:
        write_image(self.folder / path, **{"seed": number, **options})  # type: ignore[arg-type]
        return f"ISIC_{number:07d}"


@pytest.fixture
def raw(tmp_path: Path) -> Raw:
    folder = tmp_path / "raw"
    folder.mkdir()
    return Raw(folder)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "prepared"


def small(raw: Raw, out: Path) -> Dataset:
    """Three training images, one with a mask, and a test image."""
    for number in (3, 1, 2):
        raw.image_2017(number, "MEL" if number == 1 else "NV")
    raw.image_2017(4, "BKL", "Test_v2")
    write_mask(raw.folder / "2017/ISIC-2017_Training_Part1_GroundTruth/ISIC_0000002_segmentation.png")
    return prepare(Request(raw.folder, ("2017",), size=24), out)


def rewrite(folder: Path, name: str, table: pd.DataFrame) -> None:
    """Put another table into a data set, with the matching hashes in ``dataset.json``."""
    table.to_parquet(folder / name, index=False)
    description = json.loads((folder / "dataset.json").read_text())
    if name == MANIFEST:
        description["fingerprint"] = fingerprint(table, description["size"])
    description["tables"] = hash_tables(folder)
    (folder / "dataset.json").write_text(json.dumps(description))
