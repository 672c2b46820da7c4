from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from melanoma_dist.artifacts.evaluation import EarlierEvaluation, EvaluatedData
from melanoma_dist.evaluate.comparison.conclusions import conclusions, limits, p_value
from melanoma_dist.evaluate.comparison.records import (
    BootstrapSettings,
    ComparedEvaluation,
    Comparison,
    Cost,
    DelongTest,
    Estimate,
    FoldInterval,
    NotDefined,
    Pair,
    RunRecord,
)
from melanoma_dist.pages.numbers import signed

from .run_folders import ENVIRONMENT

DATA = EvaluatedData("data", "f" * 64, 1, 1)
GPU = Cost("GPU", 1.0, 5, 5, 1.0, 0.0, 1)
FOLDS = FoldInterval(0.0, -0.03, 0.03, folds=5, seeds=1)


def run(name: str, auc: float = 0.8, **changed: Any) -> RunRecord:
    fields: dict[str, Any] = {
        "name": name, "seed": 0, "repeats": 1, "constant": [], "earlier": (), "cost": GPU, "thresholds": {"MEL": 0.5},
        "metrics": {"MEL": {"auc": Estimate(auc, auc - 0.02, auc + 0.02, 0)}}, "folder": name, "backbone": name,
        "delong": {}, "folds": None, "data": "f" * 64, "trained": "2026-01-01",
        "evaluation": ComparedEvaluation(1, "2026-01-02T10:00:00+00:00", 1),
    }  # fmt: skip
    return RunRecord(**fields | changed)


def pair(first: str, second: str, ends: tuple[float, float], p: float | None, **changed: Any) -> Pair:
    low, high = ends
    better = first if low > 0 else second if high < 0 else None
    test = NotDefined("No test.") if p is None else DelongTest(0.0, low, high, 0.01, p)
    fields: dict[str, Any] = {
        "first": first, "second": second, "identical": False, "same_models": False, "p": p, "p_corrected": p,
        "simultaneous": Estimate((low + high) / 2, low, high, 0), "better": better, "separated": better is not None,
        "delong": {"MEL": test}, "metrics": {}, "folds": FOLDS,
    }  # fmt: skip
    return Pair(**fields | changed)


def comparison(runs: list[RunRecord], pairs: list[Pair], holdout: str | None = None) -> Comparison:
    return Comparison(
        schema=2, synthetic=False, holdout=holdout, headline="AUC of MEL", labels=["MEL"], images=1, lesions=1,
        positives={"MEL": 1}, data=DATA, runs=runs, pairs=pairs, bootstrap=BootstrapSettings(100, 0, 0.95, 0.95),
        differences={}, environment=ENVIRONMENT, finished="2026-01-02",
    )  # fmt: skip


def test_two_that_cannot_be_separated() -> None:
    two = comparison([run("x"), run("y")], [pair("x", "y", (-0.01, 0.018), 0.43)])
    assert conclusions(two) == [
        "x and y cannot be separated on these folds: AUC of MEL differs by 0.004 (95 % interval -0.010 to +0.018, x "
        "less y; p 0.43). This does not show that they are equal: these images also agree with a difference of 0.018. "
        "The interval over the 5 folds agrees (-0.030 to +0.030)."
    ]


def test_a_separated_pair_is_described_from_the_better_run() -> None:
    folds = FoldInterval(-0.04, -0.06, -0.02, folds=5, seeds=1)
    two = comparison([run("x"), run("y")], [pair("x", "y", (-0.064, -0.02), 0.0012, folds=folds)])
    assert conclusions(two) == [
        "y is separated from x on these folds: its AUC of MEL is 0.042 higher (95 % interval +0.020 to +0.064; p "
        "0.001). The interval over the 5 folds agrees (+0.020 to +0.060)."
    ]


@pytest.mark.parametrize(
    ("ends", "folds", "expected"),
    [
        ((0.01, 0.05), (-0.01, 0.05), "does not confirm it (-0.010 to +0.050): other training images"),
        ((0.01, 0.05), (-0.05, -0.01), "does not confirm it (-0.050 to -0.010)"),
        ((-0.01, 0.05), (0.01, 0.05), "alone excludes 0 (+0.010 to +0.050); the one over lesions does not, so no"),
    ],
)
def test_an_interval_over_folds_that_disagrees_is_reported(
    ends: tuple[float, float], folds: tuple[float, float], expected: str
) -> None:
    over = FoldInterval(0.0, *folds, folds=5, seeds=1)
    line = conclusions(comparison([run("x"), run("y")], [pair("x", "y", ends, 0.01, folds=over)]))[0]
    assert expected in line
    lead = "Is x better than y? For these very models: yes; for the architectures: not shown. x is separated from y"
    assert line.startswith(lead) is (ends[0] > 0)


def three(separated: tuple[bool, bool]) -> Comparison:
    ends = [(0.01, 0.05) if each else (-0.01, 0.05) for each in separated]
    pairs = [pair("x", "y", ends[0], 0.01), pair("x", "z", ends[1], 0.01), pair("y", "z", (-0.1, 0.1), 0.9)]
    return comparison([run("x", 0.9), run("y"), run("z")], pairs)


@pytest.mark.parametrize(
    ("separated", "expected"),
    [
        ((True, True), "It is separated from every other run."),
        ((True, False), "It is separated from y, and not from z."),
        ((False, False), "It is separated from none of the others: no run is shown to be the best."),
    ],
)
def test_of_three_the_highest_leads(separated: tuple[bool, bool], expected: str) -> None:
    lines = conclusions(three(separated))
    assert lines[0] == f"Highest AUC of MEL: x, 0.900 (95 % interval 0.880 to 0.920). {expected}"
    assert len(lines) == 4
    assert "simultaneous 95 % interval" in lines[1]
    assert "corrected p 0.010" in lines[1]


def test_a_metric_that_is_not_defined_is_reported_with_its_reason() -> None:
    nothing = NotDefined("No image is known to have the label.")
    runs = [run(name, metrics={"MEL": {"auc": nothing}}) for name in "xyz"]
    pairs = [pair(*names, (-1, 1), None, simultaneous=nothing) for names in ("xy", "xz", "yz")]
    lines = conclusions(comparison(runs, pairs))
    assert lines[0] == "No run has an AUC of MEL: No image is known to have the label."
    assert lines[1] == "x and y cannot be compared by AUC of MEL: No image is known to have the label."


def test_identical_and_constant_predictions_are_named() -> None:
    two = comparison([run("x"), run("y", constant=["MEL"])], [pair("x", "y", (0, 0), 1.0, identical=True)])
    first, second = conclusions(two)
    assert first == "x and y cannot be separated on these folds: they predict the same for every image."
    assert second.startswith("y gives every image the same probability of MEL")


def test_the_limits_depend_on_the_compared_runs() -> None:
    two = [run("x"), run("y", seed=1)]
    text = " ".join(limits(comparison(two, [pair("x", "y", (-1, 1), 0.5)])))
    assert "one seed (0 and 1)" in text
    assert "Holm" not in text
    assert "every metric here is optimistic" in text
    assert "Hours and speeds are of the machine" in text
    assert "The Brier score is of raw probabilities" in text
    assert "evaluations made elsewhere cannot be known" in " ".join(limits(comparison(two, [], holdout="2017-test")))
    text = " ".join(limits(replace(three((True, True)), differences={"machine cores": [2, 4, 4]})))
    assert "over 3 pairs with Holm's correction" in text
    assert "trained on different machines or devices" in text
    earlier = (EarlierEvaluation("w", 1, "2026", None),)
    repeated = [run("x", repeats=3), run("y", cost=replace(GPU, device=None), earlier=earlier)]
    text = " ".join(limits(comparison(repeated, [pair("x", "y", (-1, 1), 0.5)], holdout="2017-test")))
    assert "Seeds: x with 3 and y with 1" in text
    assert "besides those compared: 1." in text
    assert "optimistic once more" not in text
    assert "The folds of a run were trained on different devices" in text


def test_numbers_are_rounded_for_display() -> None:
    assert [signed(value) for value in (0.0004, -0.0004, 0.0041, -0.0041)] == ["0.000", "0.000", "+0.004", "-0.004"]
    assert [p_value(value) for value in (0.0, 0.0009, 0.0123, 0.4321, 1.0)] == [
        "< 0.001", "< 0.001", "0.012", "0.43", "1.00",
    ]  # fmt: skip
