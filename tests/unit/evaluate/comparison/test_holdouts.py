"""Comparison on a holdout, by the evaluations of the runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from melanoma_dist.artifacts.evaluation import EarlierEvaluation

from .command_line import refused, run_compare
from .conftest import TABLE
from .corruptions import change, other_folds, swap
from .run_folders import LABELS, images, rewrite, scores, write_evaluation

pytestmark = pytest.mark.usefixtures("few")


@pytest.fixture
def evaluated(runs: list[Path]) -> list[Path]:
    """Run a has three evaluations of 2017-test, the last one not finished; b one, and one of another holdout."""
    holdout = images(90, seed=8)
    for number, strength in ((1, 0.0), (2, 2.0)):
        write_evaluation(runs[0], number, "2017-test", holdout, scores(holdout, strength, number))
    write_evaluation(runs[0], 3, "2017-test", holdout, scores(holdout, 0.0, 3), finished=False)
    earlier = tuple(EarlierEvaluation("a", number, "2026", 90) for number in (1, 2))
    write_evaluation(runs[1], 1, "2017-test", holdout, scores(holdout, 0.4, 4), earlier=earlier)
    write_evaluation(runs[1], 2, "test", holdout, scores(holdout, 2.0, 5))
    return runs


def test_holdouts_are_compared_by_the_last_finished_evaluation(
    evaluated: list[Path], capfd: pytest.CaptureFixture[str]
) -> None:
    other_folds(evaluated[1])  # folds do not matter on a holdout
    code, text = run_compare(capfd, *evaluated, "--holdout", "2017-test")
    assert code == 0, text
    assert "a is separated from b on 2017-test: its AUC of MEL is" in text
    assert "a, evaluation 2 of 2026-01-02 with tta 1; b, evaluation 1 of 2026-01-02 with tta 1." in text
    assert "Earlier evaluations on the same images, besides those compared: 1." in text
    comparison = json.loads((evaluated[0].parent / "compare-a-b-on-2017-test" / "comparison.json").read_text())
    assert [run["evaluation"]["number"] for run in comparison["runs"]] == [2, 1]
    assert comparison["runs"][0]["thresholds"] == {"MEL": 0.4, "BKL": 0.4}
    assert comparison["pairs"][0]["folds"] == {"not_defined": "The ensemble of all folds predicts these images."}
    assert comparison["lesions"] == 90


def test_evaluations_that_are_missing_or_on_other_images_are_refused(
    evaluated: list[Path], capfd: pytest.CaptureFixture[str]
) -> None:
    text = refused(capfd, *evaluated, "--holdout", "2018-test")
    assert "has no finished evaluation on 2018-test (it has: 2017-test)" in text
    assert "no finished evaluation on test (it has: 2017-test)" in refused(capfd, *evaluated, "--holdout", "test")
    change(evaluated[1] / "evaluations" / "001-2017-test" / "evaluation.json", images_sha256="b" * 64)
    assert "are on different images" in refused(capfd, *evaluated, "--holdout", "2017-test")


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"tta": 8}, "the last evaluations differ in tta"),
        ({"results": "x"}, 'evaluation.json: results is "x", must be an object'),
        ({"earlier": "x"}, 'evaluation.json: earlier is "x", must be a valid array'),
    ],
)
def test_evaluations_that_differ_in_tta_or_are_corrupt_are_refused(
    changed: dict[str, Any], expected: str, evaluated: list[Path], capfd: pytest.CaptureFixture[str]
) -> None:
    change(evaluated[1] / "evaluations" / "001-2017-test" / "evaluation.json", **changed)
    assert expected in refused(capfd, *evaluated, "--holdout", "2017-test")


def test_corrupt_thresholds_of_an_evaluation_are_refused(
    evaluated: list[Path], capfd: pytest.CaptureFixture[str]
) -> None:
    path = evaluated[1] / "evaluations" / "001-2017-test" / "evaluation.json"
    results = json.loads(path.read_text())["results"]
    results["ensemble"]["thresholds"] = "x"
    change(path, results=results)
    assert 'results.ensemble.thresholds is "x", must be an object' in refused(
        capfd, *evaluated, "--holdout", "2017-test"
    )


def test_changed_predictions_of_an_evaluation_are_refused(
    evaluated: list[Path], capfd: pytest.CaptureFixture[str]
) -> None:
    swap(evaluated[1] / "evaluations" / "001-2017-test")
    assert "in evaluation.json: one of" in refused(capfd, *evaluated, "--holdout", "2017-test")


def test_a_change_that_keeps_the_ranks_is_refused(evaluated: list[Path], capfd: pytest.CaptureFixture[str]) -> None:
    folder = evaluated[1] / "evaluations" / "001-2017-test"
    rewrite(folder / "predictions.parquet", lambda table: table.assign(MEL=table["MEL"] / 2))
    text = refused(capfd, *evaluated, "--holdout", "2017-test")
    assert "001-2017-test: predictions.parquet is not what evaluation.json was written with" in text


def test_a_label_of_all_images_of_the_holdout_is_not_defined(
    runs: list[Path], capfd: pytest.CaptureFixture[str]
) -> None:
    only = TABLE[TABLE["MEL_true"] == 1]
    for at, run in enumerate(runs):
        write_evaluation(run, 1, "data", only, scores(only, 1, at), labels_absent={"MEL": "All images have it."})
    assert run_compare(capfd, *runs, "--holdout", "data")[0] == 0
    comparison = json.loads((runs[0].parent / "compare-a-b-on-data" / "comparison.json").read_text())
    assert "not_defined" in comparison["pairs"][0]["metrics"]["MEL"]["auc"]


def test_a_label_without_answers_is_not_defined_with_the_reason_of_the_evaluation(
    runs: list[Path], capfd: pytest.CaptureFixture[str]
) -> None:
    reason = "The data does not tell it."
    for at, run in enumerate(runs):
        probability = scores(TABLE, 1, at)[:, :1]
        write_evaluation(run, 1, "data", TABLE, probability, LABELS[:1], labels_absent={"BKL": reason})
    assert run_compare(capfd, *runs, "--holdout", "data")[0] == 0
    comparison = json.loads((runs[0].parent / "compare-a-b-on-data" / "comparison.json").read_text())
    assert comparison["pairs"][0]["metrics"]["BKL"]["auc"] == {"not_defined": reason}
    assert comparison["runs"][0]["constant"] == []
    assert comparison["pairs"][0]["p"] is not None
