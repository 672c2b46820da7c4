"""The queue is bounded: what does not fit is refused at once, with a time to come back, and nothing leaks."""

from __future__ import annotations

import asyncio
import threading

import httpx
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from melanoma_dist.app.server.limits import Occupancy
from melanoma_dist.app.server.problems import Problem
from melanoma_dist.app.server.service import Service

from .conftest import form, lesion


def test_images_and_bytes_of_all_requests_are_bounded() -> None:
    occupancy = Occupancy(images=4, bytes_=100)
    with occupancy.request() as first:
        first.hold_images(3)
        first.hold_bytes(60)
        with occupancy.request() as second:
            second.hold_bytes(40)
            with pytest.raises(Problem) as problem, occupancy.request():
                pytest.fail("a fifth image was admitted")
            assert problem.value.status == 503
            with pytest.raises(Problem):
                second.hold_bytes(1)
        assert (occupancy.images, occupancy.bytes) == (3, 60)
    assert (occupancy.images, occupancy.bytes) == (0, 0)


def test_the_time_to_come_back_follows_the_measured_speed() -> None:
    waits = []
    for seconds in (0.001, 2.0, 100.0):
        occupancy = Occupancy(images=8, bytes_=100)
        for _ in range(50):
            occupancy.observe(1, seconds)
        with occupancy.request() as share:
            share.hold_images(8)
            with pytest.raises(Problem) as problem, occupancy.request():
                pass
        waits.append(int((problem.value.headers or {})["Retry-After"]))
    assert waits[0] == 1
    assert 15 <= waits[1] <= 20
    assert waits[2] == 60


def test_a_full_queue_refuses_and_recovers(app: FastAPI, service: Service) -> None:
    """The engine is held by another task meanwhile."""

    async def scenario() -> tuple[list[httpx.Response], httpx.Response]:
        gate = threading.Event()
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            hold = asyncio.create_task(service.engine.run(gate.wait))
            requests = [asyncio.create_task(client.post("/v1/predict", files=form(lesion(0)))) for _ in range(24)]
            done, _ = await asyncio.wait(requests, return_when=asyncio.FIRST_COMPLETED)
            assert all(task.result().status_code == 503 for task in done)
            await asyncio.sleep(0.5)
            gate.set()
            await hold
            responses = await asyncio.gather(*requests)
            return responses, await client.post("/v1/predict", files=form(lesion(0)))

    responses, later = asyncio.run(scenario())
    assert sorted({response.status_code for response in responses}) == [200, 503]
    assert sum(response.status_code == 200 for response in responses) == 16
    refused = next(response for response in responses if response.status_code == 503)
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert later.status_code == 200
    assert (service.occupancy.images, service.occupancy.bytes) == (0, 0)


def test_a_failed_request_gives_back_its_share(client: TestClient, service: Service) -> None:
    for content in (b"no form", b"x" * 9_000_000):
        client.post("/v1/predict", content=content, headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert (service.occupancy.images, service.occupancy.bytes) == (0, 0)
