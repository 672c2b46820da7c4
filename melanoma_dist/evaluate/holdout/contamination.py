"""The proof that images are unseen: none of them, of their lesions or of their copies was trained on."""

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
_SAME = {
    "image_id": "it was trained on itself",
    "source_sha256": "its file was, as {other}",
    "lesion_id": "its lesion {value} was, on {other}",
    "group": "its group {value} was, with {other}",
}
"""What two images may share, and what is told then; ``other`` is an image that was trained on."""


def refuse_trained(unseen: Images, trained: Images) -> None:
    """Raise DataError, with the first few and why, unless no image of ``unseen`` was seen in training.

    Images count as seen with their whole group, in the data set that they come from: a copy of a trained image gives
    its lesion's other photographs away too.
    """
    manifest = unseen.dataset.manifest
    groups = set(unseen.table["group"])
    around = Images.of(unseen.dataset, manifest["group"].isin(groups).to_numpy())
    seen = _over_groups(around.table, {**_near(around, trained), **_same(around.table, trained.table)})
    found = [(name, seen[name]) for name in unseen.table["image_id"] if name in seen]
    if found:
        told = "; ".join(f"{name} ({why})" for name, why in found[:_SHOWN])
        more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise DataError(
            f"{len(found)} of {len(unseen.rows)} images are not unseen, for the run was trained on them, on their "
            f"lesions or on copies of them: {told}{more}. Figures on them would say nothing. Nothing was looked "
            "at. Name a holdout, or a data set without them."
        )


def _same(table: pd.DataFrame, trained: pd.DataFrame) -> dict[str, str]:
    """Why images were seen, by id: what they share with an image that was trained on, the plainest reason of each."""
    found: dict[str, str] = {}
    for column, reason in _SAME.items():
        known = dict(zip(trained[column], trained["image_id"], strict=True))
        for name, value in zip(table["image_id"], table[column], strict=True):
            if name not in found and not pd.isna(value) and value in known:
                found[name] = reason.format(value=value, other=known[value])
    return found


def _near(around: Images, trained: Images) -> dict[str, str]:
    """Why images were seen, by id: a picture that was trained on is a copy of it, as `data prepare` finds them."""
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


def _over_groups(table: pd.DataFrame, seen: dict[str, str]) -> dict[str, str]:
    """The same, with every other image of the groups that were seen."""
    spread = dict(seen)
    first = table[table["image_id"].isin(seen)].drop_duplicates("group").set_index("group")["image_id"]
    for name, group in zip(table["image_id"], table["group"], strict=True):
        if name not in seen and group in first.index:
            spread[name] = f"it shares a lesion with {first[group]}, of which {seen[first[group]]}"
    return spread
