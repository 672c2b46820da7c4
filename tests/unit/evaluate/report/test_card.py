from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from melanoma_dist.artifacts.decision_rules import DecisionRules
from melanoma_dist.config.run import ModelConfig
from melanoma_dist.evaluate.report.card import AUTHORS, write_card
from melanoma_dist.evaluate.report.checklists import CLAIM, TRIPOD_AI
from melanoma_dist.evaluate.report.groups import ATTRIBUTES
from melanoma_dist.metrics.subgroups import attributes
from melanoma_dist.models.classifier import build_classifier

from .conftest import Made
from .folder import LABELS, about, predictions, write_evaluation, write_run


@pytest.fixture(scope="module")
def card(made: Made) -> str:
    write_card(made.folder)
    return (made.folder / "model" / "README.md").read_text()


def test_it_tells_the_same_figures_as_the_page(made: Made, card: str) -> None:
    for assessment in (made.summary["out_of_fold"], made.evaluations[0]["ensemble"]):
        auc = assessment["intervals"]["by_image"]["MEL"]["auc"]
        assert f"**{auc['estimate']:.3f} (95 % interval {auc['low']:.3f} to {auc['high']:.3f})**" in card
        assert f"| {auc['estimate']:.3f} ({auc['low']:.3f} to {auc['high']:.3f}) |" in card
    assert "LOOK NUMBER 2" in card
    assert "Not a medical device" in card
    for point in made.summary["operating_points"]["MEL"]:
        assert f"{point['name']} | {point['threshold']:.4f} |" in card


def test_every_item_of_both_checklists_is_answered_or_left_to_the_authors(made: Made, card: str) -> None:
    claim, tripod = card.split("### TRIPOD+AI")
    for items, text in ((CLAIM, claim), (TRIPOD_AI, tripod)):
        for item in items:
            (answer,) = re.findall(rf"^\| {item.number} \| {re.escape(item.name)} \| (.+) \|$", text, re.MULTILINE)
            assert (answer == AUTHORS) == (not item.answer)
    assert [item.number for item in CLAIM] == [str(number) for number in range(1, 45)]
    assert {item.number.rstrip("abcdefg") for item in TRIPOD_AI} == {str(number) for number in range(1, 28)}


def test_its_tables_are_whole(card: str) -> None:
    widths: set[int] = set()
    for line in card.splitlines():
        if line.startswith("|"):
            widths.add(len(re.findall(r"(?<!\\)\|", line)))
            assert len(widths) == 1
        else:
            widths = set()
    assert "```python" in card
    assert not re.search(r"\n{4,}", card)


def test_the_code_for_loading_the_weights_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path, folds=2, images=120)
    write_card(tmp_path)
    config = ModelConfig(backbone="test_resnet", weights="none", hidden=8)
    about = {"backbone": "test_resnet", "labels": ",".join(LABELS), "image_size": "64", "mean": "0.5,0.5,0.5",
             "std": "0.2,0.2,0.2", "pooling": "avg", "hidden": "8", "head_norm": "batch"}  # fmt: skip
    for fold in range(2):
        state = build_classifier(config, 64, len(LABELS), seed=fold).state_dict()
        save_file(state, tmp_path / "model" / f"fold-{fold}.safetensors", about)
    Image.fromarray(np.full((80, 100, 3), 120, dtype=np.uint8)).save(tmp_path / "lesion.jpg")
    monkeypatch.chdir(tmp_path)
    code = (tmp_path / "model" / "README.md").read_text().split("```python")[1].split("```")[0]
    exec(compile(code, "card", "exec"), {})  # noqa: S102  # the card's own code
    said = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert list(said) == list(LABELS)
    assert all(0 < float(value) < 1 for value in said.values())
    frozen = DecisionRules.of(json.loads((tmp_path / "decision_rules.json").read_text()))
    assert frozen.calibrators["MEL"] is not None


def test_a_run_without_evaluations_and_points_says_so(tmp_path: Path) -> None:
    write_run(tmp_path, labels=("MEL",), folds=2, images=120, synthetic=True)
    write_card(tmp_path)
    card = (tmp_path / "model" / "README.md").read_text()
    assert "**SYNTHETIC DATA" in card
    assert "| 33 | Testing on external data | none |" in card


def test_only_another_data_set_is_named_as_a_test_on_external_data(made: Made, card: str, tmp_path: Path) -> None:
    assert {each["kind"] for each in made.evaluations} == {"holdout"}
    assert "| 33 | Testing on external data | none |" in card
    write_run(tmp_path, labels=("MEL",), folds=2, images=120)
    write_evaluation(tmp_path, 1, "2017-test")
    write_evaluation(tmp_path, 2, "clinic", kind="data")
    write_card(tmp_path)
    (said,) = re.findall(r"Testing on external data \| (.+) \|", (tmp_path / "model" / "README.md").read_text())
    assert said.startswith("clinic (evaluation 2): AUC 0.")
    assert said.endswith("; whether it is external is for the authors to say")
    assert "2017-test" not in said


def test_the_checklists_name_the_attributes_that_made_subgroups_and_those_flagged(tmp_path: Path) -> None:
    summary = write_run(tmp_path, labels=("MEL",), folds=2, images=120)
    summary["subgroups"] = [each for each in summary["subgroups"] if each["attribute"] in ("sex", "age")]
    for each in summary["subgroups"]:
        gap = {"difference": -0.2, "low": -0.3, "high": -0.1, "p": 0.01, "flagged": each["value"] == "male"}
        each["gap"] = gap
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    write_card(tmp_path)
    text = (tmp_path / "model" / "README.md").read_text()
    lacking = "(the same or unknown for all images, so without subgroups: site, year, image size, metadata)"
    for number in ("14", "23b"):
        (said,) = re.findall(rf"^\| {number} \| (?:Fairness|Results: het[^|]*) \| (.+) \|$", text, re.MULTILINE)
        assert said.startswith(f"AUC by sex, age {lacking}, out of fold. Flagged after Holm's correction: sex male.")
    assert text.count(f"| sex, age {lacking}, with counts") == 2


def test_every_attribute_of_subgroups_has_its_name_in_the_report() -> None:
    table = predictions(1, 30, ("MEL",), 2, "ISIC")
    assert tuple(attributes(about(table)).columns) == ATTRIBUTES


def test_what_is_known_of_trainings_and_points_is_told(made: Made, card: str) -> None:
    assert "in 3 folds; each model saw 2 of the 3" in card
    assert "each image as it is, 3 folds together" in card
    assert "the sensitivity that is reached may differ from the one that a point is named by" in card
    assert "turned, mirrored, cut, framed or much brightened are not found" in card
