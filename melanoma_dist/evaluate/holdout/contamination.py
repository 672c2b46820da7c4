"""Refuse images that a run was trained on: the images themselves, their lesions, their patients or copies of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from PIL import Image

from melanoma_dist.data.duplicates import near_duplicates
from melanoma_dist.data.shards import ShardReader
from melanoma_dist.errors import DataError
from melanoma_dist.inference.images import Images
from melanoma_dist.storage.images import open_image

_SHOWN = 5
_SHARED = {
    "image_id": "it was trained on itself",
    "source_sha256": "its file was, as {other}",
    "lesion_id": "its lesion {value} was, on {other}",
    "patient_id": "its patient {value} was, on {other}",
    "group": "its group {value} was, with {other}",
}
"""The columns that identify two images as related, and the reason to show. ``other`` is an image of the training."""


def refuse_trained(images: Images, trained: Images) -> None:
    """Raise DataError, with the first few images and the reasons, if any of ``images`` is related to ``trained``.

    An image is refused with its whole group: a copy of a trained image also gives away the other photographs of its
    lesion. Therefore the check covers the groups of ``images`` in their own data set, not only ``images``.
    """
    manifest = images.dataset.manifest
    groups = set(images.table["group"])
    around = Images.of(images.dataset, manifest["group"].isin(groups).to_numpy())
    reasons = _over_groups(around.table, {**_copies(around, trained), **_shared_identity(around.table, trained.table)})
    refused = [(name, reasons[name]) for name in images.table["image_id"] if name in reasons]
    if refused:
        examples = "; ".join(f"{name} ({why})" for name, why in refused[:_SHOWN])
        more = f"; and {len(refused) - _SHOWN} more" if len(refused) > _SHOWN else ""
        raise DataError(
            f"{len(refused)} of {len(images.rows)} images are not unseen, for the run was trained on them, on their "
            f"lesions, on their patients or on copies of them: {examples}{more}. Metrics on them would mean nothing. "
            "No image was scored. Name a holdout, or a data set without them."
        )


def _shared_identity(table: pd.DataFrame, trained: pd.DataFrame) -> dict[str, str]:
    """Map the ids of images that share an identity with a trained image to the plainest reason.

    Both tables are rows of a manifest. An optional column counts where both have it. Blank and missing values are
    unknown, and equal nothing.
    """
    reasons: dict[str, str] = {}
    for column, reason in _SHARED.items():
        if column not in table or column not in trained:
            continue
        known = dict(zip(trained[column], trained["image_id"], strict=True))
        for name, value in zip(table["image_id"], table[column], strict=True):
            if name not in reasons and not pd.isna(value) and value != "" and value in known:
                reasons[name] = reason.format(value=value, other=known[value])
    return reasons


def _copies(around: Images, trained: Images) -> dict[str, str]:
    """Map the ids of copies of trained images to the reason. `data prepare` recognises copies in the same way."""
    sides = (around, trained)
    readers = [ShardReader(side.dataset) for side in sides]
    table = pd.concat([side.table for side in sides], ignore_index=True)
    which = np.repeat([False, True], [len(side.rows) for side in sides])
    rows = np.concatenate([side.rows for side in sides])

    def pixels(position: int) -> Image.Image:
        return open_image(readers[int(which[position])].jpeg(int(rows[position])).tobytes())

    pairs = near_duplicates(table["perceptual_hash"], pixels, which)
    copies = pairs[pairs["joined"]]
    ends = (table["image_id"].to_numpy()[copies[end].to_numpy(dtype=np.int64)] for end in ("first", "second"))
    return {
        str(name): f"a copy of it was, {other}; details correlate at {correlation:.3f}"
        for name, other, correlation in zip(*ends, copies["correlation"], strict=True)
    }


def _over_groups(table: pd.DataFrame, reasons: dict[str, str]) -> dict[str, str]:
    """Add a reason for every other image in the groups of the images with reasons."""
    spread = dict(reasons)
    first = table[table["image_id"].isin(reasons)].drop_duplicates("group").set_index("group")["image_id"]
    for name, group in zip(table["image_id"], table["group"], strict=True):
        if name not in reasons and group in first.index:
            spread[name] = f"it is in the group of {first[group]}: {reasons[first[group]]}"
    return spread
