"""File names of the ISIC challenges. Light: a download uses it too."""

from __future__ import annotations

import re

from melanoma_dist.storage.images import SUFFIXES

# re.ASCII: other scripts have digits too, and a letter whose upper case is our S.
_FLAGS = re.IGNORECASE | re.ASCII
IMAGE_ID = re.compile(r"(ISIC_[0-9]{7})(_downsampled)?", _FLAGS)
"""An image id with the suffix of some ids of 2019; the first group is the id."""
# Match whole names: 2017 keeps ``ISIC_0000000_superpixels.png`` beside its images.
IMAGE_FILE = re.compile(f"{IMAGE_ID.pattern}({'|'.join(map(re.escape, SUFFIXES))})", _FLAGS)
"""The name of an image file; the first group is the id."""
MASK_FILE = re.compile(IMAGE_ID.pattern + r"_segmentation\.png", _FLAGS)
"""The name of a mask file; the first group is the id."""
