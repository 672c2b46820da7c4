"""The licences of what is downloaded: always shown, and accepted once where they forbid commercial use."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from melanoma_dist import console
from melanoma_dist.data.download.catalogue import CITATIONS, Item, Licence
from melanoma_dist.data.download.partial_file import write_json
from melanoma_dist.errors import ConfigError, DataError
from melanoma_dist.storage.untrusted import read_json

ACCEPTED = "licenses.json"
"""In RAW: which licence of which year was accepted, and when. Not by whom."""


def show_licences(items: Sequence[Item]) -> None:
    """Print the licence of each year's parts, and the papers to cite."""
    parts: dict[tuple[int, Licence], list[str]] = {}
    for item in items:
        known = parts.setdefault((item.year, item.licence), [])
        known += [item.part] * (item.part not in known)
    rows = [(year, licence.short, ", ".join(known), licence.url) for (year, licence), known in parts.items()]
    console.table("Licences", ("year", "licence", "of its", "text"), rows)
    citations = [(year, paper) for year in sorted({item.year for item in items}) for paper in CITATIONS[year]]
    console.table("Please cite", ("year", "paper"), citations)


def require_acceptance(raw: Path, items: Sequence[Item], accept: bool) -> None:
    """See that the non-commercial licences of ``items`` are accepted: now, or as RAW/licenses.json says, earlier.

    Raises ConfigError where they are not, DataError for a record that cannot be read.
    """
    accepted = _read(raw / ACCEPTED)
    open_ = {
        str(item.year): item.licence
        for item in items
        if item.licence.non_commercial and accepted.get(str(item.year), {}).get("licence") != item.licence.short
    }
    if not open_:
        return
    if not accept:
        told = ", ".join(f"{year} {licence.short} ({licence.url})" for year, licence in open_.items())
        raise ConfigError(
            f"--accept-license is missing: {told} allow no commercial use. Read the licences and give the same command "
            "with --accept-license, or choose --years and --parts that are CC0 (2017, and the masks of 2018)."
        )
    now = datetime.now(UTC).isoformat(timespec="seconds")
    new = {year: {"licence": each.short, "url": each.url, "accepted": now} for year, each in open_.items()}
    raw.mkdir(parents=True, exist_ok=True)
    write_json(raw / ACCEPTED, accepted | new)


def _read(path: Path) -> dict[str, dict[str, Any]]:
    if not path.exists():
        return {}
    try:
        tree = read_json(path)
        return {str(year): dict(entry) for year, entry in tree.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: is no record of accepted licences ({error}). Delete it and accept again.") from error
