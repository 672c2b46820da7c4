"""The commands after ``data``: their configurations and functions. Heavy modules are imported when a command runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from melanoma_dist import console
from melanoma_dist.config.data import AuditConfig, DescribeConfig, DownloadConfig, PrepareConfig
from melanoma_dist.config.places import check_data, check_writable, find_data
from melanoma_dist.errors import ConfigError

if TYPE_CHECKING:
    from melanoma_dist.data.sources.source import Source


def _download(config: DownloadConfig) -> None:
    from melanoma_dist.data.download.fetch import download

    download(config)


def _prepare(config: PrepareConfig) -> None:
    # Arrow's own allocator does not return freed memory: 30 MiB for the tables of 2,000 images, 40 MiB for 20,000.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    raw = config.images or config.raw
    if not raw.is_dir():
        field, remedy = ("images", "") if config.images else ("raw", "Fill one with `data download`, or name another.")
        raise ConfigError.of(field, raw, "no such folder", remedy or "Name the folder of your images.")
    check_writable("out", config.out)
    with console.phase("loading libraries"):
        from melanoma_dist.data.prepare import Request, plan, prepare

    request = Request(
        raw=raw,
        collections=config.years,
        sources=tuple(_described(config)),
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


def _described(config: PrepareConfig) -> Iterator[Source]:
    """The collections that files or flags describe."""
    from melanoma_dist.data.sources.described import DescribedSource
    from melanoma_dist.data.sources.description import parse_description, read_description

    for path in config.source:
        yield DescribedSource(read_description(path))
    if config.table is not None:
        columns = {"id": config.id, "label": config.label, "lesion": config.lesion, "patient": config.patient}
        labels = dict(entry.rpartition("=")[::2] for entry in config.map)
        tree = {
            "name": "own",
            "table": str(config.table.absolute()),
            "columns": {role: name for role, name in columns.items() if name is not None},
            "labels": labels,
        }
        yield DescribedSource(parse_description(tree, "the flags"))


def _describe(config: DescribeConfig) -> None:
    from melanoma_dist.data.sources.proposal import propose

    console.info(propose(config.table))


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
    required: str = ""
    """What the usage shows before the options."""
    positional: bool = False
    """Whether required fields are arguments without a flag."""


COMMANDS = {
    "download": Command(
        DownloadConfig,
        _download,
        "Downloaded bytes are kept in .part files. Run the same command again to resume.",
        "--years YEAR [YEAR ...]",
    ),
    "prepare": Command(
        PrepareConfig,
        _prepare,
        "Prepared images are kept. Run the same command again to resume.",
        "--years YEAR [YEAR ...] | --source FILE | --table FILE",
    ),
    "describe": Command(DescribeConfig, _describe, "Nothing was changed.", positional=True),
    "audit": Command(AuditConfig, _audit, "Nothing was changed."),
}
