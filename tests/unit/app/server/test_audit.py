"""A line per request: hash, model and outcome, and nothing that identifies a person."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
from starlette.testclient import TestClient

from melanoma_dist.app.server.api import build_app
from melanoma_dist.app.server.audit import Audit
from melanoma_dist.app.server.service import Service
from melanoma_dist.config.serve import ServeConfig

from .conftest import TOKEN, form, lesion


@pytest.fixture
def lines(service: Service, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    written: list[str] = []
    monkeypatch.setattr(service, "_audit", Audit("fingerprint", written.append))
    return written


def test_a_request_leaves_one_line(guarded: TestClient, lines: list[str]) -> None:
    header = {"Authorization": f"Bearer {TOKEN}"}
    files = [("images", ("Jane Doe 1950.jpg", lesion(0), "image/jpeg")), ("images", ("b.jpg", b"text", "image/jpeg"))]
    guarded.post("/v1/predict", files=files, headers=header)
    [line] = lines
    entry: dict[str, Any] = json.loads(line)
    assert entry["model"] == "fingerprint"
    assert (entry["route"], entry["status"]) == ("/v1/predict", 200)
    assert entry["images"] == [
        {"sha256": hashlib.sha256(lesion(0)).hexdigest(), "outcome": "predicted"},
        {"sha256": hashlib.sha256(b"text").hexdigest(), "outcome": "not an image"},
    ]
    for secret in ("Jane", "Doe", TOKEN, "testclient"):
        assert secret not in line


def test_a_refused_request_leaves_its_reason(client: TestClient, lines: list[str]) -> None:
    client.post("/v1/predict", content=b"x", headers={"Content-Type": "text/plain"})
    client.post("/v1/explain", files=form(b"x"))
    first, second = map(json.loads, lines)
    assert (first["status"], first["images"]) == (415, [])
    assert "multipart" in first["problem"]
    assert second["status"] == 422
    assert second["images"][0]["outcome"] == "not an image"


def test_only_requests_that_use_the_model_are_audited(client: TestClient, lines: list[str]) -> None:
    for path in ("/", "/v1/model", "/v1/health", "/metrics"):
        client.get(path)
    assert lines == []


def test_it_can_be_turned_off(
    service: Service, settings: ServeConfig, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(service, "_audit", None)
    client = TestClient(build_app(service, replace(settings, audit=False), None), base_url="http://127.0.0.1")
    assert client.post("/v1/predict", files=form(lesion(0))).status_code == 200
    assert capfd.readouterr().out == ""
