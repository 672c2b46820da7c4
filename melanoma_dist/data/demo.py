"""Data for trying the program: synthetic photographs of skin lesions, made on first use and kept in the cache.

They come in the official layout of 2019 and go through the real preparation. What they show is drawn by
`melanoma_dist.data.lesion`; no figure computed from them says anything about melanoma.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from melanoma_dist import console
from melanoma_dist.data.labels import DIAGNOSES
from melanoma_dist.data.lesion import draw_lesion, photograph
from melanoma_dist.data.manifest import DESCRIPTION, Dataset, load_dataset
from melanoma_dist.data.node_copies import cache_folder, local_copy
from melanoma_dist.data.prepare import Request, prepare
from melanoma_dist.errors import DataError

_NAME = "demo-v3"  # a change of the pictures, or of the format, needs a new name: caches keep the old ones
_SEED = 2019
_YEAR = "2019"
_LESIONS = {"MEL": 84, "NV": 176, "BCC": 38, "AK": 20, "BKL": 38, "DF": 14, "VASC": 14, "SCC": 16}
_LESIONS_BY_VIEWS = {1: 268, 2: 84, 3: 34, 4: 14}
"""How many of the 400 lesions were photographed once, twice, ...: 594 images."""
_SITES = ("anterior torso", "posterior torso", "lower extremity", "upper extremity", "head/neck", "palms/soles")


def open_dataset(name: str) -> Dataset:
    """The data set of a ``--data``: a prepared folder, the URL of one, or "demo".

    Raises DataError as `load_dataset` does, and for a URL as `local_copy` does.
    """
    return load_dataset(demo_dataset() if name == "demo" else local_copy(name))


def demo_dataset(cache: Path | None = None) -> Path:
    """The folder of the prepared demo data set: about 600 images of 400 lesions, made here if it is not there yet.

    It lies under ``cache``, by default `cache_folder`. Processes may ask at the same time.
    Raises DataError when that place cannot be written.
    """
    cache = cache or cache_folder()
    home = cache / _NAME
    prepared = home / "prepared"
    if (prepared / DESCRIPTION).is_file():
        return prepared
    console.info(f"generating the demo data in {home} (once, some seconds)")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{_NAME}-", dir=cache))
    except OSError as error:
        raise DataError(
            f"{cache}: cannot keep the demo data here ({error.strerror}). "
            "Set MELANOMA_DIST_CACHE to a folder that can be written."
        ) from error
    try:
        write_raw(aside / "raw")
        prepare(Request(aside / "raw", (_YEAR,), synthetic=True), aside / "prepared")
        _move(aside, home)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return prepared


def _move(aside: Path, home: Path) -> None:
    """Put the finished folder in its place; if another process was first, its folder is as good as ours."""
    try:
        aside.rename(home)
    except OSError:
        if not (home / "prepared" / DESCRIPTION).is_file():
            raise DataError(f"{home}: is in the way of the demo data and is not it. Delete this folder.") from None


def write_raw(raw: Path) -> None:
    """Write the photographs, labels and metadata as ISIC 2019 delivers them. The same bytes and times each time."""
    rng = np.random.default_rng(_SEED)
    images = raw / _YEAR / "ISIC_2019_Training_Input"
    images.mkdir(parents=True)
    kinds = rng.permutation(np.repeat(list(_LESIONS), list(_LESIONS.values())))
    views = rng.permutation(np.repeat(list(_LESIONS_BY_VIEWS), list(_LESIONS_BY_VIEWS.values())))
    rows: list[dict[str, object]] = []
    for lesion, (kind, count) in enumerate(zip(kinds, views, strict=False)):
        about = _person(rng, f"DEMO_{lesion:07d}", str(kind))
        picture = draw_lesion(rng, str(kind))
        for _ in range(count):
            name = f"ISIC_{9_000_000 + len(rows):07d}"
            Image.fromarray(photograph(rng, picture)).save(images / f"{name}.jpg", quality=90)
            os.utime(images / f"{name}.jpg", (0, 0))
            rows.append({"image": name, **about})
    table = pd.DataFrame(rows)
    labels = pd.DataFrame({label: (table["kind"] == label).astype(float) for label in (*DIAGNOSES, "UNK")})
    labels.insert(0, "image", table["image"])
    labels.to_csv(raw / _YEAR / "ISIC_2019_Training_GroundTruth.csv", index=False)
    metadata = table[["image", "age_approx", "anatom_site_general", "lesion_id", "sex"]]
    metadata.to_csv(raw / _YEAR / "ISIC_2019_Training_Metadata.csv", index=False)


def _person(rng: np.random.Generator, lesion: str, kind: str) -> dict[str, object]:
    """What the metadata says of one lesion; nevi are of the young a little more often, and some fields stay empty."""
    typical = 45 if kind in ("NV", "DF", "VASC") else 60
    age = int(np.clip(5 * round(rng.normal(typical, 15) / 5), 10, 85))
    return {
        "kind": kind,
        "lesion_id": lesion,
        "age_approx": age if rng.random() > 0.03 else "",
        "anatom_site_general": rng.choice(_SITES) if rng.random() > 0.1 else "",
        "sex": rng.choice(["female", "male"]) if rng.random() > 0.03 else "",
    }
