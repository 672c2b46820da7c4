"""Which images a run is judged by: a holdout of its own data set, or all of another one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from melanoma_dist.data.groups import EXCLUDED, TRAIN
from melanoma_dist.data.labels import label_counts, targets
from melanoma_dist.data.manifest import Dataset, listed_in
from melanoma_dist.data.node_copies import is_remote
from melanoma_dist.data.shards import ShardReader
from melanoma_dist.data.sources.registry import OFFICIAL_HOLDOUTS
from melanoma_dist.errors import ConfigError, DataError

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Images:
    """Some images of a data set."""

    dataset: Dataset
    rows: npt.NDArray[np.int64]
    """[n] rows of its manifest, rising."""

    @classmethod
    def of(cls, dataset: Dataset, chosen: Bools) -> Images:
        """Those for which ``chosen`` [rows of the manifest] is true."""
        return cls(dataset, np.flatnonzero(chosen).astype(np.int64))

    @property
    def table(self) -> pd.DataFrame:
        """Their rows of the manifest, [n]."""
        return self.dataset.manifest.iloc[self.rows].reset_index(drop=True)

    @property
    def image_ids(self) -> tuple[str, ...]:
        """Their ids, [n]."""
        return tuple(self.table["image_id"])

    @property
    def store(self) -> ShardReader:
        """Where a loader finds the JPEG bytes of a row."""
        return ShardReader(self.dataset)

    @property
    def largest(self) -> tuple[int, int]:
        """Largest width and height among them, pixels."""
        return int(self.table["width"].max()), int(self.table["height"].max())

    def truth(self, labels: tuple[str, ...]) -> npt.NDArray[np.float32]:
        """[n, L] 1, 0 or NaN (unknown)."""
        return targets(self.table, labels)

    def sha256(self) -> str:
        """The sha256 (hex) of their ids and the hashes of their source files: the same images give the same."""
        table = self.table.sort_values("image_id")
        pairs = zip(table["image_id"], table["source_sha256"], strict=True)
        return hashlib.sha256("".join(f"{name} {source}\n" for name, source in pairs).encode()).hexdigest()

    def check_bytes(self) -> None:
        """Raise DataError for the first image whose stored bytes are not those that were prepared."""
        reader = ShardReader(self.dataset)
        for row in self.rows:
            reader.jpeg(int(row))


@dataclass(frozen=True)
class Chosen:
    """What a run is judged by."""

    what: str
    """The holdout's name, or that of the data set's folder."""
    kind: Literal["holdout", "data"]
    images: Images
    unlabelled: int
    """Images left out because nothing is known of them."""


def choose_holdout(dataset: Dataset, name: str, labels: tuple[str, ...]) -> Chosen:
    """The images of a holdout with any known label. Raises ConfigError for another name, with those there are."""
    manifest = dataset.manifest
    there = holdouts(manifest)
    if name not in there:
        counts = ", ".join(f"{known} ({int(rows.sum())} images)" for known, rows in there.items())
        raise ConfigError.of(
            "holdout", name, "the run's data set has no such holdout",
            f"It has: {counts}." if there else "It has none: `data prepare` keeps the official tests out, and with "
            "--holdout 0.1 a share of the lesions. Another data set can be named with --data.",
        )  # fmt: skip
    return _known(dataset, there[name], name, "holdout", labels)


def choose_all(dataset: Dataset, source: str, labels: tuple[str, ...]) -> Chosen:
    """All images of a data set with any known label; ``source`` is what named it. Raises DataError for none."""
    name = source.rstrip("/").rpartition("/")[2] if is_remote(source) else dataset.folder.resolve().name
    name = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name).lstrip(".-")
    return _known(dataset, np.ones(len(dataset.manifest), dtype=bool), name or "data", "data", labels)


def holdouts(manifest: pd.DataFrame) -> dict[str, Bools]:
    """The holdouts of a data set by name, with their rows of the manifest, bool [rows].

    An official one has every image that its challenge lists, whatever other holdout the image lies in too.
    """
    splits = {split for split in manifest["split"] if split != TRAIN and not split.startswith(EXCLUDED)}
    listed = {name for names in manifest["listed"] for name in names.split("+")} & OFFICIAL_HOLDOUTS
    rows = {
        name: (manifest["split"] == name).to_numpy() | listed_in(manifest, name) for name in sorted(splits | listed)
    }
    return {name: chosen for name, chosen in rows.items() if chosen.any()}


def absent_labels(images: Images, labels: tuple[str, ...]) -> dict[str, str]:
    """Why a label cannot be judged by these images, for those labels that cannot."""
    why = {}
    for label, row in label_counts(images.table, labels).iterrows():
        if row["positive"] + row["negative"] == 0:
            why[str(label)] = "of no image it is known whether it has this label"
        elif row["positive"] == 0:
            why[str(label)] = "no image has this label"
        elif row["negative"] == 0:
            why[str(label)] = "no image is known not to have this label"
    return why


def _known(
    dataset: Dataset, chosen: Bools, name: str, kind: Literal["holdout", "data"], labels: tuple[str, ...]
) -> Chosen:
    known = ~np.isnan(targets(dataset.manifest, labels)).all(axis=1)
    if not (chosen & known).any():
        raise DataError(
            f"--{kind} {name}: of none of its {int(chosen.sum())} images any of the run's labels "
            f"({', '.join(labels)}) is known: there is nothing to judge by."
        )
    return Chosen(name, kind, Images.of(dataset, chosen & known), int((chosen & ~known).sum()))
