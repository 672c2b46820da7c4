"""The commands after ``data``: their configurations and functions. Heavy modules are imported when a command runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from melanoma_dist import console
from melanoma_dist.config.data import AuditConfig, DownloadConfig, PrepareConfig
from melanoma_dist.config.places import check_data, check_writable, find_data
from melanoma_dist.errors import ConfigError


def _download(config: DownloadConfig) -> None:
    from melanoma_dist.data.download.fetch import download

    download(config)


def _prepare(config: PrepareConfig) -> None:
    # Arrow's own allocator does not return freed memory: 30 MiB for the tables of 2,000 images, 40 MiB for 20,000.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    if not config.raw.is_dir():
        raise ConfigError.of("raw", config.raw, "no such folder", "Fill one with `data download`, or name another.")
    check_writable("out", config.out)
    with console.phase("loading libraries"):
        from melanoma_dist.data.prepare import Request, plan, prepare

    request = Request(
        raw=config.raw,
        collections=config.years,
        size=config.size,
        allow_missing=config.allow_missing,
        allow_incomplete_tables=config.allow_incomplete_tables,
        conflicts=config.conflicts,
        holdout=config.holdout,
        seed=config.seed,
    )
    if config.manifest_only:
        plan(request, config.out)
    else:
        prepare(request, config.out)


def _audit(config: AuditConfig) -> None:
    config = replace(config, data=config.data or find_data())
    check_data(config.data or "")
    with console.phase("loading libraries"):
        from melanoma_dist.data.audit.checks import require
        from melanoma_dist.data.audit.inspection import inspect, show
        from melanoma_dist.data.audit.page import write_page

    with console.phase("checking the data"):
        inspection = inspect(config)
    show(inspection)
    if not inspection.stored.passed:  # the page needs the pixels, and corrupt ones cannot be decoded
        require(inspection.checks)
    html = config.html or _beside(inspection.dataset.folder, config.data)
    write_page(inspection, html)
    console.info(f"page: {html}")
    require(inspection.checks)


def _beside(folder: Path, data: str | None) -> Path:
    """The place of the audit's page: beside the user's data folder, if that can be written."""
    page = f"{folder.resolve().name}-audit.html"
    own = data is not None and data != "demo" and "://" not in data
    parent = folder.resolve().parent
    return parent / page if own and os.access(parent, os.W_OK) else Path(page)


@dataclass(frozen=True)
class Command:
    """A command after ``data``."""

    config: type
    run: Callable[[Any], None]
    remains: str
    """Message after an interrupt: what is on the disk, and how to resume."""


COMMANDS = {
    "download": Command(
        DownloadConfig, _download, "Downloaded bytes are kept in .part files. Run the same command again to resume."
    ),
    "prepare": Command(PrepareConfig, _prepare, "Prepared images are kept. Run the same command again to resume."),
    "audit": Command(AuditConfig, _audit, "Nothing was changed."),
}
