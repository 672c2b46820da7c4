"""Whether the tables of a split say of every image what they should: a part of a table would leak without a word.

An image without a lesion is a group of its own. If half of a table of lesions is lost, images of one lesion lie in two
folds, and every later check passes.
"""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

_FIRST_OWN = "ISIC_1000000"  # the challenges of these years use smaller numbers; people's own images may not
_FIRST_NAMED = "ISIC_0024306"  # from here on (HAM10000, BCN20000) the challenges know the lesion of every image


class Official(NamedTuple):
    """The published counts of a split."""

    images: int
    with_lesion: int = 0
    """Images with a lesion id."""
    lesions: int = 0


def count_gap(records: pd.DataFrame, official: Official) -> str:
    """How the images and lesions of a split contradict the published counts; "" if they do not.

    A part of the official images is no contradiction, if it is not known to lack lesions.
    """
    records = records[records["image_id"] < _FIRST_OWN]
    images, lesions = len(records), records["lesion_id"].dropna()
    counts = Official(images, len(lesions), lesions.nunique())
    unnamed = records["lesion_id"].isna() & (records["image_id"] >= _FIRST_NAMED)
    wrong = images > official.images or (
        official.lesions > 0
        and (
            unnamed.any()
            or images - len(lesions) > official.images - official.with_lesion
            or (images == official.images and counts != official)
        )
    )
    if not wrong:
        return ""
    text = "{0} images, {1} of them with a lesion id, of {2} lesions"
    return f"{text.format(*counts)}; the challenge published {text.format(*official)}"


def coverage_gap(records: pd.DataFrame, about: pd.DataFrame) -> str:
    """How many labelled images a table with facts about them leaves out; "" if none."""
    absent = records.loc[~records["image_id"].isin(about["image_id"]), "image_id"]
    if absent.empty:
        return ""
    return f"says nothing about {len(absent)} of the {len(records)} labelled images ({', '.join(absent[:3])}, ...)"


def count_note(records: pd.DataFrame, official: Official) -> str:
    """A note if only a part of the official images is labelled; "" otherwise, also for images of one's own."""
    images = int((records["image_id"] < _FIRST_OWN).sum())
    return f"labels {images} of the {official.images} official images" if 0 < images < official.images else ""
