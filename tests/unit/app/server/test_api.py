"""The API answers as `predict` does, whatever else is in a request or a batch."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from melanoma_dist.app.server.service import Service
from melanoma_dist.artifacts.summary import read_summary
from melanoma_dist.inference.ensemble import Ensemble
from melanoma_dist.inference.explanation import explain
from melanoma_dist.inference.photographs import Photographs

from ..conftest import Predict
from ..conftest import predict as predict
from .conftest import Post, form, lesion

NO_IMAGES = {
    "page": b"<!doctype html><script>alert(1)</script>",
    "drawing": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>',
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run\n",
    "empty": b"",
    "zeros": bytes(4096),
    "truncated": lesion(0)[:700],
    "text": b"MEL",
}


def test_answers_are_those_of_the_command(
    predict: Predict, client: TestClient, finished: Path, sources: list[Path], tmp_path: Path
) -> None:
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(lesion(number))
    (tmp_path / "9.jpg").write_bytes(NO_IMAGES["truncated"])
    paths = [*sorted(tmp_path.glob("*.jpg")), sources[0]]  # the last one was trained on
    predict(finished, *paths, "--out", tmp_path / "answers.json", code=1)
    expected = json.loads((tmp_path / "answers.json").read_text())
    answers = client.post("/v1/predict", files=form(*(path.read_bytes() for path in paths))).json()["images"]
    lists = ("doubts", "folds_disagree")
    for answer, row in zip(answers, expected, strict=True):
        for name, value in row.items():
            if isinstance(value, float):
                assert answer[name] == pytest.approx(value, abs=1e-6), name
            elif name != "image":
                assert (" ".join(answer[name]) if name in lists else answer[name]) == value, name
    assert expected[3]["error"]
    assert expected[4]["seen_in_training"]


def test_an_answer_does_not_depend_on_its_batch(answers: Post) -> None:
    images = [lesion(number) for number in range(6)]
    together = answers(*images)
    for image, answer in zip(images, together, strict=True):
        [alone] = answers(image)
        numbers = [name for name, value in alone.items() if isinstance(value, float)]
        assert len(numbers) > 20
        for name in numbers:
            assert answer[name] == pytest.approx(alone[name], abs=1e-5), (
                name
            )  # of float32, 1e-6 is its last digit or two
        assert alone["MEL_positive"] == answer["MEL_positive"]


def test_a_bad_file_is_an_error_in_its_place(answers: Post) -> None:
    good = lesion(1)
    answered = answers(good, *NO_IMAGES.values())
    [alone] = answers(good)
    assert answered[0]["MEL"] == pytest.approx(alone["MEL"], abs=1e-6)
    assert answered[0]["error_code"] is None
    for answer in answered[1:]:
        assert answer["error"]
        assert answer["error_code"]["code"]  # type: ignore[index]
        assert answer["MEL"] is None
        assert answer["MEL_positive"] is None


def test_the_name_of_a_file_comes_back_as_text_and_leads_nowhere(client: TestClient) -> None:
    names = ["../../../evil.jpg", "a\x1b[31m.jpg", "Müller, 1950.jpg", "x" * 300]
    files = [("images", (name, lesion(0), "image/jpeg")) for name in names]
    echoed = [image["image"] for image in client.post("/v1/predict", files=files).json()["images"]]
    assert echoed[0] == names[0]
    assert "\x1b" not in echoed[1]
    assert echoed[2] == names[2]
    assert len(echoed[3]) == 255
    assert not [*Path.cwd().parents[min(2, len(Path.cwd().parents) - 1)].glob("evil.jpg")]


def test_an_explanation_is_that_of_the_library(client: TestClient, finished: Path) -> None:
    image = lesion(2)
    answer = client.post("/v1/explain?label=NV", files=form(image)).json()
    ensemble = Ensemble.load(finished, threads=1)
    [expected] = explain(ensemble, Photographs.prepare([image], 64), "NV")
    assert answer["note"].startswith(expected.sentence)
    assert answer["note_code"]["code"] == expected.code
    assert answer["note_code"]["values"] == pytest.approx(expected.values, abs=1e-3)
    if expected.evidence is None:
        assert answer["grid"] is None
    else:
        np.testing.assert_allclose(answer["grid"], expected.evidence, atol=1e-3)


def test_an_explanation_is_a_picture_of_the_image_on_request(client: TestClient) -> None:
    for number in range(8):
        response = client.post("/v1/explain", files=form(lesion(number)), headers={"Accept": "image/png"})
        if response.headers["content-type"] == "image/png":
            with Image.open(io.BytesIO(response.content)) as picture:
                assert min(picture.size) == 64  # the size of the run's data set
                assert picture.mode == "L"
            return
    pytest.fail("no image has a map")


def test_an_explanation_needs_one_readable_image_and_a_label_of_the_model(client: TestClient) -> None:
    assert client.post("/v1/explain", files=form(NO_IMAGES["text"])).status_code == 422
    assert client.post("/v1/explain", files=form(lesion(0), lesion(1))).status_code == 400
    assert "MEL" in client.post("/v1/explain?label=XYZ", files=form(lesion(0))).json()["detail"]


def test_the_model_is_described_with_its_rules(client: TestClient, finished: Path) -> None:
    model = client.get("/v1/model").json()
    label = model["labels"]["MEL"]
    youden = next(point for point in label["operating_points"] if point["rule"] == "youden")
    assert label["threshold"] == youden["threshold"]
    own = read_summary(finished).out_of_fold
    auc = own.by_image.intervals["MEL"].auc  # what the report shows, not the AUC per lesion
    assert auc.estimate != own.by_lesion.intervals["MEL"].auc.estimate
    assert label["auc"] == {"estimate": auc.estimate, "low": auc.low, "high": auc.high}
    assert model["model"] == client.post("/v1/predict", files=form(lesion(0))).json()["model"]
    assert re.fullmatch("[0-9a-f]{64}", model["model"]["fingerprint"])
    assert model["model"]["synthetic"] is True


def test_examples_and_neighbours_are_images_of_the_run(client: TestClient) -> None:
    examples = client.get("/v1/examples").json()
    assert {"positive", "negative"} & {example["kind"] for example in examples}
    picture = client.get(f"/v1/examples/{examples[0]['name']}").content
    [answer] = client.post("/v1/predict", files=form(picture)).json()["images"]
    assert "The run was trained on this image" in answer["doubts"][0]
    nearest = answer["neighbours"][0]
    assert nearest["image_id"] == examples[0]["name"]
    assert nearest["similarity"] == pytest.approx(1, abs=0.01)
    assert nearest["source"] == "synthetic"
    assert client.get(nearest["picture"]).content == picture
    assert client.get("/v1/cases/nobody").status_code == 404
    assert client.get("/v1/examples/nobody").status_code == 404


def test_doubts_and_errors_have_codes_and_values(client: TestClient, answers: Post) -> None:
    example = client.get("/v1/examples").json()[0]["name"]
    [doubtful, page, tiny] = answers(client.get(f"/v1/examples/{example}").content, b"<html>", small(31, 40))
    assert len(doubtful["doubts"]) == len(doubtful["doubt_codes"]) > 0  # type: ignore[arg-type]
    first = doubtful["doubt_codes"][0]  # type: ignore[index]
    assert first["code"] == "trained_on_copy"
    assert first["values"]["image"] == example
    assert first["values"]["correlation"] > 0.9
    assert page["error_code"] == {"code": "html", "values": {}}
    assert tiny["error_code"] == {"code": "too_small", "values": {"width": 40, "height": 31, "least": 32}}
    problem = client.post("/v1/explain?label=XYZ", files=form(lesion(0))).json()
    assert (problem["code"], problem["values"]["label"]) == ("unknown_label", "XYZ")
    problem = client.post("/v1/explain", files=form(b"")).json()
    assert (problem["status"], problem["code"], problem["values"]) == (422, "empty", {})


def small(height: int, width: int) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((width, height), 50).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


def test_a_preview_is_what_the_models_see(client: TestClient) -> None:
    [image] = client.post("/v1/predict?preview=true", files=form(lesion(0, suffix="TIFF"))).json()["images"]
    assert image["preview"].startswith("data:image/jpeg;base64,")
    [image] = client.post("/v1/predict", files=form(lesion(0))).json()["images"]
    assert "preview" not in image


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/predict", 405),
        ("GET", "/nothing", 404),
        ("POST", "/v1/predict", 415),
        ("POST", "/v1/predict?preview=perhaps", 400),
    ],
)
def test_refusals_are_problems(client: TestClient, method: str, path: str, status: int) -> None:
    response = client.request(method, path)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["status"] == status
    assert re.fullmatch("[a-z_]+", response.json()["code"])


def test_a_mistake_of_the_program_shows_no_trace(
    client: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("/secret/path")

    monkeypatch.setattr(service, "_row", broken)
    response = client.post("/v1/predict", files=form(lesion(0)))
    assert response.status_code == 500
    assert "secret" not in response.text


def test_descriptions_need_nothing_from_outside(client: TestClient) -> None:
    for path in ("/", "/docs"):
        page = client.get(path).text
        assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", page)
    assert "/v1/predict" in client.get("/docs").text
    assert set(client.get("/openapi.json").json()["paths"]) >= {"/v1/predict", "/v1/explain", "/v1/model", "/metrics"}


def test_metrics_count_requests_images_and_batches(client: TestClient) -> None:
    def value(name: str) -> float:
        match = re.search(rf"^{re.escape(name)} (\S+)$", client.get("/metrics").text, re.MULTILINE)
        return float(match[1]) if match else 0.0

    names = ('melanoma_dist_images_total{outcome="predicted"}', 'melanoma_dist_images_total{outcome="unreadable"}',
             'melanoma_dist_requests_total{route="/v1/predict",status="200"}')  # fmt: skip
    before = [value(name) for name in names]
    client.post("/v1/predict", files=form(lesion(0), lesion(1), b"x"))
    assert [value(name) - then for name, then in zip(names, before, strict=True)] == [2, 1, 1]
    assert value("melanoma_dist_queue_images") == 0
