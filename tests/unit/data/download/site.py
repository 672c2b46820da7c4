"""The official files with two images per archive, and the command that downloads them."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from melanoma_dist.config.data import DownloadConfig
from melanoma_dist.data.download.catalogue import OfficialFile, official_files
from melanoma_dist.data.download.fetch import download
from melanoma_dist.data.download.transfer import RetryPolicy

from .server import Site

TABLE = "/2017/ISIC-2017_Training_Part3_GroundTruth.csv"
IMAGES = "/2017/ISIC-2017_Training_Data.zip"
FAST = RetryPolicy(connect_s=2, read_s=0.5, attempts=3, first_wait_s=0.01)
CLASSES = {
    2017: "melanoma,seborrheic_keratosis",
    2018: "MEL,NV,BCC,AKIEC,BKL,DF,VASC",
    2019: "MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK",
}


def get(site: Site, raw: Path, *years: int, **options: Any) -> None:
    download(DownloadConfig(years or (2017,), raw, base_url=site.url, **options), FAST)  # type: ignore[arg-type]


def record(raw: Path, year: int = 2017) -> dict[str, Any]:
    return dict(json.loads((raw / str(year) / "download.json").read_text())["files"])


def leftovers(raw: Path) -> list[Path]:
    return [path for kind in ("*.part*", "*.zip", ".*.unpacking", "*.tmp") for path in raw.rglob(kind)]


def pack(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Make a zip file."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return packed.getvalue()


def small_files(size: int = 20_000) -> dict[str, bytes]:
    """Map paths to all files of the catalogue; images and masks are ``size`` random bytes."""
    return {f"/{file.year}/{file.name}": _content(file, size) for file in official_files((2017, 2018, 2019))}


def whole_masks(size: int) -> dict[str, bytes]:
    """Make the masks of 2017 in their official number, for commands in a subprocess."""
    return {
        f"/{file.year}/{file.name}": pack(
            {
                f"ISIC_{n:07d}_segmentation.png": np.random.default_rng(n).bytes(size if n < 2 else 9)
                for n in range(count)
            },
            zipfile.ZIP_STORED,
        )
        for file, count in zip(official_files((2017,), ("masks",)), (150, 2000, 600), strict=True)
    }


def _bytes(seed: int, size: int) -> bytes:
    return np.random.default_rng(seed).bytes(size)


def _content(file: OfficialFile, size: int) -> bytes:
    split = next(number for number, name in enumerate(("Training", "Validation", "Test")) if name in file.name)
    ids = [f"ISIC_{file.year % 10}{split}0000{number}" for number in range(2)]
    random_bytes = np.random.default_rng(list(file.name.encode())).bytes
    if file.part == "images":
        members = {f"{file.stem}/{name}.jpg": random_bytes(size) for name in ids}
        extra = {f"__MACOSX/{file.stem}/._{ids[0]}.jpg": b"resource fork"}
        if file.year == 2017:
            extra |= {f"{file.stem}/{name}_superpixels.png": b"superpixels" for name in ids}
            extra[f"{file.stem}/{file.stem}_metadata.csv"] = _rows("image_id,age_approximate,sex", ids, "55,female")
        return pack(members | extra)
    if file.part == "masks":
        return pack({f"{file.stem}/{name}_segmentation.png": random_bytes(size) for name in ids})
    table = _table(file, ids)
    return pack({f"{file.stem}/{file.name[:-4]}.csv": table}) if file.is_archive else table


def _table(file: OfficialFile, ids: list[str]) -> bytes:
    if "Metadata" in file.name:
        lesion = ",lesion_id" if "Training" in file.name else ""
        return _rows(
            f"image,age_approx,anatom_site_general,sex{lesion}", ids, "55,head/neck,male" + ",L1" * bool(lesion)
        )
    if "Groupings" in file.name:
        return _rows("image,lesion_id,diagnosis_confirm_type", ids, "HAM_0000001,histopathology")
    classes = CLASSES[file.year]
    image = "image_id" if file.year == 2017 else "image"
    return _rows(f"{image},{classes}", ids, "1.0" + ",0.0" * classes.count(","))


def _rows(header: str, ids: list[str], values: str) -> bytes:
    return "\n".join([header, *(f"{name},{values}" for name in ids), ""]).encode()


FILES = small_files()
