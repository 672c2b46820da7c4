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
from melanoma_dist.evaluate.report.groups import flagged, threshold
from melanoma_dist.evaluate.report.page import write_report
from melanoma_dist.evaluate.report.tables import MAIN, MORE
from melanoma_dist.metrics.classification import predictive_values

from .conftest import Made, shown
from .folder import predictions, write_evaluation, write_run

SYNTHETIC = "SYNTHETIC DATA"


def written(found: dict[str, Any]) -> str:
    return f"{found['estimate']:.3f} | {found['low']:.3f} to {found['high']:.3f}"


def test_every_figure_of_every_row_is_the_summarys_with_its_interval(made: Made) -> None:
    parts = [("Out of fold", made.summary["out_of_fold"]), ("2017-test", made.evaluations[0]["ensemble"])]
    compared = 0
    for where, assessment in parts:
        for unit, word in (("by_image", "image"), ("by_lesion", "lesion")):
            for row, figures in assessment["intervals"][unit].items():
                if row == "official":
                    continue
                for name in (*MAIN, *MORE):
                    suffix = "" if name in MAIN else ", further figures"
                    raw = " of raw probabilities" * (where == "Out of fold" and name in ("brier", "calibration_error"))
                    cell = made.page.column(f"{where}, per {word}{suffix}", NAMES[name] + raw)[row]
                    assert cell == written(figures[name])
                    compared += 1
    assert compared == 2 * 2 * 5 * 15


def test_delong_and_counts_stand_beside_the_auc(made: Made) -> None:
    own = made.summary["out_of_fold"]
    for label in ("MEL", "NV", "BKL"):
        found = own["delong"]["by_image"][label]
        cells = made.page.column("Out of fold, per image", "AUC, DeLong interval")
        assert cells[label] == f"{found['low']:.3f} to {found['high']:.3f}"
        entry = own["by_image"]["labels"][label]
        counts = made.page.column("Out of fold, per image", "positives of known")[label]
        assert counts == f"{entry['positives']} of {entry['positives'] + entry['negatives']}"
        assert made.page.column("Out of fold, per image", "unknown")[label] == str(entry["unknown"])


def test_the_unseen_images_lead_and_the_optimism_of_the_other_figure_is_told(made: Made) -> None:
    unseen = made.evaluations[0]["ensemble"]["intervals"]["by_image"]["MEL"]["auc"]
    own = made.summary["out_of_fold"]["intervals"]["by_image"]["MEL"]["auc"]
    title = made.text[made.text.index("<h1>") : made.text.index("</h1>")]
    ends = f"95 % interval {unseen['low']:.3f} to {unseen['high']:.3f}"
    assert f"{unseen['estimate']:.3f} ({ends}) on unseen images, 2017-test (evaluation 1)" in title
    boxes = made.text[made.text.index('class="headlines"') : made.text.index('id="trained"')]
    assert boxes.index(f"{unseen['estimate']:.3f}") < boxes.index(f"{own['estimate']:.3f}")
    assert "slightly optimistic, because the epoch of each fold was chosen on the images it is judged by" in boxes


def test_folds_and_their_spread_are_the_summarys(made: Made) -> None:
    for fold, found in made.summary["folds"].items():
        entry = found["labels"]["MEL"]
        for name in ("auc", "sensitivity", "specificity", "precision"):
            cells = made.page.column("Each fold (calls at probability 0.5)", NAMES[name])
            assert cells[f"fold {fold}"] == f"{entry[name]:.3f}"
    for label, found in made.summary["over_folds"].items():
        auc = found["auc"]
        assert made.page.column("AUC over the folds", "mean")[label] == f"{auc['mean']:.3f}"
        ends = made.page.column("AUC over the folds", "95 % interval, corrected")[label]
        assert ends == f"{auc['low']:.3f} to {auc['high']:.3f}"


def test_the_variance_of_folds_stands_against_that_of_seeds(made: Made) -> None:
    parts = made.summary["repeats_of"]["components"]["MEL"]
    caption = "Standard deviation of the AUC by where it comes from"
    assert made.page.column(caption, "between folds")["MEL"] == f"{parts['folds'] ** 0.5:.4f}"
    assert made.page.column(caption, "between seeds")["MEL"] == f"{parts['seeds'] ** 0.5:.4f}"


def test_operating_points_where_chosen_and_where_judged_with_predictive_values(made: Made) -> None:
    header, *rows = made.page.tables["Operating points of MEL"]
    points = made.summary["operating_points"]["MEL"]
    assert len(rows) == 3 * len(points)
    for at, point in enumerate(points):
        chosen = dict(zip(header, rows[3 * at], strict=True))
        assert (chosen["sensitivity"], chosen["threshold"]) == (
            f"{point['sensitivity']:.3f}",
            f"{point['threshold']:.4f}",
        )
        assert chosen["where"] == "where it was chosen | out of fold: optimistic"
        judged = dict(zip(header, rows[3 * at + 1], strict=True))
        found = made.evaluations[0]["operating_points"]["MEL"][at]["judged"]
        assert judged["where"] == "2017-test (evaluation 1)"
        assert judged["specificity"] == written(found["specificity"])
        assert judged["TP"] == str(found["true_positives"])
        values = predictive_values(found["sensitivity"]["estimate"], found["specificity"]["estimate"], 0.05)
        assert (judged["PPV at 5%"], judged["NPV at 5%"]) == tuple(f"{value:.3f}" for value in values)
    assert sum(int(rows[0][header.index(name)]) for name in ("TP", "FN")) == points[0]["positives"]


def test_predictive_values_at_the_prevalence_that_the_evaluation_stated(made: Made) -> None:
    caption = "2017-test at a prevalence of 0.05, per image, further figures"
    found = made.evaluations[0]["ensemble"]["intervals"]["by_image"]["MEL"]
    assert made.page.column(caption, "PPV")["MEL"] == written(found["ppv"])
    assert made.page.column(caption, "NPV")["MEL"] == written(found["npv"])


def test_subgroups_have_counts_intervals_and_their_flags(made: Made) -> None:
    for found in made.summary["subgroups"]:
        name = f"{found['attribute']}: {found['value']}"
        assert made.page.column("Subgroups, out of fold", "images")[name] == str(found["images"])
        cell = made.page.column("Subgroups, out of fold", "AUC")[name]
        auc = found["auc"]
        assert cell == (f"not defined | {auc['not_defined']}" if "not_defined" in auc else written(auc))
        flag = made.page.column("Subgroups, out of fold", "flag")[name]
        assert flag == ("differs" if found["gap"].get("flagged") else "")


def test_subgroups_tell_where_they_were_called_and_that_p_is_corrected(made: Made) -> None:
    (point,) = [each for each in made.summary["operating_points"]["MEL"] if each["name"] == "Youden"]
    at = f"{point['threshold']:.4f}"
    header = made.page.tables["Subgroups, out of fold"][0]
    assert {f"sensitivity at {at}", f"specificity at {at}", "p, Holm-corrected"} <= set(header)
    assert f"called at the frozen point of Youden, a calibrated probability of {at}" in made.page.text


def test_no_flag_is_not_told_as_equality() -> None:
    gap = {"difference": -0.01, "low": -0.03, "high": 0.02, "p": 1.0, "flagged": False}
    kept = {"attribute": "sex", "value": "male", "gap": gap}
    few = {"attribute": "sex", "value": "female", "gap": {"not_defined": "few"}}
    assert flagged([kept, few]) == "No subgroup is flagged after Holm's correction; that does not show them equal."
    assert flagged([{**kept, "gap": {**gap, "flagged": True}}]) == "Flagged after Holm's correction: sex male."
    assert flagged([few]) == "No subgroup could be tested: each, or the rest, has too few lesions."


def test_without_points_subgroups_are_called_at_the_runs_threshold() -> None:
    summary = {"operating_points": {"MEL": {"not_chosen": "few"}}, "threshold": 0.5}
    assert threshold(summary) == (0.5, "a raw probability of 0.5000, as no operating point could be chosen")


def test_shares_that_an_earlier_version_told_as_certain_are_not_shown(tmp_path: Path) -> None:
    write_run(tmp_path, labels=("MEL",), folds=2, images=120)
    record = write_evaluation(tmp_path)
    sure, wide = ({"estimate": 1.0, "low": low, "high": 1.0} for low in (1.0, 0.8))
    judged = record["operating_points"]["MEL"][0]["judged"]
    judged["sensitivity"], judged["specificity"] = sure, wide
    record["subgroups"][0]["specificity"] = {"estimate": 0.0, "low": 0.0, "high": 0.0}
    record["ensemble"]["by_image"]["labels"]["MEL"]["sensitivity"] = 1.0
    record["ensemble"]["intervals"]["by_image"]["MEL"]["sensitivity"] = {**sure, "undefined": 0}
    (tmp_path / "evaluations" / "001-2017-test" / "evaluation.json").write_text(json.dumps(record))
    page = shown(tmp_path)
    header, _, row, *_ = page.tables["Operating points of MEL"]
    cells, why = dict(zip(header, row, strict=True)), "not defined | computed by an earlier version; "
    assert (cells["sensitivity"], cells["PPV at 5%"]) == (why + "evaluate again", why + "evaluate again")
    assert cells["specificity"] == "1.000 | 0.800 to 1.000"
    table = page.tables["Subgroups, 2017-test (evaluation 1)"]
    assert table[1][7] == why + "evaluate again"
    assert page.column("2017-test, per image", "sensitivity")["MEL"] == why + "compute it again"


def test_a_label_that_unseen_images_lack_is_told_with_its_reason(made: Made) -> None:
    assert made.page.column("2019-test, per image", "AUC")["BKL"] == "not defined | no image of 2019-test tells it"


def test_nothing_is_fetched_from_elsewhere_and_nothing_runs(made: Made) -> None:
    for tag, attributes in made.page.elements:
        assert tag not in ("script", "link", "iframe", "object")
        for name in ("src", "href", "xlink:href"):
            value = attributes.get(name) or ""
            assert value.startswith(("#", "data:")) or not value
    assert not re.findall(r"url\((?!#)", made.text)
    assert "@import" not in made.text


def test_every_plot_is_told_in_words_and_has_its_numbers_in_a_table(made: Made) -> None:
    plots = [attributes for attributes in made.page.having("div") if attributes.get("role") == "img"]
    assert len(plots) == len(made.page.having("svg")) == made.text.count("<summary>The numbers behind it</summary>")
    assert len(plots) > 10
    own = made.summary["out_of_fold"]["intervals"]["by_image"]["MEL"]["auc"]
    said = [attributes["aria-label"] or "" for attributes in plots]
    assert all(re.search(r"\d", text) for text in said)
    assert any(f"out of fold AUC {own['estimate']:.3f}, 95 % interval {own['low']:.3f}" in text for text in said)


def test_headings_are_in_order_and_headers_have_a_scope(made: Made) -> None:
    levels = [int(tag[1]) for tag, _ in made.page.elements if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels))
    assert all(attributes.get("scope") in ("col", "row") for attributes in made.page.having("th"))
    assert dict(made.page.having("html")[0])["lang"] == "en"
    anchors = {attributes["id"] for _, attributes in made.page.elements if "id" in attributes}
    assert {link["href"] for link in made.page.having("a")} <= {f"#{anchor}" for anchor in anchors}


def test_the_record_is_whole_and_the_page_is_the_same_each_time(made: Made) -> None:
    assert (made.folder / "config.yaml").read_text().strip() in made.page.text
    assert made.summary["data"]["fingerprint"] in made.page.text
    assert '"libraries"' in made.page.text
    write_report(made.folder)
    assert (made.folder / "report.html").read_text() == made.text
    assert len(made.text) < 4e6


def test_synthetic_data_is_called_so_and_real_data_is_not(made: Made, tmp_path: Path) -> None:
    assert SYNTHETIC not in made.text
    write_run(tmp_path, labels=("MEL",), folds=2, images=120, synthetic=True)
    page = shown(tmp_path)
    assert SYNTHETIC in page.text
    assert "No test on unseen images was made" in page.text
    assert "No pictures were prepared" in page.text
    assert "micro" not in page.text  # one label is its own mean


def test_what_is_not_defined_says_so_with_a_reason(tmp_path: Path) -> None:
    """A fold without melanomas, a label that no image has, and images of which nothing is known."""
    table = predictions(1, 240, ("MEL", "NV", "BKL"), 3, "ISIC")
    table.loc[(table["fold"] == 0) & (table["MEL_true"] == 1), "MEL_true"] = 0
    table["NV_true"] = np.where(table["NV_true"] == 1, 0, table["NV_true"]).astype(np.float32)
    table["BKL_true"] = np.float32(np.nan)
    write_run(tmp_path, table=table)
    for fold in range(3):  # a training needs melanomas in its validation
        path = tmp_path / f"fold-{fold}" / "metrics.jsonl"
        path.write_text((tmp_path / "fold-1" / "metrics.jsonl").read_text())
    page = shown(tmp_path)
    assert page.column("Each fold (calls at probability 0.5)", "AUC")["fold 0"] == "not defined | none has it"
    own = page.column("Out of fold, per image", "AUC")
    assert own["NV"] == "not defined | none has it"
    assert own["BKL"] == "not defined | no truth is known"
    assert page.column("AUC over the folds", "mean")["NV"] == "not defined | fewer than two folds define it"
    assert "NV: none was chosen (" in page.text
    assert "nan" not in page.text.lower().split()


def test_a_leak_is_shouted(tmp_path: Path) -> None:
    write_run(tmp_path, labels=("MEL",), folds=2, images=120)
    assert "DOES NOT HOLD" not in shown(tmp_path).text
    path = tmp_path / "predictions.parquet"
    table = predictions(1, 120, ("MEL",), 2, "ISIC")
    assert table.loc[0, "fold"] != table.loc[1, "fold"]
    table.loc[1, "group"] = table.loc[0, "group"]
    table.to_parquet(path)
    page = shown(tmp_path)
    assert "DOES NOT HOLD: The folds are disjoint in lesions" in page.text
    assert "No figure of this page can be believed" in page.text


@pytest.mark.parametrize("damage", ["unfinished", "no json"])
def test_a_run_that_cannot_be_told_is_refused(tmp_path: Path, damage: str) -> None:
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
