"""The folder of a run: its configuration, what it was made with, and the refusal to mix two runs in one folder."""

from __future__ import annotations

import datetime
import errno
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess  # nosec B404  # for git alone
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from melanoma_dist import __version__
from melanoma_dist.config.run import RunConfig, nested
from melanoma_dist.data.folds import read_folds
from melanoma_dist.data.manifest import Dataset, write_table
from melanoma_dist.errors import ConfigError, DataError
from melanoma_dist.storage import atomic
from melanoma_dist.storage.untrusted import read_json

CONCLUDE_AGAIN = (
    "Bring the file back, or delete summary.json and give the training command again: it computes the figures anew "
    "from the folds' own predictions, and trains nothing."
)
"""What to do where the files of a finished run do not agree."""
_LIBRARIES = (
    "torch", "torchvision", "timm", "ray", "nvidia-dali-cuda130", "numpy", "pandas", "scikit-learn", "pyarrow",
    "pillow",
)  # fmt: skip


@dataclass(frozen=True)
class RunFolder:
    """A run on disk."""

    path: Path
    identity: dict[str, Any]

    @property
    def folds(self) -> Path:
        """Which fold validates which image."""
        return self.path / "folds.parquet"

    @property
    def predictions(self) -> Path:
        """What the folds predict for the images they did not train on."""
        return self.path / "predictions.parquet"

    @property
    def summary(self) -> Path:
        """The figures, written last: where it is, the run is finished."""
        return self.path / "summary.json"

    @property
    def decision_rules(self) -> Path:
        """Calibrators and operating points, decided on the predictions."""
        return self.path / "decision_rules.json"

    @property
    def concluded(self) -> tuple[Path, Path]:
        """The files whose hashes the summary keeps."""
        return self.predictions, self.decision_rules

    @property
    def report(self) -> Path:
        """The figures for people."""
        return self.path / "report.html"

    def finished(self) -> bool:
        """Whether the run is complete."""
        return self.summary.is_file()


def trainings(config: RunConfig, folder: RunFolder) -> list[tuple[RunConfig, Path]]:
    """The trainings of a run, one for each of its seeds, and the folder of each one's folds. The first is the run's."""
    seeds = range(config.seed, config.seed + config.repeats)
    return [
        (replace(config, seed=seed, repeats=1), folder.path if seed == config.seed else folder.path / f"seed-{seed}")
        for seed in seeds
    ]


def locate_run(config: RunConfig, dataset: Dataset) -> RunFolder:
    """Where the run of a configuration lies or would lie; nothing is made."""
    identity = identity_of(config, dataset)
    return RunFolder(config.runs / (config.name or _name(config, identity)), identity)


def open_run(folder: RunFolder, config: RunConfig, folds: pd.DataFrame) -> None:
    """Make the run's folder, or open the one that the same configuration made before.

    Raises ConfigError when the folder cannot be written or holds another run, with the fields that differ.
    """
    record = folder.path / "record.json"
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        if record.is_file():
            refuse_another(folder.path, read_identity(record), folder.identity)
            _refuse_other_folds(folder, folds)
            if not folder.finished():
                refuse_other_makers(folder.path, record, config.fault_tolerance.accept_changes)
            return
        for _, place in trainings(config, folder):
            place.mkdir(exist_ok=True)
            write_table(place / folder.folds.name, folds)
        atomic.write_text(folder.path / "config.yaml", yaml.safe_dump(nested(config), sort_keys=False))
        write_json(record, {"identity": folder.identity, "made_with": made_with(), "begun": now()})
    except OSError as error:
        rule = f"the run's folder cannot be written ({error.strerror or error})"
        raise ConfigError.of("runs", config.runs, rule, "Name a folder that can be.") from error


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a file, whole or not at all; NaN is refused, for JSON has none."""
    atomic.write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def hashes_of(*files: Path) -> dict[str, str]:
    """The sha256 of files, by name: what ``summary.json`` and ``evaluation.json`` keep of what lies beside them."""
    return {path.name: _sha256(path) for path in files}


def check_untouched(teller: Path, told: object, files: Sequence[Path], remedy: str) -> None:
    """Raise DataError, with the remedy, unless ``files`` are those whose hashes ``told``, the file ``teller`` tells."""
    try:
        found = hashes_of(*files)
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror}). {remedy}") from error
    kept = told if isinstance(told, Mapping) else {}
    changed = [name for name, digest in found.items() if kept.get(name) != digest]
    if changed:
        verb = "is" if len(changed) == 1 else "are"
        raise DataError(
            f"{teller.parent}: {' and '.join(changed)} {verb} not what {teller.name} was written with: damaged, "
            f"edited, or left by an earlier version of this program. {remedy}"
        )


def _sha256(path: Path) -> str:
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no regular file", str(path))  # a pipe would never end
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def made_with() -> dict[str, Any]:
    """Code, libraries and machine of this process."""
    return {
        "version": __version__,
        "commit": _commit(),
        "code": _code_fingerprint(),
        "python": platform.python_version(),
        "libraries": {name: _installed(name) for name in _LIBRARIES},
        "machine": {"system": platform.platform(), "cores": os.cpu_count()},
    }


def now() -> str:
    """This moment, UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def identity_of(config: RunConfig, dataset: Dataset) -> dict[str, Any]:
    """Everything the result of a run depends on: its configuration, data and weights."""
    identity = {**config.identity(), "data": dataset.fingerprint}
    if config.model.weights not in ("imagenet", "none"):
        try:
            identity["model.weights"] = f"sha256:{_sha256(Path(config.model.weights))}"
        except OSError as error:
            rule = f"is neither imagenet, none nor a file that can be read ({error.strerror})"
            raise ConfigError.of("weights", config.model.weights, rule) from error
    return identity


def _name(config: RunConfig, identity: dict[str, Any]) -> str:
    """Backbone, data and eight digits: the same command finds its run again."""
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
    data = Path(config.data.data or "data").name
    return "-".join(part.replace("/", "_") for part in (config.model.backbone, data, digest))


def read_identity(record: Path) -> dict[str, Any]:
    """What a folder's record says it holds. Raises DataError for a damaged one."""
    try:
        return dict(read_json(record)["identity"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{record}: is damaged ({error!r}). Choose another --name.") from error


def refuse_another(path: Path, found: dict[str, Any], identity: dict[str, Any]) -> None:
    """Raise ConfigError, with the fields that differ, unless what a folder holds is what is wanted there."""
    different = [
        f"{key}: {found.get(key)!r} there, {identity.get(key)!r} now"
        for key in sorted({*found, *identity})
        if found.get(key) != identity.get(key)
    ]
    if different:
        rule = f"{path} holds another run ({'; '.join(different)})"
        raise ConfigError.of("name", path.name, rule, "Choose another name.")


def _refuse_other_folds(folder: RunFolder, folds: pd.DataFrame) -> None:
    if not read_folds(folder.folds).equals(folds):
        raise ConfigError.of(
            "name", folder.path.name, f"the folds in {folder.folds} are not those made now of the same data and seed",
            "Another version of it made them. Choose another name.",
        )  # fmt: skip


def refuse_other_makers(path: Path, record: Path, accepted: bool) -> None:
    """Raise ConfigError, field by field, where other code or libraries would finish a run; ``accepted``: note them."""
    here = made_with()
    try:
        told = read_json(record)
        makers = [told.get("made_with"), *(told.get("gone_on_with") or [])]
        before, after = _makers(makers[-1]), _makers(here)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{record}: is damaged ({error!r}). Choose another --name.") from error
    different = [f"{key}: {before.get(key)} then, {after[key]} now" for key in after if before.get(key) != after[key]]
    if not different:
        return
    if not accepted:
        rule = f"{path} was begun with other code or libraries ({'; '.join(different)})"
        remedy = "Go on with those, or give --accept-changes: the end is then no longer that of one program."
        raise ConfigError.of("name", path.name, rule, remedy)
    write_json(record, {**told, "gone_on_with": [*makers[1:], here]})


def _makers(made: Any) -> dict[str, Any]:
    """What of ``made_with`` a result may depend on, flat; a commit says no more than the hash of the code."""
    made = made if isinstance(made, Mapping) else {}
    flat = {key: made.get(key) for key in ("version", "code", "python")}
    return flat | dict(made.get("libraries") or {})


def _commit() -> str | None:
    """The commit of the code, with a + where it was changed since; None outside a checkout."""
    try:
        return _git("rev-parse", "HEAD") + ("+" if _git("status", "--porcelain", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*command: str) -> str:
    """What git says of the code. Raises FileNotFoundError without git, SubprocessError where it refuses or hangs."""
    git = shutil.which("git")
    if git is None:
        raise FileNotFoundError("git")
    done = subprocess.run(  # noqa: S603  # nosec B603  # by its full path, with words that stand above
        [git, *command], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True
    )
    return done.stdout.strip()


def _code_fingerprint() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
