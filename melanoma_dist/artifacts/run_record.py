"""``record.json``: the identity of a run, and its environment: code, libraries and machine. ``sweep.json`` is alike."""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import os
import platform
import shutil
import subprocess  # nosec B404  # for git alone
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import melanoma_dist
from melanoma_dist.artifacts.records import parse_record, read_record, write_record

RECORD = "record.json"
_PACKAGE = Path(melanoma_dist.__file__).parent
Scalar = str | int | float | bool | None
Identity = dict[str, Scalar]
"""Everything the result of a run depends on: dotted fields of its configuration, data fingerprint, hash of weights."""
_REMEDY = "Bring the file back. Choose another --name to train anew."
_LIBRARIES = (
    "torch", "torchvision", "timm", "ray", "nvidia-dali-cuda130", "numpy", "pandas", "scikit-learn", "pyarrow",
    "pillow",
)  # fmt: skip
_EARLIER_NAMES = {"made_with": "environment", "begun": "started", "gone_on_with": "resumed_with"}


@dataclass(frozen=True)
class Machine:
    """Operating system and CPU cores."""

    system: str
    cores: int | None


@dataclass(frozen=True)
class Environment:
    """Code, libraries and machine of a process."""

    version: str
    """Of this program."""
    commit: str | None
    """Of the code, with a + where files were changed since; None outside a checkout."""
    code: str
    """The sha256 of the package's files."""
    python: str
    libraries: dict[str, str | None]
    """None: not installed."""
    machine: Machine

    def differences(self, other: Environment) -> list[str]:
        """What may change a result, sentence by sentence; a commit says no more than the hash of the code."""
        before, after = self.versions(), other.versions()
        return [f"{key}: {before.get(key)} then, {after[key]} now" for key in after if before.get(key) != after[key]]

    def versions(self) -> dict[str, str | None]:
        """The versions of the program, its code, Python and the libraries, by name."""
        return {"version": self.version, "code": self.code, "python": self.python, **self.libraries}


@dataclass(frozen=True)
class RunRecord:
    """What is known of a run, or a sweep, when it starts."""

    identity: Identity
    environment: Environment
    started: str
    """UTC, ISO 8601."""
    resumed_with: tuple[Environment, ...] = ()
    """Other environments that the user accepted on resuming, in their order."""


def write_run_record(path: Path, record: RunRecord) -> None:
    """Write ``record.json`` of a run, or ``sweep.json`` of a sweep."""
    write_record(path, record)


def read_run_record(path: Path) -> RunRecord:
    """Read what ``write_run_record`` wrote. Raises DataError for a file that is missing or corrupt."""
    return read_record(path, RunRecord, _REMEDY, upgrade=_upgrade)


def parse_run_record(path: Path, content: bytes) -> RunRecord:
    """The record in the content of a ``record.json`` that lies elsewhere, such as in a mirror."""
    return parse_record(path, content, RunRecord, _REMEDY, upgrade=_upgrade)


def _upgrade(tree: dict[str, Any]) -> dict[str, Any]:
    """With the field names of today: the run of an earlier version can be resumed and finalized again."""
    return {_EARLIER_NAMES.get(name, name): value for name, value in tree.items()}


def current_environment() -> Environment:
    """The environment of this process."""
    return Environment(
        melanoma_dist.__version__,
        _commit(),
        _code_fingerprint(),
        platform.python_version(),
        {name: _installed(name) for name in _LIBRARIES},
        Machine(platform.platform(), os.cpu_count()),
    )


def now() -> str:
    """The time, UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _commit() -> str | None:
    """The commit of the code, with a + where it was changed since; None outside a checkout."""
    try:
        return _git("rev-parse", "HEAD") + ("+" if _git("status", "--porcelain", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*command: str) -> str:
    """Output of a git command. Raises FileNotFoundError without git, SubprocessError where it refuses or hangs."""
    git = shutil.which("git")
    if git is None:
        raise FileNotFoundError("git")
    done = subprocess.run(  # noqa: S603  # nosec B603  # by its full path, with constant arguments
        [git, *command], cwd=_PACKAGE, capture_output=True, text=True, timeout=10, check=True
    )
    return done.stdout.strip()


def _code_fingerprint() -> str:
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
