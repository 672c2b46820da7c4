"""Train, from a checkout: `python launch.py --backbone inceptionresnetv2 --data DATA --gpus 8`."""

import sys

try:
    from melanoma_dist.cli import main
except ModuleNotFoundError as error:
    print(
        f"error: this Python ({sys.executable}) has no {error.name}: it is not the environment of this program. "
        "`make .venv/ready` sets one up here, and `source .venv/bin/activate` makes it yours.",
        file=sys.stderr,
    )
    sys.exit(2)

if __name__ == "__main__":
    sys.exit(main())
