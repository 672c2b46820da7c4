from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from melanoma_dist.artifacts.predictions import arrays
from melanoma_dist.artifacts.records import write_record
from melanoma_dist.artifacts.summary import SeedRepeats
from melanoma_dist.evaluate.comparison import paired
from melanoma_dist.evaluate.comparison.command import describe
from melanoma_dist.evaluate.comparison.paired import COMPARED, resamples_for
from melanoma_dist.evaluate.comparison.runs import ComparedRun, read_out_of_fold_runs
from melanoma_dist.metrics.bootstrap import draw, strata_of
from melanoma_dist.metrics.cross_validation import over_folds
from melanoma_dist.metrics.delong import delong
from melanoma_dist.metrics.intervals import tail

from .run_folders import FOLDS, LABELS, compared_run, images, scores, write_run


def pair_up(runs: Sequence[ComparedRun], resamples: int) -> dict[str, Any]:
    """Runs, pairs and bootstrap as ``comparison.json`` holds them."""
    metrics, pairs, settings = paired.pair_up(runs, resamples)
    return {
        "runs": [asdict(run) for run in metrics],
        "pairs": [asdict(pair) for pair in pairs],
        "bootstrap": asdict(settings),
    }


@pytest.fixture(scope="module")
def three() -> list[ComparedRun]:
    table = images(60)
    return [
        compared_run(name, table, scores(table, strength, seed))
        for name, strength, seed in (("good", 1.4, 1), ("alike", 1.35, 2), ("bad", 0.3, 3))
    ]


@pytest.fixture(scope="module")
def results(three: list[ComparedRun]) -> dict[str, Any]:
    return pair_up(three, resamples=400)


def metrics_of(table: pd.DataFrame, label: str) -> dict[str, float]:
    rows = table[table[f"{label}_true"].notna()]
    truth, score = rows[f"{label}_true"].to_numpy(), rows[label].to_numpy()
    false, true, _ = metrics.roc_curve(truth, score, drop_intermediate=False)
    recall = [metrics.recall_score(truth, score >= 0.5, pos_label=kind) for kind in (1, 0)]
    return {
        "auc": metrics.roc_auc_score(truth, score),
        "average_precision": metrics.average_precision_score(truth, score),
        "sensitivity": recall[0],
        "specificity": recall[1],
        "balanced_accuracy": sum(recall) / 2,
        "specificity_at_90": 1 - false[np.argmax(true >= 0.9)],
        "brier": metrics.brier_score_loss(truth, score),
    }


def test_the_metrics_are_those_of_scikit_learn(three: list[ComparedRun], results: dict[str, Any]) -> None:
    for run, result in zip(three, results["runs"], strict=True):
        for label in LABELS:
            expected = metrics_of(run.table, label)
            assert {metric: result["metrics"][label][metric]["estimate"] for metric in COMPARED} == pytest.approx(
                expected, rel=1e-5
            )
            assert result["delong"][label]["auc"] == pytest.approx(expected["auc"])
        assert result["metrics"]["macro"]["auc"]["estimate"] == pytest.approx(
            np.mean([metrics_of(run.table, label)["auc"] for label in LABELS])
        )
        by_fold = {str(fold): metrics_of(rows, "MEL")["auc"] for fold, rows in run.table.groupby("fold")}
        assert result["folds"] == pytest.approx(by_fold)


def test_the_paired_bootstrap_equals_brute_force_over_the_drawn_lesions(three: list[ComparedRun]) -> None:
    results = pair_up(three, resamples=50)
    first, second = three[0].table, three[1].table
    group = pd.factorize(first["group"], sort=True)[0]
    strata = strata_of(arrays(first, LABELS)[0], group)
    differences: dict[str, list[float]] = {figure: [] for figure in COMPARED}
    for block in range(2):
        weights = draw(strata, (32, 18)[block], np.random.default_rng([0, block]))
        for at in range(weights.shape[1]):
            rows = np.repeat(np.arange(len(first)), weights[group, at].astype(int))
            one, two = metrics_of(first.iloc[rows], "MEL"), metrics_of(second.iloc[rows], "MEL")
            for figure in COMPARED:
                differences[figure].append(one[figure] - two[figure])
    pair = results["pairs"][0]
    negatives, positives = (first.loc[first["MEL_true"] == kind, "group"].nunique() for kind in (0, 1))
    for figure, values in differences.items():
        interval = pair["metrics"]["MEL"][figure]
        kinds = {"sensitivity": [positives], "specificity": [negatives], "brier": [first["group"].nunique()]}
        share = tail(0.95, min(kinds.get(figure, [positives, negatives])))
        assert [interval["low"], interval["high"]] == pytest.approx(
            np.quantile(values, [share, 1 - share]).tolist(), abs=1e-5
        )
    share = tail(1 - 0.05 / 3, min(positives, negatives))
    ends = np.quantile(differences["auc"], [share, 1 - share]).tolist()
    assert [pair["simultaneous"]["low"], pair["simultaneous"]["high"]] == pytest.approx(ends, abs=1e-5)
    assert results["bootstrap"]["simultaneous_level"] == pytest.approx(1 - 0.05 / 3)


def test_delong_of_many_runs_equals_that_of_two_runs_alone(three: list[ComparedRun], results: dict[str, Any]) -> None:
    for pair in results["pairs"]:
        one, two = (next(run.table for run in three if run.name == pair[side]) for side in ("first", "second"))
        both = np.stack([one["MEL"], two["MEL"]], axis=1).astype(float)
        alone = delong(one["MEL_true"].to_numpy(), both, one["group"].to_numpy()).difference()
        assert pair["p"] == pytest.approx(alone.p)
        assert pair["delong"]["MEL"]["low"] == pytest.approx(alone.low)


def test_the_interval_over_folds_comes_from_the_differences_of_the_folds(results: dict[str, Any]) -> None:
    good, _, bad = (run["folds"] for run in results["runs"])
    expected = over_folds([good[fold] - bad[fold] for fold in good])
    interval = results["pairs"][1]["folds"]
    assert interval == {
        "difference": pytest.approx(expected.mean), "low": pytest.approx(expected.low),
        "high": pytest.approx(expected.high), "folds": FOLDS, "seeds": 1,
    }  # fmt: skip


def test_folds_that_all_differ_alike_make_no_interval(three: list[ComparedRun]) -> None:
    """Their deviation is 0, which would make an interval of one point."""
    (pair,) = pair_up([three[0], replace(three[0], name="copy")], resamples=20)["pairs"]
    assert pair["folds"] == {"not_defined": "Every fold has the same difference, 0: that is no evidence of none."}


def test_repeated_runs_are_compared_over_folds_and_seeds(three: list[ComparedRun]) -> None:
    rng = np.random.default_rng(0)
    aucs = [rng.uniform(0.7, 0.9, (FOLDS, 2)).tolist() for _ in range(2)]

    def repeated(at: int, seeds: list[int]) -> ComparedRun:
        rows = tuple(tuple(row) for row in aucs[at])
        repeats = SeedRepeats(tuple(seeds), {"MEL": rows}, {}, {})
        return replace(three[at], summary=replace(three[at].summary, repeats=2, seed_repeats=repeats))

    expected = over_folds((np.array(aucs[0]) - np.array(aucs[1])).ravel().tolist(), repeats=2)
    interval = pair_up([repeated(0, [0, 1]), repeated(1, [0, 1])], resamples=20)["pairs"][0]["folds"]
    assert (interval["folds"], interval["seeds"]) == (FOLDS, 2)
    assert [interval["low"], interval["high"]] == pytest.approx([expected.low, expected.high])
    for other in (repeated(1, [1, 2]), three[1]):
        assert pair_up([repeated(0, [0, 1]), other], resamples=20)["pairs"][0]["folds"]["seeds"] == 1
    aucs[1][0][0] = None
    assert pair_up([repeated(0, [0, 1]), repeated(1, [0, 1])], resamples=20)["pairs"][0]["folds"]["seeds"] == 1


def test_p_values_are_corrected_over_all_pairs(results: dict[str, Any]) -> None:
    """Holm by hand: the smallest times 3, the next times 2, the last as it is, never falling."""
    ordered = sorted(results["pairs"], key=lambda pair: float(pair["p"]))
    lowest = 0.0
    for times, pair in zip((3, 2, 1), ordered, strict=True):
        lowest = max(lowest, min(1, times * pair["p"]))
        assert pair["p_corrected"] == pytest.approx(lowest)


def test_runs_that_differ_are_separated_and_others_are_not(results: dict[str, Any]) -> None:
    assert [(pair["separated"], pair["better"]) for pair in results["pairs"]] == [
        (False, None), (True, "good"), (True, "alike"),
    ]  # fmt: skip


def test_the_order_of_two_runs_changes_only_the_sign(three: list[ComparedRun]) -> None:
    one, other = (pair_up(runs, resamples=200)["pairs"][0] for runs in (three[1:], three[:0:-1]))
    assert one["better"] == other["better"] == "alike"
    assert one["p"] == pytest.approx(other["p"])
    assert one["simultaneous"]["low"] == pytest.approx(-other["simultaneous"]["high"])


def test_both_tests_must_agree(monkeypatch: pytest.MonkeyPatch, three: list[ComparedRun]) -> None:
    monkeypatch.setattr("melanoma_dist.evaluate.comparison.paired.holm", lambda p: [0.06] * len(p))
    assert not any(pair["separated"] for pair in pair_up(three, resamples=100)["pairs"])


def test_identical_predictions_differ_by_0(three: list[ComparedRun]) -> None:
    table = three[0].table
    twin = compared_run("twin", images(60), table[list(LABELS)].to_numpy())
    pair = pair_up([three[0], twin], resamples=100)["pairs"][0]
    assert pair["identical"]
    assert (pair["p"], pair["separated"]) == (1.0, False)
    assert {pair["simultaneous"][key] for key in ("estimate", "low", "high")} == {0.0}


def test_the_same_ranks_on_another_scale_have_the_same_auc(three: list[ComparedRun]) -> None:
    halved = compared_run("halved", images(60), three[0].table[list(LABELS)].to_numpy() / 2)
    pair = pair_up([three[0], halved], resamples=100)["pairs"][0]
    assert (pair["identical"], pair["p"], pair["simultaneous"]["high"]) == (False, 1.0, 0.0)
    assert pair["metrics"]["MEL"]["brier"]["estimate"] != 0


def test_ties_and_constants_have_defined_values() -> None:
    table = images(60)
    tied = compared_run("tied", table, scores(table, 1.0, 1).round(1))
    flat = compared_run("flat", table, np.full((len(table), 2), 0.3, dtype=np.float32))
    results = pair_up([tied, flat], resamples=200)
    assert results["runs"][0]["metrics"]["MEL"]["auc"]["estimate"] == pytest.approx(
        metrics_of(tied.table, "MEL")["auc"]
    )
    assert results["runs"][1]["metrics"]["MEL"]["auc"]["estimate"] == 0.5
    assert results["runs"][1]["constant"] == ["MEL", "BKL"]
    assert results["pairs"][0]["better"] == "tied"


def test_a_perfect_run_and_a_constant_one_have_no_variance_and_no_test() -> None:
    table = images(60)
    perfect = compared_run("perfect", table, table[["MEL_true", "BKL_true"]].fillna(0.5).to_numpy(dtype=np.float32))
    flat = compared_run("flat", table, np.full((len(table), 2), 0.3, dtype=np.float32))
    comparison = asdict(describe([perfect, flat], resamples=100))
    pair = comparison["pairs"][0]
    assert "variance of the difference is 0" in pair["delong"]["MEL"]["not_defined"]
    assert (pair["p"], pair["p_corrected"], pair["separated"]) == (None, None, False)
    assert "no test: The estimated variance" in comparison["conclusions"][0]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [(0.0, "No image is known to have"), (1.0, "Every image"), (np.nan, "Of no image is it known")],
)
@pytest.mark.parametrize("label", LABELS)
def test_a_label_of_one_kind_of_image_is_not_defined_with_a_reason(label: str, answer: float, reason: str) -> None:
    table = images(60)
    table[f"{label}_true"] = np.float32(answer)
    runs = [compared_run(str(seed), table, scores(images(60), 1, seed)) for seed in (1, 2)]
    comparison = asdict(describe(runs, resamples=100))
    json.dumps(comparison, allow_nan=False)
    for entry in (*comparison["runs"], *comparison["pairs"]):
        assert entry["metrics"][label]["auc"]["not_defined"].startswith(reason)
        assert "not_defined" in entry["delong"][label]
    if label == "MEL":
        pair = comparison["pairs"][0]
        assert (pair["separated"], pair["p"]) == (False, None)
        assert comparison["conclusions"] == [f"1 and 2 cannot be compared by AUC of MEL: {reason_of(pair)}"]
        assert pair["folds"]["not_defined"].startswith("0 of 3 folds")
    else:
        assert comparison["pairs"][0]["p"] is not None


def reason_of(pair: dict[str, Any]) -> str:
    return str(pair["metrics"]["MEL"]["auc"]["not_defined"])


def test_one_lesion_with_melanoma_allows_no_test() -> None:
    table = images(60)
    table["MEL_true"] = (table["group"] == "lesion-0000").astype(np.float32)
    pair = pair_up([compared_run(str(seed), table, scores(images(60), 1, seed)) for seed in (1, 2)], 100)["pairs"][0]
    assert "2 groups with positives" in pair["delong"]["MEL"]["not_defined"]
    assert not pair["separated"]
    assert "1 of 3 folds" in pair["folds"]["not_defined"]


def test_more_pairs_need_more_resamples() -> None:
    assert [resamples_for(pairs, 10**6) for pairs in (1, 3, 5, 10, 45)] == pytest.approx(
        [2000, 2000, 2000, 4000, 18000], abs=10
    )
    assert resamples_for(10, 30) > 5000
    assert resamples_for(10, 2) == 20_000
    assert resamples_for(10, 0) == resamples_for(10, 1) == 2000


def test_the_comparison_of_two_run_folders_is_plain_json(tmp_path: Path) -> None:
    table = images(60)
    runs = [
        write_run(tmp_path, name, table.sample(frac=1, random_state=seed).sort_index(), scores(table, 1, seed))
        for seed, name in enumerate(("a", "b"))
    ]
    write_record(tmp_path / "comparison.json", describe(read_out_of_fold_runs(runs), resamples=100))
    comparison = json.loads((tmp_path / "comparison.json").read_text())
    assert comparison["differences"] == {"model.backbone": ["a", "b"]}
    assert [run["cost"]["device_hours"] for run in comparison["runs"]] == [1.0, 1.0]
    assert (comparison["images"], comparison["lesions"]) == (80, 60)
    assert comparison["positives"] == {"MEL": table["MEL_true"].sum(), "BKL": table["BKL_true"].sum()}
