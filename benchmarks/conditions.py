"""What stands beside every figure: the machine and the commit; and how a benchmark ends."""

from __future__ import annotations

import os
import platform
import subprocess  # nosec B404  # for git and for the program itself
import sys
from collections.abc import Callable
from pathlib import Path

from melanoma_dist import console
from melanoma_dist.errors import MelanomaDistError

_ROOT = Path(__file__).resolve().parents[1]


def machine() -> str:
    """Processor, usable cores and Python, in words."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.machine()
    return f"{processor}, {len(os.sched_getaffinity(0))} cores; Python {platform.python_version()}"


def commit() -> str:
    """The commit of the checkout, "-dirty" if it was changed since."""
    command = ["git", "-C", str(_ROOT), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603  # nosec B603  # git
        return done.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def launch(*flags: str) -> None:
    """Give the program a command, and end with its exit code where it fails."""
    command = [sys.executable, str(_ROOT / "launch.py"), *flags]
    code = subprocess.run(command).returncode  # noqa: S603  # nosec B603  # the program itself
    if code:
        sys.exit(code)


def ended(main: Callable[[], None]) -> None:
    """Run a benchmark; a mistake of the user ends it with one message."""
    try:
        main()
    except MelanomaDistError as error:
        console.error(str(error))
        sys.exit(error.exit_code)
