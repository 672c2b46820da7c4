"""Train, from a checkout: `python launch.py --backbone inceptionresnetv2 --data DATA --gpus 8`."""

import sys

from melanoma_dist.cli import main

if __name__ == "__main__":
    sys.exit(main())
