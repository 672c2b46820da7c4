"""Demo data: synthetic images of skin lesions, drawn on first use and kept in the cache.

They are written in the layout of ISIC 2019 and go through the real preparation. `melanoma_dist.data.lesion` draws
them; no number computed from them says anything about melanoma.
"""

from __future__ import annotations

import os
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

_NAME = "demo-v4"  # change it with the drawings or the format: caches keep the old data
_SEED = 2019
_YEAR = "2019"
_LESIONS = {"MEL": 84, "NV": 176, "BCC": 38, "AK": 20, "BKL": 38, "DF": 14, "VASC": 14, "SCC": 16}
_LESIONS_BY_VIEWS = {1: 268, 2: 84, 3: 34, 4: 14}
"""Number of lesions, of 400, with one, two, ... images: 594 images."""
_TEST_LESIONS = {"MEL": 30, "NV": 50, "BCC": 10, "AK": 6, "BKL": 10, "DF": 4, "VASC": 4, "SCC": 6}
"""Of one image each: the holdout 2019-test."""
_SITES = ("anterior torso", "posterior torso", "lower extremity", "upper extremity", "head/neck", "palms/soles")


def open_dataset(name: str) -> Dataset:
    """Load the data set of ``--data``: a prepared folder, the URL of one, or "demo".

    Raises DataError as `load_dataset` does, and for a URL as `local_copy` does.
    """
    return load_dataset(demo_dataset() if name == "demo" else local_copy(name))


def demo_dataset(cache: Path | None = None) -> Path:
    """The folder of the prepared demo data set: 594 images of 400 lesions, and 120 of a holdout; generated if missing.

    It lies under ``cache``, by default `cache_folder`. Several processes may call this at the same time.
    Raises DataError if the cache cannot be written.
    """
    cache = cache or cache_folder()
    home = cache / _NAME
    prepared = home / "prepared"
    if (prepared / DESCRIPTION).is_file():
        return prepared
    console.info(f"generating the demo data in {home} (once, some seconds)")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.TemporaryDirectory(prefix=f".{_NAME}-", dir=cache, ignore_cleanup_errors=True)
    except OSError as error:
        raise DataError(
            f"{cache}: cannot write the demo data here ({error.strerror}). "
            "Set MELANOMA_DIST_CACHE to a writable folder."
        ) from error
    with temporary as folder:
        aside = Path(folder)
        write_raw(aside / "raw")
        prepare(Request(aside / "raw", (_YEAR,), synthetic=True), aside / "prepared")
        try:
            aside.rename(home)
        except OSError:  # if another process was first, its folder has the same content
            if not (prepared / DESCRIPTION).is_file():
                raise DataError(f"{home}: is not the demo data, which belongs there. Delete this folder.") from None
    return prepared


def write_raw(raw: Path) -> None:
    """Write images, labels and metadata in the layout of ISIC 2019, always with the same bytes and times.

    The test set has a random generator of its own: the training set does not depend on it.
    """
    rng = np.random.default_rng(_SEED)
    kinds = rng.permutation(np.repeat(list(_LESIONS), list(_LESIONS.values())))
    views = rng.permutation(np.repeat(list(_LESIONS_BY_VIEWS), list(_LESIONS_BY_VIEWS.values())))
    _write_part(raw / _YEAR, "Training", 9_000_000, rng, list(zip(kinds, views, strict=False)))
    rng = np.random.default_rng([_SEED, 1])
    kinds = rng.permutation(np.repeat(list(_TEST_LESIONS), list(_TEST_LESIONS.values())))
    _write_part(raw / _YEAR, "Test", 9_100_000, rng, [(kind, 1) for kind in kinds])


def _write_part(folder: Path, part: str, first: int, rng: np.random.Generator, lesions: list[tuple[str, int]]) -> None:
    """Write one part of the year: lesions of a kind, each with a number of photographs, numbered from ``first``."""
    images = folder / f"ISIC_2019_{part}_Input"
    images.mkdir(parents=True)
    rows: list[dict[str, object]] = []
    for lesion, (kind, count) in enumerate(lesions):
        about = _person(rng, f"DEMO_{lesion:07d}", str(kind))
        picture = draw_lesion(rng, str(kind))
        for _ in range(count):
            name = f"ISIC_{first + len(rows):07d}"
            Image.fromarray(photograph(rng, picture)).save(images / f"{name}.jpg", quality=90)
            os.utime(images / f"{name}.jpg", (0, 0))
            rows.append({"image": name, **about})
    table = pd.DataFrame(rows)
    labels = pd.DataFrame({label: (table["kind"] == label).astype(float) for label in (*DIAGNOSES, "UNK")})
    labels.insert(0, "image", table["image"])
    labels.to_csv(folder / f"ISIC_2019_{part}_GroundTruth.csv", index=False)
    columns = ["image", "age_approx", "anatom_site_general", *(["lesion_id"] if part == "Training" else []), "sex"]
    table[columns].to_csv(folder / f"ISIC_2019_{part}_Metadata.csv", index=False)


def _person(rng: np.random.Generator, lesion: str, kind: str) -> dict[str, object]:
    """The metadata of one lesion. Patients with nevi are a little younger; some fields stay empty."""
    typical = 45 if kind in ("NV", "DF", "VASC") else 60
    age = int(np.clip(5 * round(rng.normal(typical, 15) / 5), 10, 85))
    return {
        "kind": kind,
        "lesion_id": lesion,
        "age_approx": age if rng.random() > 0.03 else "",
        "anatom_site_general": rng.choice(_SITES) if rng.random() > 0.1 else "",
        "sex": rng.choice(["female", "male"]) if rng.random() > 0.03 else "",
    }
