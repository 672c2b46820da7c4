"""A line of JSON for each request that uses the model: what was asked and what came of it, without any image.

{"time": ..., "request": ..., "route": "/v1/predict", "status": 200, "seconds": 0.31, "model": FINGERPRINT,
 "images": [{"sha256": ..., "outcome": "predicted"}, {"sha256": ..., "outcome": "not an image"}]}
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from melanoma_dist import console

PREDICTED = "predicted"
EXPLAINED = "explained"


class Audit:
    """Writes the lines."""

    def __init__(self, fingerprint: str, write: Callable[[str], None] = console.info) -> None:
        self._fingerprint, self._write = fingerprint, write
        self._lock = threading.Lock()

    def record(
        self, request: str, route: str, status: int, seconds: float, images: Sequence[Mapping[str, str]], problem: str
    ) -> None:
        """Write the line of a request. ``problem``: why the whole request was refused; empty if it was not."""
        line: dict[str, object] = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "request": request,
            "route": route,
            "status": status,
            "seconds": round(seconds, 3),
            "model": self._fingerprint,
            "images": list(images),
        }
        if problem:
            line["problem"] = problem
        with self._lock:
            self._write(json.dumps(line))
