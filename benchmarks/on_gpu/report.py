"""The rows of a run of ``gpu.py``: written at once, and read by the next run, which measures what is missing."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from melanoma_dist import console
from on_gpu.settings import FAIL, PASS, Row

_HEADER = ("section", "figure", "value", "remark")
_UNSHOWN = ("FAILED", "skipped")


class Report:
    """What was measured under the conditions of ``title``."""

    def __init__(self, title: str, out: Path | None) -> None:
        """``out`` is the folder of gpu.json and gpu.md."""
        self._title, self._out, self._start = title, out, time.monotonic()
        self._finished: list[str] = []
        self._rows: list[Row] = []
        path = None if out is None else out / "gpu.json"
        earlier: dict[str, Any] = json.loads(path.read_text()) if path is not None and path.is_file() else {}
        if earlier.get("title") == title:
            self._finished = earlier["finished"]
            self._rows = [Row(**row) for row in earlier["rows"] if row["section"] in self._finished]

    def has(self, name: str) -> bool:
        """Whether a part was measured to its end."""
        return name in self._finished

    def add(self, name: str, rows: Iterable[Row]) -> None:
        """Print and write the rows of a part as they come."""
        complete = True
        for row in rows:
            complete = complete and row.figure not in _UNSHOWN
            self._rows.append(replace(row, section=name))
            console.info(f"{time.monotonic() - self._start:4.0f} s | " + " | ".join(self._rows[-1].cells))
            self._write()
        if complete:
            self._finished.append(name)
            self._write()

    def print(self) -> None:
        """Print the table, and how many claims hold."""
        console.table(self._title, _HEADER, [row.cells for row in self._rows])
        console.info(self._summary())

    def _summary(self) -> str:
        passed, failed = (sum(row.value.startswith(f"{verdict}:") for row in self._rows) for verdict in (PASS, FAIL))
        unshown = [row.section for row in self._rows if row.figure in _UNSHOWN]
        more = f"; not shown to the end: {', '.join(unshown)}" if unshown else ""
        return f"{passed} claims hold, {failed} do not{more}"

    def _write(self) -> None:
        if self._out is None:
            return
        self._out.mkdir(parents=True, exist_ok=True)
        content = {"title": self._title, "finished": self._finished, "rows": [asdict(row) for row in self._rows]}
        (self._out / "gpu.json").write_text(json.dumps(content, indent=1) + "\n")
        lines = [_HEADER, ("---",) * len(_HEADER), *(row.cells for row in self._rows)]
        table = "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines)
        (self._out / "gpu.md").write_text(f"{self._title}\n\n{table}\n\n{self._summary()}\n")
