"""Uploads stay in memory and within their limits, whatever a client sends."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.formparsers import MultiPartParser
from starlette.testclient import TestClient

from ....unit.hostile import corrupted
from .conftest import Post, form, lesion

BOUNDARY = "b0undary"
TYPE = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def body(*files: bytes, name: str = "a.jpg") -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="images"; filename="{name}"\r\n\r\n'.encode()
    return b"".join(head + file + b"\r\n" for file in files) + f"--{BOUNDARY}--\r\n".encode()


@pytest.fixture
def no_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a temporary file was opened")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)  # what a spooled file becomes when it grows


@pytest.mark.usefixtures("no_temporary_files")
def test_a_large_upload_touches_no_disk(answers: Post) -> None:
    large = lesion(0) + bytes(5_000_000)  # decoders ignore what follows the image
    [answer] = answers(large)
    assert answer["error"] == ""


@pytest.mark.usefixtures("no_temporary_files")
def test_the_parser_of_the_framework_would_have_used_it(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    from melanoma_dist.app.server import uploads

    monkeypatch.setattr(uploads._Parser, "spool_max_size", MultiPartParser.spool_max_size)
    assert client.post("/v1/predict", files=form(lesion(0) + bytes(5_000_000))).status_code == 500


def test_a_request_above_the_limit_is_refused_before_and_while_it_arrives(client: TestClient) -> None:
    assert client.post("/v1/predict", files=form(bytes(9_000_000))).status_code == 413

    def chunks() -> Iterator[bytes]:  # without a length in the header
        yield body(b"")[:80]
        for _ in range(20):
            yield bytes(1_000_000)

    assert client.post("/v1/predict", content=chunks(), headers=TYPE).status_code == 413


def test_more_files_than_allowed_are_refused(client: TestClient) -> None:
    response = client.post("/v1/predict", files=form(*[lesion(0)] * 9))
    assert response.status_code == 400
    assert "8" in response.json()["detail"]


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (b"", TYPE),
        (b"no form", TYPE),
        (body(b"x")[:-9], TYPE),
        (body(b"x", b"y")[:-20], TYPE),
        (body(b"x"), {"Content-Type": "multipart/form-data"}),
        (body(b"x"), {"Content-Type": "multipart/form-data; boundary=" + "x" * 500}),
        (body(b"x"), {"Content-Type": "multipart/form-data; boundary=b0undary; charset=utf-7"}),
        (body(b"x").replace(b'name="images"', b""), TYPE),
        (body(b"x", name="a" * 100_000), TYPE),
        (body(b"x").replace(b'; filename="a.jpg"', b""), TYPE),
    ],
    ids=["empty", "text", "cut", "cut later", "no boundary", "other", "charset", "no name", "long name", "no file"],
)
def test_a_malformed_form_is_a_problem(client: TestClient, content: bytes, headers: dict[str, str]) -> None:
    response = client.post("/v1/predict", content=content, headers=headers)
    if response.status_code == 200:  # read as a form after all: its file is no image
        assert [image["error"] for image in response.json()["images"]] == ["not an image"]
    else:
        assert response.status_code == 400
        assert response.json()["detail"]


@pytest.mark.parametrize("kind", ["", "image/jpeg", "application/x-www-form-urlencoded", "application/json"])
def test_another_content_type_is_refused(client: TestClient, kind: str) -> None:
    assert client.post("/v1/predict", content=lesion(0), headers={"Content-Type": kind}).status_code == 415


def test_fuzzed_forms_get_an_answer_or_a_problem(client: TestClient) -> None:
    @settings(max_examples=60, deadline=None, derandomize=True, database=None)
    @given(corrupted(body(b"MEL", b"")) | st.binary(max_size=200))
    def fuzz(content: bytes) -> None:
        response = client.post("/v1/predict", content=content, headers=TYPE)
        assert response.status_code in (200, 400)
        assert response.json()

    fuzz()
