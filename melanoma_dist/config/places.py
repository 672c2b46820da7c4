"""The folders that commands use where no flag names another, and checks of folders before anything heavy is loaded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from melanoma_dist import console
from melanoma_dist.errors import ConfigError, DataError, nearest

RAW = Path("data/raw")
"""Where `data download` writes and `data prepare` reads."""
PREPARED = Path("data/prepared")
"""Where `data prepare` writes and trainings read."""
SUMMARY = "summary.json"
DECISION_RULES = "decision_rules.json"
"""The file of a run that is written last: a run that has it is finished."""
DATA_VARIABLE = "MELANOMA_DIST_DATA"
NO_DATA = "Prepare one with `data prepare`, or try the program without any data: `--data demo`."


def find_data() -> str:
    """The data set of a command without ``--data``: ``$MELANOMA_DIST_DATA``, else ``data/prepared`` if it exists."""
    if chosen := os.environ.get(DATA_VARIABLE):
        return str(expanded(DATA_VARIABLE, chosen))
    if PREPARED.is_dir():
        return str(PREPARED)
    raise ConfigError(
        f"--data: is missing, and there is no {PREPARED} here. Either prepare the challenges' images "
        f"(`{console.program()} data prepare --raw RAW --years 2017 2018 2019`), or name a prepared data set with "
        f"--data DATA or {DATA_VARIABLE}, or try synthetic images: --data demo."
    )


def check_data(source: str) -> None:
    """Raise DataError for a data set that cannot exist: its folder does not."""
    if source != "demo" and "://" not in source and not exists(Path(source)):
        field = DATA_VARIABLE if source == os.environ.get(DATA_VARIABLE) else "--data"
        raise DataError(f"{field} {source}: no such folder. {NO_DATA}")


def check_runs(folders: Sequence[Path]) -> None:
    """Raise ConfigError, with similar names, for runs whose folders do not exist."""
    for folder in folders:
        if not exists(folder):
            near = nearest(folder.name, [path.name for path in _entries(folder.parent)])
            there = (
                f"Similar names there: {near}."
                if near
                else "Runs are folders in `runs`, or where a training had its --runs."
            )
            raise ConfigError(f"{folder}: is not the folder of a run: there is no such folder. {there}")


def check_inputs(paths: Sequence[Path]) -> None:
    """Raise ConfigError, with similar names, for images, folders and tables that do not exist."""
    for path in paths:
        if not exists(path):
            if path.is_symlink():
                raise ConfigError(f"{path}: is a link that leads nowhere. Correct the link, or leave it out.")
            near = nearest(path.name, [other.name for other in _entries(path.parent)])
            there = f" Similar names there: {near}." if near else ""
            raise ConfigError(f"{path}: there is no such file or folder.{there}")


def check_writable(field: str, folder: Path) -> None:
    """Raise ConfigError for a folder that cannot be created or written: a parent is a file, or closed."""
    existing = next(place for place in (folder, *folder.absolute().parents) if exists(place))
    if not existing.is_dir():
        raise ConfigError.of(field, folder, f"cannot be written ({existing} is a file)", "Name another folder.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError.of(field, folder, f"cannot be written (no permission in {existing})", "Name another folder.")


def exists(path: Path) -> bool:
    """Whether something is there. Raises ConfigError where the system does not say: a closed folder, a long name."""
    try:
        return path.exists()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be opened ({error.strerror}). Name another path, or change that.") from error


def expanded(field: str, path: str | Path) -> Path:
    """Expand a leading ``~``, which shells leave in ``--out=~/x``. Raises ConfigError for an unknown user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        remedy = "Write the whole path; ./~ is a folder of that name."
        raise ConfigError.of(field, path, "the home folder is not known", remedy) from None


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []
