"""The folder of an export: it appears whole, with the hash of every file, or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from melanoma_dist import console
from melanoma_dist.config.export import check_new_folder
from melanoma_dist.errors import ConfigError
from melanoma_dist.storage.atomic import MANIFEST, sha256
from melanoma_dist.storage.locks import lock_folder


def publish(folder: Path, least: int, write: Callable[[Path], None]) -> None:
    """Create a folder: ``write`` puts files into an empty one beside it, which is then renamed.

    Whatever ``write`` raises removes all of it. Raises ConfigError if the folder exists, if the disk has no room for
    ``least`` bytes, or if another command is exporting to a folder of the same parent.
    """
    check_new_folder(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # PyTorch's own writer ends the process on a full disk.
    if (usage := shutil.disk_usage(folder.parent)).total and usage.free < least:
        rule = f"the export writes at least {console.size(least)}, and {console.size(usage.free)} are free there"
        raise ConfigError.of("out", folder, rule, "Make room, or name a folder on a larger disk.")
    busy = ConfigError.of("out", folder, "another command is exporting to a folder beside it", "Wait for it.")
    with lock_folder(folder.parent, busy):
        aside = folder.with_name(f".{folder.name}.export")
        shutil.rmtree(aside, ignore_errors=True)  # of an export that was killed
        try:
            aside.mkdir()
            write(aside)
            _seal(aside)
            check_new_folder(folder)
            os.rename(aside, folder)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise


def _seal(folder: Path) -> None:
    """Flush all files to the disk and write their hashes into ``manifest.json``."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    hashes = {path.relative_to(folder).as_posix(): sha256(path) for path in files}
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps({"files": hashes}, indent=1) + "\n")
    for path in (*files, manifest):
        with path.open("rb") as file:
            os.fsync(file.fileno())
