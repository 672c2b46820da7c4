"""What the server counts and measures, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Measurements:
    """The metrics of one server."""

    def __init__(self, queue: Callable[[], int]) -> None:
        """``queue()``: how many images wait or are predicted."""
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "melanoma_dist_requests", "Requests that use the model.", ["route", "status"], registry=self._registry
        )
        self._images = Counter("melanoma_dist_images", "Images by outcome.", ["outcome"], registry=self._registry)
        self._seconds = Histogram(
            "melanoma_dist_request_seconds", "Seconds of a request.", ["route"], buckets=_SECONDS,
            registry=self._registry,
        )  # fmt: skip
        self._batch = Histogram(
            "melanoma_dist_batch_images", "Images of a batch.", buckets=_IMAGES, registry=self._registry
        )
        self._batch_seconds = Histogram(
            "melanoma_dist_batch_seconds", "Seconds of a batch.", buckets=_SECONDS, registry=self._registry
        )
        Gauge("melanoma_dist_queue_images", "Images that wait or are predicted.", registry=self._registry).set_function(
            queue
        )

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def image(self, outcome: str) -> None:
        """Count an image: ``predicted``, ``explained`` or ``unreadable``."""
        self._images.labels(outcome).inc()

    def batch(self, images: int, seconds: float) -> None:
        """Count a batch."""
        self._batch.observe(images)
        self._batch_seconds.observe(seconds)

    def text(self) -> bytes:
        """All metrics in the format of Prometheus."""
        return generate_latest(self._registry)
