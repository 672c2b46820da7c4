"""The licences of the files: always shown, and accepted once if they forbid commercial use."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from melanoma_dist import console
from melanoma_dist.data.download.catalogue import CITATIONS, Licence, OfficialFile
from melanoma_dist.data.download.partial_file import write_json
from melanoma_dist.errors import ConfigError, DataError
from melanoma_dist.storage.untrusted import read_json

ACCEPTANCES = "licenses.json"
"""In RAW: the accepted licence of each year, and when it was accepted. Not by whom."""


def show_licences(files: Sequence[OfficialFile]) -> None:
    """Print the licence of each year's parts, and the papers to cite."""
    parts: dict[tuple[int, Licence], list[str]] = {}
    for file in files:
        known = parts.setdefault((file.year, file.licence), [])
        known += [file.part] * (file.part not in known)
    rows = [(year, licence.short, ", ".join(known), licence.url) for (year, licence), known in parts.items()]
    console.table("Licences", ("year", "licence", "of its", "text"), rows)
    citations = [(year, paper) for year in sorted({file.year for file in files}) for paper in CITATIONS[year]]
    console.table("Please cite", ("year", "paper"), citations)


def require_acceptance(raw: Path, files: Sequence[OfficialFile], accept: bool) -> None:
    """Require that the non-commercial licences of ``files`` are accepted, now or earlier (RAW/licenses.json).

    Raises ConfigError if they are not, DataError if the record cannot be read.
    """
    accepted = _read_acceptances(raw / ACCEPTANCES)
    pending = {
        str(file.year): file.licence
        for file in files
        if file.licence.non_commercial and accepted.get(str(file.year), {}).get("licence") != file.licence.short
    }
    if not pending:
        return
    if not accept:
        licences = ", ".join(f"{year} {licence.short} ({licence.url})" for year, licence in pending.items())
        raise ConfigError(
            f"--accept-license is missing: {licences} forbid commercial use. Read the licences, then run the same "
            "command with --accept-license, or choose --years and --parts that are CC0 (2017, and the masks of 2018)."
        )
    now = datetime.now(UTC).isoformat(timespec="seconds")
    new = {year: {"licence": each.short, "url": each.url, "accepted": now} for year, each in pending.items()}
    raw.mkdir(parents=True, exist_ok=True)
    write_json(raw / ACCEPTANCES, accepted | new)


def _read_acceptances(path: Path) -> dict[str, dict[str, object]]:
    if not path.exists():
        return {}
    try:
        return {str(year): dict(entry) for year, entry in read_json(path).items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: cannot be read as accepted licences ({error}). Delete it and accept them again."
        ) from error
