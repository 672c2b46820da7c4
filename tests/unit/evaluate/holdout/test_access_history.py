"""Earlier evaluations are known image by image, and a deleted record leaves a trace."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from melanoma_dist.artifacts.evaluation import (
    EarlierEvaluation,
    EvaluatedData,
    EvaluationRecord,
    write_evaluation,
)
from melanoma_dist.data.manifest import MANIFEST, Dataset
from melanoma_dist.errors import DataError
from melanoma_dist.evaluate.holdout.access_history import read_history, write_images
from melanoma_dist.inference.ensemble import Ensemble
from melanoma_dist.inference.images import Images

from ...data.conftest import rewrite
from .commands import record, run_evaluate

STARTED = "2026-01-0{}T00:00:00+00:00"


def of(data: Dataset, *rows: int) -> Images:
    return Images(data, np.array(rows, dtype=np.int64))


def write(run: Path, number: int, images: Images, earlier: Sequence[EarlierEvaluation] = ()) -> Path:
    """Log an evaluation that was interrupted."""
    folder = run / "evaluations" / f"{number:03d}-x"
    folder.mkdir(parents=True)
    write_images(images, folder)
    data = EvaluatedData("data", "f" * 64, len(images.rows), len(images.rows))
    record = EvaluationRecord(
        number=number, name="x", kind="holdout", synthetic=True, started=STARTED.format(number), data=data, tta=1,
        images_sha256=images.sha256(), models={}, earlier=tuple(earlier), seen_before=0, labels=("MEL",),
        labels_absent={},
    )  # fmt: skip
    write_evaluation(folder, record)
    return folder


def as_schema_1(folder: Path) -> None:
    """Make a record what the first version wrote."""
    path = folder / "evaluation.json"
    record = json.loads(path.read_text()) | {"schema": 1, "what": "x", "begun": STARTED.format(1)}
    for name in ("name", "started", "seen_before", "results"):
        del record[name]
    path.write_text(json.dumps(record))


def entry(run: str, number: int, images: int | None, deleted: bool = False, started: bool = True) -> EarlierEvaluation:
    return EarlierEvaluation(run, number, STARTED.format(number) if started else None, images, deleted)


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """A run without evaluations."""
    (tmp_path / "first/evaluations").mkdir(parents=True)
    return tmp_path / "first"


def test_one_image_in_common_is_an_earlier_evaluation(first: Path, data: Dataset) -> None:
    write(first.parent / "a", 1, of(data, 0, 1, 2))
    write(first.parent / "b", 2, of(data, 2, 3))
    write(first.parent / "c", 3, of(data, 9))
    history = read_history(first, of(data, 2, 3, 4, 5))
    assert history.earlier == (
        entry("a", 1, 1),
        entry("b", 2, 2),
    )
    assert (history.number, history.seen_before) == (1, 2)
    assert read_history(first, of(data, 7)).earlier == ()


def test_a_file_under_another_name_is_the_same_image(first: Path, data: Dataset) -> None:
    folder = write(first.parent / "a", 1, of(data, 0, 1))
    listed = pd.read_parquet(folder / "images.parquet")
    listed.assign(image_id=["X", "Y"]).to_parquet(folder / "images.parquet")
    assert read_history(first, of(data, 1, 2)).earlier == (entry("a", 1, 1),)
    listed.assign(image_id=["X", "Y"], source_sha256="").to_parquet(folder / "images.parquet")
    assert read_history(first, of(data, 1, 2)).earlier == ()


def test_older_records_are_compared_as_a_whole_or_by_their_predictions(first: Path, data: Dataset) -> None:
    folder = write(first.parent / "a", 1, of(data, 0, 1))
    as_schema_1(folder)
    (folder / "images.parquet").unlink()
    assert read_history(first, of(data, 0, 1)).earlier == (entry("a", 1, 2),)
    assert read_history(first, of(data, 0)).earlier == ()
    of(data, 0, 1).table[["image_id"]].to_parquet(folder / "predictions.parquet")
    assert read_history(first, of(data, 0)).earlier == (entry("a", 1, 1),)


@pytest.mark.parametrize("content", [None, b"", b"PAR1"])
def test_images_that_are_missing_or_damaged(content: bytes | None, first: Path, data: Dataset) -> None:
    path = write(first.parent / "a", 1, of(data, 0, 1)) / "images.parquet"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"images\.parquet: .*may list images of an earlier evaluation"):
        read_history(first, of(data, 0))


def test_deleted_evaluations_are_known_by_other_records_and_by_numbers(first: Path, data: Dataset) -> None:
    images = of(data, 0, 1)
    write(first, 2, images)
    assert read_history(first, images).earlier == (
        entry("first", 2, 2),
        entry("first", 1, None, True, started=False),
    )
    named = [entry("first", 1, 2), entry("first", 4, 2), entry("gone", 3, 2)]
    write(first.parent / "a", 5, images, named)
    history = read_history(first, images)
    assert [(each.run, each.number, each.deleted) for each in history.earlier] == [
        ("first", 1, True), ("first", 2, False), ("gone", 3, True), ("first", 4, True), ("a", 5, False),
        ("first", 3, True),
    ]  # fmt: skip
    assert (history.number, history.seen_before) == (5, 2)


def test_a_renamed_run_and_a_record_that_came_back_are_not_deleted(first: Path, data: Dataset) -> None:
    images = of(data, 0)
    write(first.parent / "renamed", 1, images)
    write(first.parent / "a", 2, images, [entry("old", 1, 1), entry("renamed", 1, None, True, started=False)])
    assert read_history(first, images).earlier == (
        entry("renamed", 1, 1),
        entry("a", 2, 1),
    )


def test_a_folder_without_predictions_is_no_evaluation(first: Path, data: Dataset) -> None:
    (first / "evaluations/001-x").mkdir()
    assert read_history(first, of(data, 0)).earlier == ()
    (first / "evaluations/001-x/predictions.parquet").touch()
    assert read_history(first, of(data, 0)).earlier == (entry("first", 1, None, True, started=False),)


def test_a_part_of_the_images_of_an_interrupted_evaluation(
    run: Path, other_data: Dataset, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Ensemble, "predict", interrupted)
        run_evaluate(capfd, run, "--data", other_data.folder, code=130)
    listed = pd.read_parquet(run / "evaluations/001-elsewhere/images.parquet")
    assert listed["image_id"].tolist() == other_data.manifest["image_id"].tolist()
    part = Path(shutil.copytree(other_data.folder, tmp_path / "part"))
    rewrite(part, MANIFEST, other_data.manifest.iloc[:20].reset_index(drop=True))
    assert "This is evaluation 2 on these images: 20 of 20 were evaluated before" in run_evaluate(
        capfd, run, "--data", part
    )
    logged = record(run, "002-part")
    assert (logged.earlier[0].images, logged.seen_before) == (20, 20)
    assert "(evaluation 2, repeated)" in (run / "report.html").read_text()


def test_a_deleted_folder(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run_evaluate(capfd, run, "--holdout", "holdout")
    run_evaluate(capfd, run, "--holdout", "holdout")
    shutil.rmtree(run / "evaluations/001-holdout")
    text = run_evaluate(capfd, run, "--holdout", "holdout")
    assert "This is evaluation 3 on these images" in text
    assert "Records deleted or moved away: evaluation 1 of first." in text
    assert record(run, "003-holdout").earlier[0].deleted
