"""The page of ``data audit``."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from melanoma_dist.config.data import AuditConfig
from melanoma_dist.data.audit.inspection import Inspection, inspect
from melanoma_dist.data.audit.page import write_page
from melanoma_dist.data.groups import BYTES, NEAR
from melanoma_dist.errors import DataError

from .conftest import LESION, REJECTED, Page, audit


@pytest.fixture(scope="module")
def page(inspection: Inspection, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "audit.html"
    write_page(inspection, path)
    return path


@pytest.mark.parametrize(
    ("html", "rule"),
    [
        ("{data}/audit.html", "lies in the data folder"),
        ("{data}/../prepared/audit.html", "lies in the data folder"),
        ("nowhere/audit.html", "a folder that does not exist"),
        ("thesis.docx", "must end with .html"),
    ],
)
def test_a_page_in_a_wrong_place_is_refused(
    html: str, rule: str, data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = sorted(data.iterdir())
    assert audit("--data", data, "--html", html.format(data=data)) == 2
    captured = capfd.readouterr()
    assert rule in re.sub(r"[│\s]+", " ", captured.out + captured.err)
    assert sorted(data.iterdir()) == before


def test_an_unwritable_path_is_reported(inspection: Inspection, tmp_path: Path) -> None:
    (tmp_path / "audit.html").mkdir()
    with pytest.raises(DataError, match="cannot be written"):
        write_page(inspection, tmp_path / "audit.html")
    assert [path.name for path in tmp_path.iterdir()] == ["audit.html"]


def test_the_page_holds_every_pair_with_its_evidence(inspection: Inspection, page: Path) -> None:
    view = Page(page.read_text())
    copies = inspection.copies
    assert set(copies.loc[copies["joined"], "reason"]) == {BYTES, NEAR}
    assert {("ISIC_0000017", "ISIC_0000040"), ("ISIC_0000025", "ISIC_0000041"), REJECTED} == set(
        zip(copies["image_id"], copies["other_id"], strict=True)
    )
    for join in copies.itertuples():
        article = next(text for text in view.articles if join.image_id in text and join.other_id in text)
        assert f"{join.reason}: {join.evidence}" in article
        assert ("Two groups" in article) != join.joined
    assert f"{LESION}: ISIC_0000001, ISIC_0000009" in view.text


def test_the_page_is_self_contained_and_escapes_all_text(page: Path) -> None:
    text = page.read_text()
    assert not re.search(r"https?://|@import|url\(", text)
    elements = Page(text).elements
    assert "script" not in {tag for tag, _ in elements}
    assert all(str(about.get("href", "#")).startswith("#") for _, about in elements)
    anchors = {about["id"] for _, about in elements if "id" in about}
    assert {str(about["href"])[1:] for tag, about in elements if tag == "a"} == anchors
    images = [about for tag, about in elements if tag == "img"]
    assert all(str(about["src"]).startswith("data:image/jpeg;base64,") and about["alt"] for about in images)
    assert len(images) >= 2 * 3 + 41  # the pairs, and every image under its label


def test_the_same_data_gives_the_same_page(data: Path, page: Path, tmp_path: Path) -> None:
    write_page(inspect(AuditConfig(str(data), "isic2019", folds=2)), tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == page.read_bytes()


def test_pairs_beyond_the_limit_are_listed_by_id(
    inspection: Inspection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("melanoma_dist.data.audit.page._PAIRS", 1)
    write_page(inspection, tmp_path / "audit.html")
    view = Page((tmp_path / "audit.html").read_text())
    assert len(view.articles) == 2
    assert "1 more pairs without pictures" in view.text
    for join in inspection.copies.itertuples():
        assert join.image_id in view.text
        assert join.other_id in view.text


def test_synthetic_data_is_marked(
    tmp_path: Path, dataset: object, page: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = dataset.folder  # type: ignore[attr-defined]
    assert audit("--data", folder, "--folds", 2, "--html", tmp_path / "audit.html") == 0
    assert "SYNTHETIC DATA" in capfd.readouterr().out
    assert "SYNTHETIC DATA" in Page((tmp_path / "audit.html").read_text()).text
    assert "SYNTHETIC DATA" not in page.read_text()


def test_a_browser_renders_the_page(page: Path, tmp_path: Path) -> None:
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("chromium is not on PATH")
    picture = tmp_path / "page.png"
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1200,2400")
    command = [browser, *flags, f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={picture}", page.as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    image = Image.open(io.BytesIO(picture.read_bytes()))
    assert (image.format, image.size) == ("PNG", (1200, 2400))
    pixels = np.asarray(image.convert("L"))
    assert len(np.unique(pixels)) > 50
    assert (pixels.std(axis=1) > 0).mean() > 0.3  # text or a picture in a third of the lines
