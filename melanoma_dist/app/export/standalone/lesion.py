"""Find the lesion of an image, and cut out what the models see of it. Needs numpy and Pillow.

predict.py uses it. `rule` is what export.json says under `lesion`. Boxes and windows are top, left, height and width
in shares of the image.
"""

import numpy as np
from PIL import Image


def find_lesion(probability, width, height, rule):
    """Describe the lesion of an image by the probabilities [S, S] of the segmenter. `mask` is bool [height, width]."""
    resized = Image.fromarray(probability).resize((width, height), Image.Resampling.BILINEAR)
    mask = largest_region(np.asarray(resized) >= rule["threshold"])
    area, quality = float(mask.mean()), np.float32(expected_agreement(probability, rule["threshold"]))
    detected = area > 0 and area >= rule["least_area"]
    trusted = bool(detected and quality >= rule["least_quality"])
    box = box_of(mask) if detected else None
    boxed = trusted and rule["region"] == "lesion"
    window = window_around(box, height, width, rule["margin"]) if boxed else np.float32([0, 0, 1, 1])
    return {"mask": mask, "trusted": trusted, "box": box, "quality": float(quality), "window": window}


def see(pixels, lesion, rule):
    """Return what the models see of an image, bytes [H, W, 3]: its window, with the mask as a fourth channel or not."""
    if rule["mask"] == "channel":
        mask = 255 * (lesion["mask"] & lesion["trusted"]).astype(np.uint8)
        pixels = np.concatenate([pixels, mask[:, :, None]], axis=2)
    start, extent = lesion["window"][:2].astype(np.float64), lesion["window"][2:].astype(np.float64)
    ends = [np.floor(share * pixels.shape[:2] + 0.5).astype(int) for share in (start, start + extent)]
    (top, left), (bottom, right) = ends
    return np.ascontiguousarray(pixels[top:bottom, left:right])


def largest_region(mask):
    """Return the largest region of a mask, its holes filled."""
    numbers = regions(mask)
    areas = np.bincount(numbers.ravel(), minlength=2)
    areas[0] = 0
    largest = numbers == areas.argmax() if areas.any() else mask
    background = regions(np.pad(~largest, 1, constant_values=True))
    return (background != background[0, 0])[1:-1, 1:-1]


def regions(mask):
    """Number the regions of a mask in the order of their first pixels, from 1. Their pixels touch by a side."""
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = (each.tolist() for each in np.nonzero(edges == 1))
    ends = np.nonzero(edges == -1)[1].tolist()
    parents = list(range(len(rows)))  # of each run of pixels, another one of its region

    def first(run):
        while parents[run] != run:
            parents[run] = run = parents[parents[run]]
        return run

    above = 0
    for run, (row, start, end) in enumerate(zip(rows, starts, ends)):
        while rows[above] < row - 1 or (rows[above] == row - 1 and ends[above] <= start):
            above += 1
        other = above
        while rows[other] == row - 1 and starts[other] < end:
            low, high = sorted((first(run), first(other)))
            parents[high] = low
            other += 1
    numbers, known = np.zeros(mask.shape, dtype=np.int64), {}
    for run, (row, start, end) in enumerate(zip(rows, starts, ends)):
        numbers[row, start:end] = known.setdefault(first(run), len(known) + 1)
    return numbers


def expected_agreement(probability, threshold):
    """Return the Jaccard index to expect of a mask, if each pixel is lesion with its probability."""
    p = probability.astype(np.float64)
    mask = largest_region(p >= threshold)
    return p[mask].sum() / (mask.sum() + p[~mask].sum()) if mask.any() else 0.0


def box_of(mask):
    """Return the box around a mask."""
    sides = [(np.flatnonzero(mask.any(axis=axis)), length) for axis, length in ((1, mask.shape[0]), (0, mask.shape[1]))]
    (top, height), (left, width) = [(at[0] / length, (at[-1] + 1) / length - at[0] / length) for at, length in sides]
    return np.float32([top, left, height, width])


def window_around(box, height, width, margin):
    """Return the smallest square with the box and a margin of shares of its sides, moved into the image."""
    box, size = box.astype(np.float64), np.array([height, width], dtype=np.float64)
    centre = box[:2] + box[2:] / 2
    extent = np.minimum((box[2:] * (1 + 2 * margin) * size).max() / size, 1.0).astype(np.float32)
    start = np.clip(centre - extent / 2, 0, 1 - extent).astype(np.float32)
    return np.concatenate([np.minimum(start, 1 - extent), extent])
