"""The application in this process, on a really trained run, with real decoders and the real engine."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image
from starlette.testclient import TestClient

from melanoma_dist.app.server.api import build_app
from melanoma_dist.app.server.service import Service, start_service
from melanoma_dist.config.serve import ServeConfig
from melanoma_dist.data.lesion import draw_lesion, photograph
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.inference.trained_run import open_trained_run

from ...evaluate.holdout.conftest import trained
from ..conftest import _threads, data

__all__ = ["_threads", "data"]

TOKEN = "a-token-of-24-characters"  # noqa: S105  # of a server that lives for a test


def lesion(number: int = 0, kind: str = "MEL", suffix: str = "JPEG") -> bytes:
    """A drawn photograph that no run has seen."""
    rng = np.random.default_rng([99, number])
    buffer = io.BytesIO()
    Image.fromarray(photograph(rng, draw_lesion(rng, kind))).save(buffer, suffix)
    return buffer.getvalue()


def form(*images: bytes) -> list[tuple[str, tuple[str, bytes, str]]]:
    """The files of a request."""
    return [("images", (f"{at}.jpg", image, "image/jpeg")) for at, image in enumerate(images)]


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, data: Dataset) -> Path:
    """A run whose last features form a map of 2 x 2."""
    return trained(tmp_path_factory.mktemp("runs"), data, image_size=64)


@pytest.fixture(scope="package")
def settings(finished: Path) -> ServeConfig:
    return ServeConfig(finished, decode_threads=1, max_files=8, max_megabytes=8, queue=16)


@pytest.fixture(scope="package")
def service(settings: ServeConfig) -> Iterator[Service]:
    started = start_service(open_trained_run(settings.run), settings)
    yield started
    started.close()


@pytest.fixture(scope="package")
def app(service: Service, settings: ServeConfig) -> FastAPI:
    return build_app(service, settings, None)


@pytest.fixture
def client(app: FastAPI) -> TestClient:
    return TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False)


@pytest.fixture
def guarded(service: Service, settings: ServeConfig) -> TestClient:
    """The same server behind a token."""
    app = build_app(service, settings, TOKEN)
    return TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False)


Post = Callable[..., list[dict[str, object]]]


@pytest.fixture
def answers(client: TestClient) -> Post:
    """Predict images and return their answers."""

    def post(*images: bytes) -> list[dict[str, object]]:
        response = client.post("/v1/predict", files=form(*images))
        assert response.status_code == 200, response.text
        return list(response.json()["images"])

    return post
