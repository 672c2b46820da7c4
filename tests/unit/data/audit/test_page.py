"""``data audit``: its output in the terminal and its page."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from melanoma_dist.cli import main
from melanoma_dist.config.data import AuditConfig
from melanoma_dist.data.audit.inspection import Inspection, inspect
from melanoma_dist.data.audit.page import write_page
from melanoma_dist.data.groups import BYTES, NEAR
from melanoma_dist.data.manifest import JOINS, MANIFEST, load_dataset
from melanoma_dist.data.prepare import Request as Preparation
from melanoma_dist.data.prepare import prepare
from melanoma_dist.errors import DataError

from ..conftest import Raw, rewrite, small, write_image

LESION = "<script>alert('x')</script>"
REJECTED = ("ISIC_0000003", "ISIC_0000008")
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """The page as a browser parses it: balanced elements, sources of images, links, text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.articles: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "article":
            self.articles.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if "article" in self.open:
            self.articles[-1] += data


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty lesions; one file under two names, one image saved twice, a rejected pair, a lesion of two images."""
    folder = tmp_path_factory.mktemp("audit")
    raw = Raw(folder / "raw")
    for number in range(40):
        label = ("MEL", "NV", "BKL", "SCC", "BCC", "AK", "DF", "VASC")[number % 8]
        lesion = LESION if number in (1, 9) else f"LESION_{number}"
        raw.image_2019(number, label, lesion=lesion, size=(300, 200) if number % 2 else (120, 160))
    photographs = raw.folder / "2019" / "ISIC_2019_Training_Input"
    for number, quality in ((40, None), (41, 60)):
        raw.image_2019(number, "NV", lesion=f"LESION_{number}")
        target = photographs / f"ISIC_{number:07d}.jpg"
        if quality is None:
            shutil.copy(photographs / "ISIC_0000017.jpg", target)
        else:
            write_image(target, 25, (300, 200), quality=quality)
    (photographs / "ISIC_0000039.jpg").write_bytes(b"no image")
    prepare(Preparation(raw.folder, ("2019",)), folder / "prepared")
    joins = pd.read_parquet(folder / "prepared" / JOINS)
    evidence = "16 of 256 bits differ, details correlate at 0.512"
    joins.loc[len(joins)] = [*REJECTED, NEAR, evidence, False]
    rewrite(folder / "prepared", JOINS, joins)
    return folder / "prepared"


@pytest.fixture(scope="module")
def inspection(data: Path) -> Inspection:
    return inspect(AuditConfig(str(data), "isic2019", 2, 0))


@pytest.fixture(scope="module")
def page(inspection: Inspection, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "audit.html"
    write_page(inspection, path)
    return path


def leaking(data: Path, folder: Path) -> Path:
    """A data set, whole by its fingerprint, with one image of a lesion held out and the other in the pool."""
    copy = folder / "leaking"
    shutil.copytree(data, copy)
    dataset = load_dataset(data)
    manifest = dataset.manifest.copy()
    manifest.loc[manifest["image_id"] == "ISIC_0000001", "split"] = "holdout"
    rewrite(copy, MANIFEST, manifest)
    return copy


def audit(*flags: object) -> int:
    return main(["data", "audit", *(str(flag) for flag in flags)])


def test_the_terminal_shows_counts_joins_folds_and_every_result(
    data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.read_bytes() for path in data.iterdir()}
    assert audit("--data", data, "--folds", 2, "--html", tmp_path / "audit.html") == 0
    text = re.sub(r"[│┃\s]+", " ", capfd.readouterr().out)
    for row in (
        "2019 41 0 38 ",  # images, missing, groups: 42 files, one unreadable; three pairs in one group each
        "2019, train 41 38 ",
        "quarantined: ",
        "lesion 1 0",
        "same bytes 1 0",
        "1 35 35",  # groups of one image
        "2 3 6",
        "fold 1 ",
        "no lesion lies in two groups passed",
        "no group lies in two folds passed",
    ):
        assert row in text, row
    assert "FAILED" not in text
    assert (tmp_path / "audit.html").is_file()
    assert {path.name: path.read_bytes() for path in data.iterdir()} == before


@pytest.mark.parametrize("kind", ["", "mask_"])
def test_every_byte_of_images_and_masks_is_read(
    kind: str, raw: Raw, out: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    image = small(raw, out).manifest.iloc[1]
    path = tmp_path / "audit.html"
    name = "every image and mask has its prepared bytes"
    flags = ("--data", out, "--labels", "isic2017", "--folds", "2", "--html", path)
    audit(*flags)
    assert re.search(rf"{name}\W+passed", capfd.readouterr().out)
    path.unlink()
    with (out / image["shard"]).open("r+b") as file:
        file.seek(image[f"{kind}offset"] + image[f"{kind}length"] // 2)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))
    assert audit(*flags) == 2
    captured = capfd.readouterr()
    assert re.search(rf"{name}\W+FAILED", captured.out)
    assert f"{name}: 1 images, or their masks, are corrupt: ISIC_0000002 in shard-00000.tar" in captured.err
    assert "Copy the shards again, or: Delete the data set's folder and prepare it again" in captured.err
    assert "This must never be" not in captured.err
    assert not path.exists()


def test_leaking_data_exits_with_code_2_and_the_page_shows_the_failure(
    data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "audit.html"
    assert audit("--data", leaking(data, tmp_path), "--html", path) == 2
    captured = capfd.readouterr()
    name = "no group has images in the training pool and in a holdout"
    assert re.search(rf"{name}\W+FAILED", captured.out)
    assert f"{name}: 1 groups: {LESION} (ISIC_0000001, ISIC_0000009)" in captured.err
    view = Page(path.read_text())
    assert "1 of 11 checks failed. No training starts on this data." in view.text
    assert f"1 groups: {LESION}" in view.text


def test_impossible_folds_are_a_failed_check(data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert audit("--data", data, "--folds", 9, "--html", tmp_path / "audit.html") == 2
    captured = capfd.readouterr()
    assert re.search(r"folds can be made\W+FAILED", captured.out)
    assert "the data has only 5 melanoma lesions" in captured.err


def test_the_largest_label_set_that_the_data_supports_is_audited(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    raw = Raw(tmp_path / "raw")
    for number in range(8):
        raw.image_2019(number, "MEL" if number % 2 else "NV", lesion=f"L{number}")
    prepare(Preparation(raw.folder, ("2019",)), tmp_path / "prepared")
    flags = ("--data", tmp_path / "prepared", "--folds", 2, "--html", tmp_path / "audit.html")
    assert audit(*flags) == 0
    assert "Folds of --labels melanoma --seed 0" in capfd.readouterr().out
    assert audit(*flags, "--labels", "isic2018") == 2
    error = capfd.readouterr().err
    assert error.count("--labels isic2018") == 1
    assert "Label sets this data supports: melanoma" in error


def test_the_page_lies_beside_the_data_set_unless_that_place_is_closed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    page = f"{data.name}-audit.html"
    monkeypatch.chdir(tmp_path)
    assert audit("--data", data, "--labels", "isic2017", "--folds", 2) == 0
    assert f"page: {data.resolve().parent / page}" in capfd.readouterr().out
    (data.parent / page).unlink()
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr("os.access", lambda *_: False)
    assert audit("--data", data, "--labels", "isic2017", "--folds", 2) == 0
    assert f"page: {page}" in capfd.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == [page]


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
    write_page(inspect(AuditConfig(str(data), "isic2019", 2, 0)), tmp_path / "again.html")
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
