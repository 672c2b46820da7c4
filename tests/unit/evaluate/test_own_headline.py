"""Labels without melanoma, from real photographs: audited, trained, evaluated, predicted, served and exported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from melanoma_dist.app.server.api import build_app
from melanoma_dist.app.server.service import start_service
from melanoma_dist.artifacts.evaluation import read_evaluation
from melanoma_dist.artifacts.summary import read_summary
from melanoma_dist.cli import main
from melanoma_dist.config.serve import ServeConfig
from melanoma_dist.data.manifest import load_dataset
from melanoma_dist.inference.trained_run import open_trained_run

from ..data.conftest import write_table
from ..data.sources.published import needs_isic, photographs, save
from .holdout.conftest import _threads, trained

__all__ = ["_threads"]
pytestmark = needs_isic
LABELS = ["--labels", "BCC,SCC,OTHER"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 photographs of different lesions in a table of one's own, some of them held out."""
    place = tmp_path_factory.mktemp("carcinomas")
    rows = []
    for label in ("BCC", "SCC", "NV"):
        for name, picture in photographs(label, 16):
            save(picture, place / f"photos/{name}-own.png")
            rows.append(f"{name}-own.png,{label.lower()},{name[5:]}")
    write_table(place / "table.csv", "file,dx,lesion", *rows)
    table = str(place / "table.csv")
    command = ["data", "prepare", "--images", str(place / "photos"), "--table", table, "--id", "file", "--label", "dx",
               "--lesion", "lesion", "--map", "bcc=BCC", "scc=SCC", "nv=OTHER"]  # fmt: skip
    assert main([*command, "--holdout", "0.25", "--out", str(place / "data")]) == 0
    return place / "data"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    return trained(runs, load_dataset(data), batch_size=6, labels=LABELS[1], headline="SCC", image_size=64)


def test_the_audit_asks_for_the_headline(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["data", "audit", "--data", str(data), "--folds", "2", "--html", str(tmp_path / "audit.html"), *LABELS]
    assert main(command) == 2
    assert "Type --headline BCC or --headline SCC or --headline OTHER" in " ".join(capsys.readouterr().err.split())
    assert main([*command, "--headline", "SCC"]) == 0


def test_the_reports_speak_of_the_headline(run: Path) -> None:
    summary = read_summary(run)
    assert (summary.headline, summary.label_set.headline) == ("AUC of SCC", "SCC")
    page, card = (run / "report.html").read_text(), (run / "model/README.md").read_text()
    assert "squamous cell carcinoma AUC" in page
    assert "AUC of squamous cell carcinoma out of fold" in page
    assert "AUC of squamous cell carcinoma out of fold" in card
    assert "AUC of melanoma" not in page + card
    epochs = [json.loads(line) for line in (run / "fold-0/metrics.jsonl").read_text().splitlines()]
    assert [epoch["score"] for epoch in epochs] == [epoch["validation"]["labels"]["SCC"]["auc"] for epoch in epochs]


def test_it_is_evaluated_on_a_holdout(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(run), "--holdout", "holdout", "--gpus", "0", "--decode-threads", "1"]) == 0
    assert "SCC, fold 0" in " ".join(capsys.readouterr().out.split())
    record = read_evaluation(run / "evaluations/001-holdout")
    assert record.results is not None
    assert set(record.results.ensemble.by_image.labels) == {"BCC", "SCC", "OTHER"}
    assert "AUC of squamous cell carcinoma on unseen images" in (run / "report.html").read_text()


def test_it_predicts(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, picture in photographs("BCC", 2):
        save(picture, tmp_path / f"{name}.jpg")
    command = ["predict", str(run), str(tmp_path), "--out", str(tmp_path / "answers.csv"), "--gpus", "0"]
    assert main([*command, "--decode-threads", "1"]) == 0
    assert "2 images are called SCC" in " ".join(capsys.readouterr().out.split())


def test_it_is_served(run: Path) -> None:
    settings = ServeConfig(run, decode_threads=1)
    service = start_service(open_trained_run(run), settings)
    try:
        client = TestClient(build_app(service, settings, None), base_url="http://127.0.0.1:8000")
        assert client.get("/v1/model").json()["headline"] == "SCC"
        kinds = {each["kind"] for each in client.get("/v1/examples").json()}
        assert "doubtful" in kinds
    finally:
        service.close()


def test_it_is_exported(run: Path, tmp_path: Path) -> None:
    command = ["export", str(run), "--format", "torch", "--tta", "1", "--out", str(tmp_path / "export")]
    assert main([*command, "--decode-threads", "1"]) == 0
    card = next((tmp_path / "export").rglob("README.md")).read_text()
    assert "SCC" in card
