"""Select the images that evaluate a run: a holdout of its own data set, or all of another one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from melanoma_dist.data.groups import EXCLUDED, TRAIN
from melanoma_dist.data.labels import label_counts, targets
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.data.metadata import metadata_codes
from melanoma_dist.data.node_copies import is_remote
from melanoma_dist.data.shards import ShardReader
from melanoma_dist.data.splits import listed_in, official_holdouts
from melanoma_dist.errors import ConfigError, DataError

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Images:
    """Some images of a data set."""

    dataset: Dataset
    rows: npt.NDArray[np.int64]
    """[n] rows of its manifest, rising."""

    @classmethod
    def of(cls, dataset: Dataset, mask: Bools) -> Images:
        """Those where ``mask`` [rows of the manifest] is true."""
        return cls(dataset, np.flatnonzero(mask).astype(np.int64))

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
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Width and height of each, pixels, [n]."""
        return tuple(zip(self.table["width"].tolist(), self.table["height"].tolist(), strict=True))

    @property
    def largest(self) -> tuple[int, int]:
        """Largest width and height among them, pixels."""
        return int(self.table["width"].max()), int(self.table["height"].max())

    def truth(self, labels: tuple[str, ...]) -> npt.NDArray[np.float32]:
        """[n, L] 1, 0 or NaN (unknown)."""
        return targets(self.table, labels)

    def metadata(self, fields: tuple[str, ...]) -> npt.NDArray[np.float32]:
        """[n, F] codes of `data.metadata`, NaN unknown."""
        return metadata_codes(self.table, fields)

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
class Selection:
    """The images that evaluate a run."""

    name: str
    """Of the holdout, or of the data set's folder."""
    kind: Literal["holdout", "data"]
    images: Images
    unlabelled: int
    """Images left out, as none of the labels, or no mask, is known for them."""
    related: Mapping[str, str] = field(default_factory=dict)
    """Images left out, as the run was trained on them or related ones: id to reason."""


def select_holdout(dataset: Dataset, name: str, labels: tuple[str, ...]) -> Selection:
    """Select the images of a holdout with any known label; without ``labels``, those with a lesion mask.

    Raises ConfigError, with the names, for another name.
    """
    manifest = dataset.manifest
    available = holdouts(manifest)
    if name not in available:
        counts = ", ".join(f"{known} ({int(rows.sum())} images)" for known, rows in available.items())
        raise ConfigError.of(
            "holdout", name, "the run's data set has no holdout of that name",
            f"It has: {counts}." if available else "It has none: `data prepare` keeps the official tests out, and with "
            "--holdout 0.1 a share of the lesions. Another data set can be named with --data.",
        )  # fmt: skip
    return _known(dataset, available[name], name, "holdout", labels)


def select_all(dataset: Dataset, source: str, labels: tuple[str, ...]) -> Selection:
    """Select all images of a data set with any known label; without ``labels``, those with a lesion mask.

    ``source`` is the name of the data set. Raises DataError for none.
    """
    name = source.rstrip("/").rpartition("/")[2] if is_remote(source) else dataset.folder.resolve().name
    name = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name).lstrip(".-")
    return _known(dataset, np.ones(len(dataset.manifest), dtype=bool), name or "data", "data", labels)


def holdouts(manifest: pd.DataFrame) -> dict[str, Bools]:
    """The holdouts of a data set by name, as masks of its manifest, bool [rows].

    An official one has every image that its challenge lists, even where the image lies in another holdout too.
    """
    splits = {split for split in manifest["split"] if split != TRAIN and not split.startswith(EXCLUDED)}
    listed = {name for names in manifest["listed"] for name in names.split("+")} & official_holdouts(manifest)
    rows = {
        name: (manifest["split"] == name).to_numpy() | listed_in(manifest, name) for name in sorted(splits | listed)
    }
    return {name: mask for name, mask in rows.items() if mask.any()}


def absent_labels(images: Images, labels: tuple[str, ...]) -> dict[str, str]:
    """The labels that these images cannot evaluate, and why."""
    reasons = {}
    for label, row in label_counts(images.table, labels).iterrows():
        if row["positive"] + row["negative"] == 0:
            reasons[str(label)] = "this label is not known for any image"
        elif row["positive"] == 0:
            reasons[str(label)] = "no image has this label"
        elif row["negative"] == 0:
            reasons[str(label)] = "no image is known not to have this label"
    return reasons


def _known(
    dataset: Dataset, mask: Bools, name: str, kind: Literal["holdout", "data"], labels: tuple[str, ...]
) -> Selection:
    if labels:
        known = ~np.isnan(targets(dataset.manifest, labels)).all(axis=1)
    else:
        known = (dataset.manifest["mask_offset"] >= 0).to_numpy()
    if not (mask & known).any():
        what = f"of the run's labels ({', '.join(labels)}) is known for any" if labels else "has a lesion mask"
        images = f"of its {int(mask.sum())} images"
        rule = f"none {what} {images}" if labels else f"none {images} {what}"
        raise DataError(f"--{kind} {name}: {rule}, so they cannot evaluate it.")
    return Selection(name, kind, Images.of(dataset, mask & known), int((mask & ~known).sum()))
