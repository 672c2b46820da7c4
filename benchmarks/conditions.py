"""What stands beside every figure: the machine and the commit; and how a benchmark ends."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from melanoma_dist.errors import MelanomaDistError
from melanoma_dist.log import complain


def machine() -> str:
    """Processor, usable cores and Python, in words."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.machine()
    return f"{processor}, {len(os.sched_getaffinity(0))} cores; Python {platform.python_version()}"


def commit() -> str:
    """The commit of the checkout, "-dirty" if it was changed since."""
    root = Path(__file__).resolve().parents[1]
    command = ["git", "-C", str(root), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def ended(main: Callable[[], None]) -> None:
    """Run a benchmark; a mistake of the user ends it with one message."""
    try:
        main()
    except MelanomaDistError as error:
        complain(str(error))
        sys.exit(error.exit_code)
