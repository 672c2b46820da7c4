"""A clinic's own collection: a table, photographs and their description."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from melanoma_dist.data.manifest import Dataset
from melanoma_dist.data.prepare import Request, prepare
from melanoma_dist.data.sources.described import DescribedSource
from melanoma_dist.data.sources.description import parse_description

from ..conftest import write_image, write_table

COLUMNS = {"id": "file", "label": "dx", "lesion": "lesion", "patient": "patient", "split": "set"}
CLINIC = {
    "name": "clinic",
    "table": "lesions.csv",
    "columns": COLUMNS,
    "labels": {"mel": "MEL", "Naevus": "NV", "eczema": "none", "": "unknown"},
    "holdouts": ["test"],
}
ROWS = (
    "scan 1.JPG,mel,L1,P1,train",
    "scan 2.v2.png,NAEVUS,L2,P1,train",
    "photos/ü-3.jpg,eczema,L3,P2,test",
    "ü-4,,L4,P3,train",
)


def clinic(folder: Path, *rows: str, **changes: Any) -> DescribedSource:
    """The clinic's table and photographs, and its source."""
    write_table(folder / "lesions.csv", "file,dx,lesion,patient,set", *(rows or ROWS))
    for seed, name in enumerate(("scan 1.JPG", "scan 2.v2.png", "ü-3.jpg", "ü-4.jpeg")):
        write_image(folder / "photos" / name, seed + 100, format="PNG" if name.endswith("png") else "JPEG")
    return DescribedSource(parse_description({**CLINIC, **changes}, "clinic.yaml"))


def prepared(folder: Path, out: Path, *sources: DescribedSource, **choices: Any) -> Dataset:
    return prepare(Request(folder, (), sources=sources, size=32, **choices), out)
