"""The commands after ``data``: their configurations and functions. Heavy modules are imported when a command runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from melanoma_dist import console
from melanoma_dist.config.data import AuditConfig, DownloadConfig, PrepareConfig


def _download(config: DownloadConfig) -> None:
    from melanoma_dist.data.download.fetch import download

    download(config)


def _prepare(config: PrepareConfig) -> None:
    # Arrow's own allocator does not return freed memory: 30 MiB for the tables of 2,000 images, 40 MiB for 20,000.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
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
    from melanoma_dist.data.audit.checks import require
    from melanoma_dist.data.audit.inspection import inspect, show
    from melanoma_dist.data.audit.page import write_page

    inspection = inspect(config)
    show(inspection)
    if not inspection.stored.passed:  # the page needs the pixels, and corrupt ones cannot be decoded
        require(inspection.checks)
    write_page(inspection, config.html)
    console.info(f"page: {config.html}")
    require(inspection.checks)


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
