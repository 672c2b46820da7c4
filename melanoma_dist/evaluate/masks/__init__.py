"""The results of segmentation runs: masks of images that a fold has not seen."""
