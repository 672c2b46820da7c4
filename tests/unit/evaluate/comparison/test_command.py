"""The command: its refusals and its files."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from melanoma_dist.evaluate.comparison.consistency import same_models
from melanoma_dist.evaluate.comparison.output import default_folder

from .command_line import refused, run_compare
from .conftest import TABLE
from .corruptions import change, other_folds, set_identity, swap
from .run_folders import rewrite, scores, summarize_again, write_run

pytestmark = pytest.mark.usefixtures("few")


def test_it_shows_and_writes_the_comparison(runs: list[Path], capfd: pytest.CaptureFixture[str]) -> None:
    code, text = run_compare(capfd, *runs)
    assert code == 0, text
    assert "a and b cannot be separated on these folds: AUC of MEL differs by" in text
    assert "What this does not say: - All runs are measured on the same images" in text
    out = runs[0].parent / "compare-a-b"
    assert sorted(path.name for path in out.iterdir()) == ["comparison.html", "comparison.json"]
    comparison = json.loads((out / "comparison.json").read_text())
    assert comparison["conclusions"][0] in (out / "comparison.html").read_text()
    assert "SYNTHETIC" not in text
    assert run_compare(capfd, *runs, "--out", out.parent / "elsewhere" / "deep")[0] == 0
    again = json.loads((out.parent / "elsewhere" / "deep" / "comparison.json").read_text())
    assert again["pairs"] == comparison["pairs"]


def test_synthetic_data_is_marked_everywhere(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    runs = [write_run(tmp_path, name, TABLE, scores(TABLE, 1, at), synthetic=True) for at, name in enumerate("ab")]
    assert run_compare(capfd, *runs)[1].count("SYNTHETIC DATA: these numbers say nothing about melanoma.") == 3
    assert "SYNTHETIC DATA" in (tmp_path / "compare-a-b" / "comparison.html").read_text()


def test_fewer_than_two_and_the_same_twice(runs: list[Path], capfd: pytest.CaptureFixture[str]) -> None:
    assert "give two or more finished runs, such as `compare RUN RUN`. Runs given: none." in refused(capfd)
    assert "give two or more finished runs" in refused(capfd, runs[0])
    assert "is listed twice" in refused(capfd, runs[0], runs[1], runs[1].parent / "a" / ".." / "b")


def no_summary(run: Path) -> None:
    (run / "summary.json").unlink()


def no_run(run: Path) -> None:
    no_summary(run)
    (run / "record.json").unlink()


def old_summary(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps({key: summary[key] for key in summary if key != "training"}))


def an_image_less(run: Path) -> None:
    for name in ("folds.parquet", "predictions.parquet"):
        rewrite(run / name, lambda table: table.iloc[1:])


def summarized(corrupt: Callable[[Path], None]) -> Callable[[Path], None]:
    """A corruption that the summary agrees with."""

    def both(run: Path) -> None:
        corrupt(run)
        summarize_again(run)

    return both


def flatter(run: Path) -> None:
    """Mix probabilities with the truth in one fold."""

    def mix(table: pd.DataFrame) -> None:
        first = table["fold"] == 0
        table.loc[first, "MEL"] = (table["MEL"] + table["MEL_true"])[first] / 2

    rewrite(run / "predictions.parquet", mix)


def summary(**fields: Any) -> Callable[[Path], None]:
    return lambda run: change(run / "summary.json", **fields)


def a_file(run: Path) -> None:
    shutil.rmtree(run)
    run.write_text("")


def set_value(column: str, value: object) -> Callable[[Path], None]:
    def corrupt(run: Path) -> None:
        rewrite(run / "predictions.parquet", lambda table: table.assign(**{column: [value, *table[column][1:]]}))

    return corrupt


@pytest.mark.parametrize(
    ("corrupt", "expected"),
    [
        (shutil.rmtree, "there is no such folder"),
        (no_summary, "the run is not finished (it has no summary.json). Re-run its command to resume it"),
        (no_run, "this is not a run"),
        (old_summary, "summary.json: has no training. Bring the file back, or delete"),
        (lambda run: (run / "summary.json").write_text("{"), "cannot be read"),
        (lambda run: (run / "summary.json").write_text("[]"), "must hold an object with fields, and holds []"),
        (lambda run: set_identity(run, data="0" * 64), "trained on different data"),
        (lambda run: set_identity(run, labels="melanoma"), "a predicts MEL BKL, RUNS/b predicts MEL. Train"),
        (other_folds, "images lie in different folds, so the folds change their metrics too (seed 0 and 1). Runs"),
        (an_image_less, "1 images are in the folds of only one run"),
        (
            summarized(set_value("MEL_true", 0.0)),
            "disagree on the truth or the lesion of 1 of 80 images, such as ISIC_0000000",
        ),
        (summarized(set_value("BKL_true", 0.0)), "disagree on the truth or the lesion of 1 of 80 images"),
        (set_value("MEL_true", 0.5), "the truth must be 1, 0 or unknown"),
        (set_value("MEL", np.nan), "not finite probabilities"),
        (set_value("fold", 1), "the predictions and the folds are not of the same images"),
        (set_value("image_id", "ISIC_0000001"), "has an image twice"),
        (lambda run: rewrite(run / "predictions.parquet", lambda table: table.iloc[:0]), "is empty"),
        (lambda run: rewrite(run / "predictions.parquet", lambda table: table.drop(columns="BKL")), "no column BKL"),
        (
            lambda run: (run / "predictions.parquet").write_bytes(b"no table"),
            "Bring the file back, or delete summary.json",
        ),
        (lambda run: (run / "predictions.parquet").unlink(), "missing. Bring the file back, or delete summary.json"),
        (swap, "in summary.json, out of fold: one of the two files was changed. Bring the file back, or delete"),
        (flatter, "predictions.parquet: auc of MEL is"),
        (
            lambda run: rewrite(run / "predictions.parquet", lambda table: table.assign(MEL=table["MEL"] / 2)),
            "b: predictions.parquet is not what summary.json was written with: corrupt, edited",
        ),
        (
            lambda run: (run / "decision_rules.json").write_text("{} "),
            "b: decision_rules.json is not what summary.json was written",
        ),
        (lambda run: (run / "record.json").write_text("{"), "record.json: cannot be read"),
        (a_file, "this is a file and not a folder. Name the folder of a finished run"),
        (summary(backbone="c"), "summary.json: backbone is 'c', but 'b' in its identity. Bring"),
        (summary(seed=3), "summary.json: seed is 3, but 0 in its identity"),
        (summary(labels=["BKL", "MEL"]), "summary.json: labels is ['BKL', 'MEL'], but ['MEL', 'BKL'] in its identity"),
        (summary(threshold="abc"), 'summary.json: threshold is "abc", must be a valid number. Bring'),
        (summary(threshold=7), "summary.json: threshold is 7, must be less than or equal to 1"),
        (summary(data="x"), 'summary.json: data is "x", must be an object'),
        (summary(identity=None), "summary.json: identity is null, must be an object"),
        (summary(labels="MEL"), 'summary.json: labels is "MEL", must be a valid array'),
        (summary(training=[]), "summary.json: training is [], must be"),
        (summary(folds={"0": 1}), "summary.json: folds.0 is 1, must be"),
        (summary(seed_repeats={"seeds": [0]}), "summary.json: has no seed_repeats.auc"),
        (lambda run: (run / "folds.parquet").unlink(), "the run's folds cannot be read"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused_in_one_message(
    corrupt: Callable[[Path], Any], expected: str, runs: list[Path], capfd: pytest.CaptureFixture[str]
) -> None:
    corrupt(runs[1])
    assert expected.replace("RUNS", str(runs[1].parent)) in refused(capfd, *runs)
    assert not (runs[0].parent / "compare-a-b").exists()


def test_the_error_gives_the_number_of_moved_images(runs: list[Path], capfd: pytest.CaptureFixture[str]) -> None:
    other_folds(runs[1])
    moved = int(TABLE["group"].isin(["lesion-0000", "lesion-0059"]).sum())
    assert f"{moved} of {len(TABLE)} images lie in different folds" in refused(capfd, *runs)


def test_folders_that_cannot_be_written(runs: list[Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refused(capfd, *runs, "--out", tmp_path / "file")
    assert "is the folder of a run or a sweep" in refused(capfd, *runs, "--out", runs[0])


def test_the_folder_is_named_after_the_runs() -> None:
    assert default_folder([Path("/r/x/a"), Path("/r/b")], None) == Path("/r/compare-a-b")
    assert default_folder([Path("/r/a"), Path("/r/b")], "2017-test") == Path("/r/compare-a-b-on-2017-test")
    long = default_folder([Path("/r") / (letter * 90) for letter in "ab"], None)
    assert re.fullmatch(r"compare-2-runs-[0-9a-f]{8}", long.name)


def test_a_copy_of_a_run_is_named(runs: list[Path], capfd: pytest.CaptureFixture[str]) -> None:
    copy = runs[0].parent / "copy"
    shutil.copytree(runs[0], copy)
    assert "a and copy are the same models: one is a copy of the other" in run_compare(capfd, runs[0], copy)[1]


def test_the_same_models_are_recognized_by_weights_or_record(runs: list[Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(runs[0], copy)
    assert same_models(runs[0], copy)
    assert not same_models(*runs)
    shutil.rmtree(copy / "model")
    assert same_models(runs[0], copy)
    change(copy / "record.json", started="later")
    assert not same_models(runs[0], copy)
