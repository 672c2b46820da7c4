"""Where a lesion was found, for an answer over HTTP."""

from __future__ import annotations

from melanoma_dist.inference.lesion_masks import Box, Lesion

Shares = dict[str, float]


def describe_lesion(lesion: Lesion | None) -> dict[str, object] | None:
    """Where the lesion is and what the models saw, in shares of the image; None for models that see whole images."""
    if lesion is None:
        return None
    return {
        "region": lesion.region,
        "mask": lesion.mask,
        "box": None if lesion.box is None else shares(lesion.box),
        "window": shares(lesion.window),
        "area": lesion.area,
        "quality": lesion.quality,
        "outline": [list(point) for point in lesion.outline],
    }


def shares(box: Box) -> Shares:
    """A box by the names of its numbers."""
    return dict(zip(("top", "left", "height", "width"), box, strict=True))
