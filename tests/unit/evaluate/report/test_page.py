from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from melanoma_dist.errors import DataError
from melanoma_dist.evaluate.report.cells import NAMES
from melanoma_dist.evaluate.report.page import write_report
from melanoma_dist.evaluate.report.statements import flagged_subgroups, subgroup_threshold
from melanoma_dist.evaluate.report.tables import MAIN, MORE
from melanoma_dist.metrics.classification import predictive_values

from .conftest import ReportedRun, report_page
from .folder import predictions, write_evaluation, write_run

SYNTHETIC = "SYNTHETIC DATA"


def with_interval(estimate: dict[str, Any]) -> str:
    return f"{estimate['estimate']:.3f} | {estimate['low']:.3f} to {estimate['high']:.3f}"


def test_every_metric_of_every_row_is_the_summarys_with_its_interval(reported: ReportedRun) -> None:
    parts = [("Out of fold", reported.summary["out_of_fold"]), ("2017-test", reported.evaluations[0]["ensemble"])]
    compared = 0
    for where, assessment in parts:
        for unit, word in (("by_image", "image"), ("by_lesion", "lesion")):
            for row, figures in assessment["intervals"][unit].items():
                if row == "official":
                    continue
                for name in (*MAIN, *MORE):
                    suffix = "" if name in MAIN else ", further metrics"
                    raw = " of raw probabilities" * (where == "Out of fold" and name in ("brier", "calibration_error"))
                    cell = reported.page.column(f"{where}, per {word}{suffix}", NAMES[name] + raw)[row]
                    assert cell == with_interval(figures[name])
                    compared += 1
    assert compared == 2 * 2 * 5 * 15


def test_delong_and_counts_stand_beside_the_auc(reported: ReportedRun) -> None:
    own = reported.summary["out_of_fold"]
    for label in ("MEL", "NV", "BKL"):
        found = own["delong"]["by_image"][label]
        cells = reported.page.column("Out of fold, per image", "AUC, DeLong interval")
        assert cells[label] == f"{found['low']:.3f} to {found['high']:.3f}"
        entry = own["by_image"]["labels"][label]
        counts = reported.page.column("Out of fold, per image", "positives of known")[label]
        assert counts == f"{entry['positives']} of {entry['positives'] + entry['negatives']}"
        assert reported.page.column("Out of fold, per image", "unknown")[label] == str(entry["unknown"])


def test_unseen_images_lead_and_the_out_of_fold_auc_is_called_optimistic(reported: ReportedRun) -> None:
    unseen = reported.evaluations[0]["ensemble"]["intervals"]["by_image"]["MEL"]["auc"]
    own = reported.summary["out_of_fold"]["intervals"]["by_image"]["MEL"]["auc"]
    title = reported.text[reported.text.index("<h1>") : reported.text.index("</h1>")]
    ends = f"95 % interval {unseen['low']:.3f} to {unseen['high']:.3f}"
    assert f"{unseen['estimate']:.3f} ({ends}) on unseen images, 2017-test (evaluation 1)" in title
    boxes = reported.text[reported.text.index('class="headlines"') : reported.text.index('id="trained"')]
    assert boxes.index(f"{unseen['estimate']:.3f}") < boxes.index(f"{own['estimate']:.3f}")
    assert "slightly optimistic, because each fold chose its epoch on the images that measure it" in boxes


def test_folds_and_their_spread_are_the_summarys(reported: ReportedRun) -> None:
    for fold, found in reported.summary["folds"].items():
        entry = found["labels"]["MEL"]
        for name in ("auc", "sensitivity", "specificity", "precision"):
            cells = reported.page.column("Each fold (threshold: probability 0.5)", NAMES[name])
            assert cells[f"fold {fold}"] == f"{entry[name]:.3f}"
    for label, found in reported.summary["over_folds"].items():
        auc = found["auc"]
        assert reported.page.column("AUC over the folds", "mean")[label] == f"{auc['mean']:.3f}"
        ends = reported.page.column("AUC over the folds", "95 % interval, corrected")[label]
        assert ends == f"{auc['low']:.3f} to {auc['high']:.3f}"


def test_the_variance_of_folds_stands_against_that_of_seeds(reported: ReportedRun) -> None:
    parts = reported.summary["repeats_of"]["components"]["MEL"]
    caption = "Standard deviation of the AUC by where it comes from"
    assert reported.page.column(caption, "between folds")["MEL"] == f"{parts['folds'] ** 0.5:.4f}"
    assert reported.page.column(caption, "between seeds")["MEL"] == f"{parts['seeds'] ** 0.5:.4f}"


def test_operating_points_where_chosen_and_evaluated_with_predictive_values(reported: ReportedRun) -> None:
    header, *rows = reported.page.tables["Operating points of MEL"]
    points = reported.summary["operating_points"]["MEL"]
    assert len(rows) == 3 * len(points)
    for at, point in enumerate(points):
        chosen = dict(zip(header, rows[3 * at], strict=True))
        assert (chosen["sensitivity"], chosen["threshold"]) == (
            f"{point['sensitivity']:.3f}",
            f"{point['threshold']:.4f}",
        )
        assert chosen["where"] == "where it was chosen | out of fold: optimistic"
        judged = dict(zip(header, rows[3 * at + 1], strict=True))
        found = reported.evaluations[0]["operating_points"]["MEL"][at]["judged"]
        assert judged["where"] == "2017-test (evaluation 1)"
        assert judged["specificity"] == with_interval(found["specificity"])
        assert judged["TP"] == str(found["true_positives"])
        values = predictive_values(found["sensitivity"]["estimate"], found["specificity"]["estimate"], 0.05)
        assert (judged["PPV at 5%"], judged["NPV at 5%"]) == tuple(f"{value:.3f}" for value in values)
    assert sum(int(rows[0][header.index(name)]) for name in ("TP", "FN")) == points[0]["positives"]


def test_predictive_values_at_the_prevalence_that_the_evaluation_stated(reported: ReportedRun) -> None:
    caption = "2017-test at a prevalence of 0.05, per image, further metrics"
    found = reported.evaluations[0]["ensemble"]["intervals"]["by_image"]["MEL"]
    assert reported.page.column(caption, "PPV")["MEL"] == with_interval(found["ppv"])
    assert reported.page.column(caption, "NPV")["MEL"] == with_interval(found["npv"])


def test_subgroups_have_counts_intervals_and_their_flags(reported: ReportedRun) -> None:
    for found in reported.summary["subgroups"]:
        name = f"{found['attribute']}: {found['value']}"
        assert reported.page.column("Subgroups, out of fold", "images")[name] == str(found["images"])
        cell = reported.page.column("Subgroups, out of fold", "AUC")[name]
        auc = found["auc"]
        assert cell == (f"– | {auc['not_defined']}" if "not_defined" in auc else with_interval(auc))
        flag = reported.page.column("Subgroups, out of fold", "flag")[name]
        assert flag == ("differs" if found["gap"].get("flagged") else "")


def test_subgroups_state_their_threshold_and_that_p_is_corrected(reported: ReportedRun) -> None:
    (point,) = [each for each in reported.summary["operating_points"]["MEL"] if each["name"] == "Youden"]
    at = f"{point['threshold']:.4f}"
    header = reported.page.tables["Subgroups, out of fold"][0]
    assert {f"sensitivity at {at}", f"specificity at {at}", "p, Holm-corrected"} <= set(header)
    assert f"a calibrated probability of {at}, the operating point of Youden" in reported.page.text


def test_a_missing_flag_is_not_equality() -> None:
    gap = {"difference": -0.01, "low": -0.03, "high": 0.02, "p": 1.0, "flagged": False}
    kept = {"attribute": "sex", "value": "male", "gap": gap}
    few = {"attribute": "sex", "value": "female", "gap": {"not_defined": "few"}}
    assert (
        flagged_subgroups([kept, few])
        == "No subgroup is flagged after Holm's correction; that does not show them equal."
    )
    assert (
        flagged_subgroups([{**kept, "gap": {**gap, "flagged": True}}]) == "Flagged after Holm's correction: sex male."
    )
    assert flagged_subgroups([few]) == "No subgroup could be tested: each, or the rest, has too few lesions."


def test_without_points_subgroups_use_the_runs_threshold() -> None:
    summary = {"operating_points": {"MEL": {"not_chosen": "few"}}, "threshold": 0.5}
    assert subgroup_threshold(summary) == (0.5, "a raw probability of 0.5000, as no operating point could be chosen")


def test_certain_shares_of_an_earlier_version_are_not_shown(tmp_path: Path) -> None:
    write_run(tmp_path, labels=("MEL",), folds=2, images=120)
    record = write_evaluation(tmp_path)
    sure, wide = ({"estimate": 1.0, "low": low, "high": 1.0} for low in (1.0, 0.8))
    judged = record["operating_points"]["MEL"][0]["judged"]
    judged["sensitivity"], judged["specificity"] = sure, wide
    record["subgroups"][0]["specificity"] = {"estimate": 0.0, "low": 0.0, "high": 0.0}
    record["ensemble"]["by_image"]["labels"]["MEL"]["sensitivity"] = 1.0
    record["ensemble"]["intervals"]["by_image"]["MEL"]["sensitivity"] = {**sure, "undefined": 0}
    (tmp_path / "evaluations" / "001-2017-test" / "evaluation.json").write_text(json.dumps(record))
    page = report_page(tmp_path)
    header, _, row, *_ = page.tables["Operating points of MEL"]
    cells, why = dict(zip(header, row, strict=True)), "– | computed by an earlier version; "
    assert (cells["sensitivity"], cells["PPV at 5%"]) == (why + "evaluate again", why + "evaluate again")
    assert cells["specificity"] == "1.000 | 0.800 to 1.000"
    table = page.tables["Subgroups, 2017-test (evaluation 1)"]
    assert table[1][7] == why + "evaluate again"
    assert page.column("2017-test, per image", "sensitivity")["MEL"] == why + "compute it again"


def test_a_label_that_unseen_images_lack_has_its_reason(reported: ReportedRun) -> None:
    assert reported.page.column("2019-test, per image", "AUC")["BKL"] == "– | no image of 2019-test tells it"


def test_nothing_is_fetched_from_elsewhere_and_nothing_runs(reported: ReportedRun) -> None:
    for tag, attributes in reported.page.elements:
        assert tag not in ("script", "link", "iframe", "object")
        for name in ("src", "href", "xlink:href"):
            value = attributes.get(name) or ""
            assert value.startswith(("#", "data:")) or not value
    assert not re.findall(r"url\((?!#)", reported.text)
    assert "@import" not in reported.text


def test_every_plot_has_a_text_alternative_and_its_numbers_in_a_table(reported: ReportedRun) -> None:
    plots = [attributes for attributes in reported.page.having("div") if attributes.get("role") == "img"]
    assert (
        len(plots)
        == len(reported.page.having("svg"))
        == reported.text.count("<summary>The numbers behind it</summary>")
    )
    assert len(plots) > 10
    own = reported.summary["out_of_fold"]["intervals"]["by_image"]["MEL"]["auc"]
    said = [attributes["aria-label"] or "" for attributes in plots]
    assert all(re.search(r"\d", text) for text in said)
    assert any(f"out of fold AUC {own['estimate']:.3f}, 95 % interval {own['low']:.3f}" in text for text in said)


def test_headings_are_in_order_and_headers_have_a_scope(reported: ReportedRun) -> None:
    levels = [int(tag[1]) for tag, _ in reported.page.elements if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels))
    assert all(attributes.get("scope") in ("col", "row") for attributes in reported.page.having("th"))
    assert dict(reported.page.having("html")[0])["lang"] == "en"
    anchors = {attributes["id"] for _, attributes in reported.page.elements if "id" in attributes}
    assert {link["href"] for link in reported.page.having("a")} <= {f"#{anchor}" for anchor in anchors}


def test_the_record_is_complete_and_the_page_is_the_same_each_time(reported: ReportedRun) -> None:
    assert (reported.folder / "config.yaml").read_text().strip() in reported.page.text
    assert reported.summary["data"]["fingerprint"] in reported.page.text
    assert '"libraries"' in reported.page.text
    write_report(reported.folder)
    assert (reported.folder / "report.html").read_text() == reported.text
    assert len(reported.text) < 4e6


def test_only_synthetic_data_is_called_synthetic(reported: ReportedRun, tmp_path: Path) -> None:
    assert SYNTHETIC not in reported.text
    write_run(tmp_path, labels=("MEL",), folds=2, images=120, synthetic=True)
    page = report_page(tmp_path)
    assert SYNTHETIC in page.text
    assert "No evaluation on unseen images" in page.text
    assert "This run has no pictures" in page.text
    assert "micro" not in page.text  # one label is its own mean


def test_an_undefined_metric_has_a_dash_and_its_reason(tmp_path: Path) -> None:
    """A fold without melanomas, a label that no image has, and images of which nothing is known."""
    table = predictions(1, 240, ("MEL", "NV", "BKL"), 3, "ISIC")
    table.loc[(table["fold"] == 0) & (table["MEL_true"] == 1), "MEL_true"] = 0
    table["NV_true"] = np.where(table["NV_true"] == 1, 0, table["NV_true"]).astype(np.float32)
    table["BKL_true"] = np.float32(np.nan)
    write_run(tmp_path, table=table)
    for fold in range(3):  # a training needs melanomas in its validation
        path = tmp_path / f"fold-{fold}" / "metrics.jsonl"
        path.write_text((tmp_path / "fold-1" / "metrics.jsonl").read_text())
    page = report_page(tmp_path)
    assert page.column("Each fold (threshold: probability 0.5)", "AUC")["fold 0"] == "– | no image has it"
    own = page.column("Out of fold, per image", "AUC")
    assert own["NV"] == "– | no image has it"
    assert own["BKL"] == "– | no truth is known"
    assert page.column("AUC over the folds", "mean")["NV"] == "– | fewer than two folds define it"
    assert "NV: no operating point (" in page.text
    assert "nan" not in page.text.lower().split()


def test_a_leak_is_marked_at_the_top(tmp_path: Path) -> None:
    write_run(tmp_path, labels=("MEL",), folds=2, images=120)
    assert "DOES NOT HOLD" not in report_page(tmp_path).text
    path = tmp_path / "predictions.parquet"
    table = predictions(1, 120, ("MEL",), 2, "ISIC")
    assert table.loc[0, "fold"] != table.loc[1, "fold"]
    table.loc[1, "group"] = table.loc[0, "group"]
    table.to_parquet(path)
    page = report_page(tmp_path)
    assert "DOES NOT HOLD: The folds share no lesion" in page.text
    assert "No metric of this page is valid" in page.text


@pytest.mark.parametrize("damage", ["unfinished", "no json"])
def test_an_unfinished_or_corrupt_run_is_refused(tmp_path: Path, damage: str) -> None:
    if damage == "no json":
        (tmp_path / "summary.json").write_text("{")
        write_predictions_of(tmp_path)
    with pytest.raises(DataError, match=r"no finished run|is damaged"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("labels", ["MEL", [], [1], None])
def test_labels_that_are_no_list_of_names_are_refused(tmp_path: Path, labels: Any) -> None:
    (tmp_path / "summary.json").write_text(json.dumps({"labels": labels}))
    with pytest.raises(DataError, match=r"summary\.json: is damaged \(labels must be a list of names"):
        write_report(tmp_path)


def write_predictions_of(folder: Path) -> None:
    predictions(1, 30, ("MEL",), 2, "ISIC").to_parquet(folder / "predictions.parquet")
    (folder / "config.yaml").write_text("{}")
    (folder / "record.json").write_text(json.dumps({}))
