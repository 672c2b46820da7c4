"""One unit in training."""
