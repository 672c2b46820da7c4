"""Bounds what all requests hold together: images in the queue and bytes in memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from melanoma_dist.app.server.problems import Problem

_MAX_WAIT_S = 60


class Occupancy:
    """How many images and bytes the requests hold that are being answered. Used on the event loop alone."""

    def __init__(self, images: int, bytes_: int) -> None:
        """The most images, and the most bytes of uploads."""
        self.images = self.bytes = 0
        self._most_images, self._most_bytes = images, bytes_
        self._seconds_per_image = 0.1

    def observe(self, images: int, seconds: float) -> None:
        """Learn how long images take, for the time after which a refused client may try again."""
        self._seconds_per_image += 0.2 * (seconds / images - self._seconds_per_image)

    @contextmanager
    def request(self) -> Iterator[Share]:
        """Hold a share for the time of a request. Raises Problem (503) if the queue is full."""
        share = Share(self)
        share.hold_images(1)
        try:
            yield share
        finally:
            self.images -= share.images
            self.bytes -= share.bytes

    def refuse_if_full(self) -> None:
        """Raise Problem (503) for more images or bytes than all requests may hold together."""
        if self.images > self._most_images or self.bytes > self._most_bytes:
            raise Problem(
                503, "queue_full", "The server is busy: its queue is full.", {"Retry-After": str(self._wait())}
            )

    def _wait(self) -> int:
        return min(_MAX_WAIT_S, max(1, math.ceil(self.images * self._seconds_per_image)))


class Share:
    """What one request holds."""

    def __init__(self, all_requests: Occupancy) -> None:
        self.images = self.bytes = 0
        self._all = all_requests

    def hold_images(self, count: int) -> None:
        """Hold so many images in all. Raises Problem (503) if the queue is full."""
        self._all.images += count - self.images
        self.images = count
        self._all_or_nothing()

    def hold_bytes(self, count: int) -> None:
        """Hold so many more bytes. Raises Problem (503) if memory is full."""
        self._all.bytes += count
        self.bytes += count
        self._all.refuse_if_full()

    def _all_or_nothing(self) -> None:
        try:
            self._all.refuse_if_full()
        except Problem:
            self._all.images -= self.images
            self.images = 0
            raise
