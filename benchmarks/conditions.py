"""Shared by all benchmarks: machine and commit, which every result states, and how a benchmark runs."""

from __future__ import annotations

import os
import platform
import subprocess  # nosec B404  # for git and for the program itself
import sys
from collections.abc import Callable
from pathlib import Path

from melanoma_dist import console
from melanoma_dist.errors import ConfigError, MelanomaDistError

_ROOT = Path(__file__).resolve().parents[1]


def machine() -> str:
    """Describe the processor, the usable cores and Python."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.machine()
    return f"{processor}, {len(os.sched_getaffinity(0))} cores; Python {platform.python_version()}"


def commit() -> str:
    """Return the commit of the checkout, with "-dirty" if it has local changes."""
    command = ["git", "-C", str(_ROOT), "describe", "--always", "--dirty"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603  # nosec B603  # git
        return result.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def real_images() -> Path:
    """Return the folder of real ISIC images. Raises ConfigError where none is named."""
    place = os.environ.get("MELANOMA_DIST_ISIC")
    if not place:
        raise ConfigError("MELANOMA_DIST_ISIC: names no folder with real ISIC images. Set it to one.")
    return Path(place)


def launch(*flags: str) -> None:
    """Run a command of the program; exit with its code if it fails."""
    command = [sys.executable, str(_ROOT / "launch.py"), *flags]
    code = subprocess.run(command).returncode  # noqa: S603  # nosec B603  # the program itself
    if code:
        sys.exit(code)


def run_benchmark(main: Callable[[], None]) -> None:
    """Run a benchmark; print one message for an error of the user and exit with its code."""
    try:
        main()
    except MelanomaDistError as error:
        console.error(str(error))
        sys.exit(error.exit_code)
