"""``data audit``: what it reads, its output in the terminal, its exit code, and where the page goes."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from melanoma_dist.data.manifest import MANIFEST, load_dataset
from melanoma_dist.data.prepare import Request as Preparation
from melanoma_dist.data.prepare import prepare

from ..conftest import Raw, rewrite, small
from .conftest import LESION, Page, audit


def leaking(data: Path, folder: Path) -> Path:
    """A data set, whole by its fingerprint, with one image of a lesion held out and the other in the pool."""
    copy = folder / "leaking"
    shutil.copytree(data, copy)
    dataset = load_dataset(data)
    manifest = dataset.manifest.copy()
    manifest.loc[manifest["image_id"] == "ISIC_0000001", "split"] = "holdout"
    rewrite(copy, MANIFEST, manifest)
    return copy


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
