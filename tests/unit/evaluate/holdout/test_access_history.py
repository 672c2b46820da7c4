"""Earlier looks are known image by image, and a look that was deleted leaves a trace."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from melanoma_dist.data.manifest import MANIFEST, Dataset
from melanoma_dist.errors import DataError
from melanoma_dist.evaluate.holdout.access_history import look_back, write_images
from melanoma_dist.inference.ensemble import Ensemble
from melanoma_dist.inference.images import Images

from ...data.conftest import rewrite
from .asked import record, said

BEGUN = "2026-01-0{}T00:00:00+00:00"


def of(data: Dataset, *rows: int) -> Images:
    return Images(data, np.array(rows, dtype=np.int64))


def wrote(run: Path, number: int, images: Images, earlier: Any = (), **changed: Any) -> Path:
    """A record of a look that was interrupted."""
    folder = run / "evaluations" / f"{number:03d}-x"
    folder.mkdir(parents=True)
    write_images(images, folder)
    content = {"schema": 2, "number": number, "begun": BEGUN.format(number), "images_sha256": images.sha256()}
    content |= {"models": {}, "earlier": list(earlier), **changed}
    (folder / "evaluation.json").write_text(json.dumps(content))
    return folder


def entry(run: str, number: int, images: int | None, deleted: bool = False, begun: bool = True) -> dict[str, Any]:
    found = {"run": run, "number": number, "begun": BEGUN.format(number) if begun else None, "images": images}
    return found | ({"deleted": True} if deleted else {})


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """A run that has never looked at anything."""
    (tmp_path / "first/evaluations").mkdir(parents=True)
    return tmp_path / "first"


def test_one_image_in_common_is_an_earlier_look(first: Path, data: Dataset) -> None:
    wrote(first.parent / "a", 1, of(data, 0, 1, 2))
    wrote(first.parent / "b", 2, of(data, 2, 3))
    wrote(first.parent / "c", 3, of(data, 9))
    past = look_back(first, of(data, 2, 3, 4, 5))
    assert past.earlier == [entry("a", 1, 1), entry("b", 2, 2)]
    assert (past.number, past.seen) == (1, 2)
    assert look_back(first, of(data, 7)).earlier == []


def test_a_file_under_another_name_is_the_same_image(first: Path, data: Dataset) -> None:
    folder = wrote(first.parent / "a", 1, of(data, 0, 1))
    kept = pd.read_parquet(folder / "images.parquet")
    kept.assign(image_id=["X", "Y"]).to_parquet(folder / "images.parquet")
    assert look_back(first, of(data, 1, 2)).earlier == [entry("a", 1, 1)]
    kept.assign(image_id=["X", "Y"], source_sha256="").to_parquet(folder / "images.parquet")
    assert look_back(first, of(data, 1, 2)).earlier == []


def test_older_records_are_compared_as_a_whole_or_by_their_predictions(first: Path, data: Dataset) -> None:
    folder = wrote(first.parent / "a", 1, of(data, 0, 1), schema=1)
    (folder / "images.parquet").unlink()
    assert look_back(first, of(data, 0, 1)).earlier == [entry("a", 1, 2)]
    assert look_back(first, of(data, 0)).earlier == []
    of(data, 0, 1).table[["image_id"]].to_parquet(folder / "predictions.parquet")
    assert look_back(first, of(data, 0)).earlier == [entry("a", 1, 1)]


@pytest.mark.parametrize("content", [None, b"", b"PAR1"])
def test_images_that_are_missing_or_damaged(content: bytes | None, first: Path, data: Dataset) -> None:
    path = wrote(first.parent / "a", 1, of(data, 0, 1)) / "images.parquet"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"images\.parquet: .*may tell of an earlier look"):
        look_back(first, of(data, 0))


def test_deleted_looks_are_told_by_others_and_by_the_numbers(first: Path, data: Dataset) -> None:
    images = of(data, 0, 1)
    wrote(first, 2, images)
    assert look_back(first, images).earlier == [entry("first", 2, 2), entry("first", 1, None, True, begun=False)]
    named = [entry("first", 1, 2), entry("first", 4, 2), entry("gone", 3, 2)]
    wrote(first.parent / "a", 5, images, named)
    past = look_back(first, images)
    assert [(each["run"], each["number"], each.get("deleted")) for each in past.earlier] == [
        ("first", 1, True), ("first", 2, None), ("gone", 3, True), ("first", 4, True), ("a", 5, None),
        ("first", 3, True),
    ]  # fmt: skip
    assert (past.number, past.seen) == (5, 2)


def test_a_renamed_run_and_a_record_that_came_back_are_not_deleted(first: Path, data: Dataset) -> None:
    images = of(data, 0)
    wrote(first.parent / "renamed", 1, images)
    wrote(first.parent / "a", 2, images, [entry("old", 1, 1), entry("renamed", 1, None, True, begun=False)])
    assert look_back(first, images).earlier == [entry("renamed", 1, 1), entry("a", 2, 1)]


def test_a_folder_in_which_nothing_began_is_no_look(first: Path, data: Dataset) -> None:
    (first / "evaluations/001-x").mkdir()
    assert look_back(first, of(data, 0)).earlier == []
    (first / "evaluations/001-x/predictions.parquet").touch()
    assert look_back(first, of(data, 0)).earlier == [entry("first", 1, None, True, begun=False)]


def test_a_part_of_what_an_interrupted_look_saw(
    run: Path, other_data: Dataset, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Ensemble, "predict", interrupted)
        said(capfd, run, "--data", other_data.folder, code=130)
    kept = pd.read_parquet(run / "evaluations/001-elsewhere/images.parquet")
    assert kept["image_id"].tolist() == other_data.manifest["image_id"].tolist()
    part = Path(shutil.copytree(other_data.folder, tmp_path / "part"))
    rewrite(part, MANIFEST, other_data.manifest.iloc[:20].reset_index(drop=True))
    assert "This is look 2 at these images: 20 of 20 were looked at before" in said(capfd, run, "--data", part)
    found = record(run, "002-part")
    assert (found["earlier"][0]["images"], found["seen_before"]) == (20, 20)
    assert "(evaluation 2, look 2)" in (run / "report.html").read_text()


def test_a_deleted_folder(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    said(capfd, run, "--holdout", "holdout")
    said(capfd, run, "--holdout", "holdout")
    shutil.rmtree(run / "evaluations/001-holdout")
    text = said(capfd, run, "--holdout", "holdout")
    assert "This is look 3 at these images" in text
    assert "Records deleted or moved away: evaluation 1 of first." in text
    assert record(run, "003-holdout")["earlier"][0]["deleted"] is True
