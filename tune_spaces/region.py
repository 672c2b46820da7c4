"""Search what a classifier sees of an image: all of it or the lesion, and with which margin.

    python launch.py sweep --space tune_spaces/region.py --searcher grid --data DATA --gpus 1 \\
        --region lesion --lesions LESIONS

LESIONS is the side table that `segment apply` wrote for DATA. It is a flag and not part of a space, because a table
belongs to one data set; so `full.py`, which must run without one, does not vary the region. To search both, add
these entries to a copy of it, or `"region.mask": tune.choice(["none", "channel"])` for the mask beside the image.

Cost: 4 configurations. Reason: studies disagree on whether the lesion alone serves a classifier better; the size of the
lesion in the image is information that a box takes away.
"""

from ray import tune

SPACE = {
    "region.region": tune.choice(["whole", "lesion"]),
    "region.region_margin": tune.choice([0.1, 0.3, 0.6]),
}

ONLY_IF = {"region.region_margin": {"region.region": ["lesion"]}}
