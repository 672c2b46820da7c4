"""The challenge's own scorer as an oracle, in an environment of its own: it needs an older pandas than we have.

Its ground truth has a weight for every image, 1 here but where a test says otherwise. It calls what is above 0.5, we
call what is at least at the threshold; and what has no definition counts as 1 there, and as None here.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from sklearn.metrics import roc_curve

from melanoma_dist.data.labels import LABEL_SETS
from melanoma_dist.metrics.classification import Metrics, Settings, compute_metrics
from melanoma_dist.metrics.isic_scores import isic_scores

pytestmark = pytest.mark.slow  # an environment is downloaded

HERE = Path(__file__).parent
ABOVE_HALF = float(np.nextafter(0.5, 1))
SAME = {"auc": "auc", "ap": "average_precision", "sensitivity": "sensitivity", "specificity": "specificity"}
SAME |= {"dice": "f1", "ppv": "precision"}
NEVER_SCORED = "ISIC_0035068"


@dataclass(frozen=True)
class Case:
    labels: tuple[str, ...]
    truth: npt.NDArray[np.float64]
    """[n, L]; a row of zeros is none of the labels."""
    probability: npt.NDArray[np.float64]
    weight: npt.NDArray[np.float64] | None = None
    names: tuple[str, ...] = ()

    def write(self, folder: Path, name: str) -> None:
        """As the challenge's files: 2019 has a column UNK, of which we predict nothing."""
        images = list(self.names) or [f"ISIC_{number:07d}" for number in range(len(self.truth))]
        truth, probability = (pd.DataFrame(table, images, self.labels) for table in (self.truth, self.probability))
        if self.labels == LABEL_SETS["isic2019"]:
            truth["UNK"], probability["UNK"] = 1 - self.truth.sum(axis=1), 0.0
        if self.weight is not None:
            truth["score_weight"] = truth["validation_weight"] = self.weight
        truth.to_csv(folder / f"{name}-truth.csv", index_label="image")
        probability.iloc[::-1].to_csv(folder / f"{name}-prediction.csv", index_label="image")


def draw(challenge: str, images: int, seed: int, digits: int = 6, classes: int | None = None, none: int = 0) -> Case:
    """Every class has an image; ``none`` images have none of them; with ``classes`` the last ones have no image."""
    rng = np.random.default_rng(seed)
    labels = LABEL_SETS[challenge]
    count = classes or len(labels)
    actual = rng.permutation(np.concatenate([np.arange(count), rng.integers(count, size=images - count)]))
    truth = np.eye(len(labels))[actual]
    truth[:none] = 0
    probability = np.clip(rng.beta(1, 4, truth.shape) + 0.35 * truth * rng.random(truth.shape), 0, 1)
    return Case(labels, truth, probability.round(digits))


def weighted() -> Case:
    """A third of the images has no weight, and one image the scorer never counts.

    In the order of their names, as it sorts the answers but not their weights.
    """
    whole = draw("isic2018", 300, seed=4)
    names = (*(f"ISIC_{number:07d}" for number in range(299)), NEVER_SCORED)
    return Case(whole.labels, whole.truth, whole.probability, (np.arange(300) % 3 > 0).astype(float), names)


CASES = {
    "2018": draw("isic2018", 400, seed=0),
    "2018 with ties": draw("isic2018", 400, seed=1, digits=1),
    "2019 with UNK": draw("isic2019", 500, seed=2, none=60),
    "2019 with ties and UNK": draw("isic2019", 500, seed=3, digits=1, none=60),
    "2019 without UNK": draw("isic2019", 300, seed=5),
    "2018, two classes absent": draw("isic2018", 200, seed=6, digits=2, classes=5),
    "2018, one image each": draw("isic2018", 7, seed=7),
    "weights": weighted(),
    "2017": draw("isic2017", 300, seed=8, none=150),
    "2017 with ties": draw("isic2017", 300, seed=9, digits=1, none=150),
}
REPORTED = ["2018", "2018 with ties", "2019 with UNK", "2019 with ties and UNK"]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a throw-away environment with the scorer; skips where it cannot be installed."""
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if uv is None:
        pytest.skip("The challenge's scorer cannot be installed: there is no uv.")
    folder = tmp_path_factory.mktemp("scorer") / "venv"
    interpreter = folder / "bin" / "python"
    install = ["pip", "install", "--python", interpreter, "--requirement", HERE / "scorer-requirements.txt"]
    for command in (["venv", "--python", sys.executable, folder], install):
        done = subprocess.run([uv, *command], capture_output=True, text=True, timeout=300)
        if done.returncode:
            pytest.skip(f"The challenge's scorer cannot be installed: {done.stderr.strip()[-300:]}")
    return interpreter


@pytest.fixture(scope="module")
def scored(python: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the scorer says of each case."""
    folder = tmp_path_factory.mktemp("cases")
    for name, case in CASES.items():
        case.write(folder, name)
    command = [python, "-W", "ignore", HERE / "challenge_scorer.py", folder]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    scores: dict[str, Any] = json.loads(done.stdout)
    return scores


def ours(case: Case) -> Metrics:
    """Called as the scorer does, with predictive values at the prevalence of the data."""
    shares = tuple(np.clip(case.truth.mean(axis=0), 1e-9, 1).tolist())
    return compute_metrics(case.truth, case.probability, case.labels, Settings((ABOVE_HALF,), shares))


@pytest.mark.parametrize("name", [name for name in CASES if "2017" not in name and name != "weights"])
def test_the_normalised_multi_class_accuracy(scored: dict[str, Any], name: str) -> None:
    case = CASES[name]
    score = isic_scores(case.truth, case.probability, case.labels)[f"isic{name[:4]}"]
    assert score == pytest.approx(scored[name]["balanced"], rel=1e-12)
    if scored[name]["score"]:
        assert score == pytest.approx(scored[name]["score"]["overall"], rel=1e-12)


@pytest.mark.parametrize("name", REPORTED)
def test_the_figures_of_every_class(scored: dict[str, Any], name: str) -> None:
    """A figure that is not defined (a precision without a call) is 1 there, and None here."""
    case, metrics = CASES[name], ours(CASES[name]).labels
    undefined = 0
    for theirs, metric in SAME.items():
        for label in case.labels:
            value = metrics[label].value(metric)
            undefined += value is None
            expected = scored[name]["score"]["per_category"][theirs][label]
            assert (1 if value is None else value) == pytest.approx(expected, rel=1e-9), (theirs, label)
    assert undefined <= 2


@pytest.mark.parametrize("name", REPORTED)
def test_accuracy_and_predictive_values_follow_from_ours(scored: dict[str, Any], name: str) -> None:
    """Its PPV and NPV are those at the prevalence of the data; its accuracy is the mean of all calls."""
    case, metrics = CASES[name], ours(CASES[name]).labels
    theirs = scored[name]["score"]["per_category"]
    for label in case.labels:
        entry = metrics[label]
        right = entry.sensitivity * entry.positives + entry.specificity * entry.negatives
        assert right / len(case.truth) == pytest.approx(theirs["accuracy"][label], rel=1e-9)
        assert entry.npv == pytest.approx(theirs["npv"][label], rel=1e-6)
        assert (1 if entry.ppv is None else entry.ppv) == pytest.approx(theirs["ppv"][label], rel=1e-6)


@pytest.mark.parametrize("name", REPORTED)
def test_its_area_above_a_sensitivity_reaches_down_to_the_axis(scored: dict[str, Any], name: str) -> None:
    """``auc_sens_80`` is our partial AUC and the rectangle below it: 0.8 times the specificity of the curve there."""
    case, metrics = CASES[name], ours(CASES[name]).labels
    for column, label in enumerate(case.labels):
        false, true, _ = roc_curve(case.truth[:, column], case.probability[:, column], drop_intermediate=False)
        first = int(np.argmax(true >= 0.8))
        there = np.interp(0.8, true[first - 1 : first + 1], false[first - 1 : first + 1])
        expected = scored[name]["score"]["per_category"]["auc_sens_80"][label]
        assert metrics[label].partial_auc_80 + 0.8 * (1 - there) == pytest.approx(expected, rel=1e-9), label


def test_its_macro_mean_has_every_class_of_the_file(scored: dict[str, Any]) -> None:
    """So that of 2019 has UNK too, whose AUC is 0.5 if nothing predicts it; ours has the labels."""
    assert ours(CASES["2018"]).macro.auc == pytest.approx(scored["2018"]["score"]["macro_average"]["auc"])
    mean, name = ours(CASES["2019 with UNK"]).macro.auc, "2019 with UNK"
    assert (8 * mean + 0.5) / 9 == pytest.approx(scored[name]["score"]["macro_average"]["auc"])


def test_an_absent_class_breaks_its_report_but_not_its_score(scored: dict[str, Any]) -> None:
    for name in ("2018, two classes absent", "2019 without UNK"):
        assert scored[name]["score"] is None
        assert 0 < scored[name]["balanced"] < 1
    metrics = ours(CASES["2018, two classes absent"]).labels
    assert [metrics[label].auc for label in LABEL_SETS["isic2018"][5:]] == [None, None]


def test_the_threshold_of_one_half_itself_is_called_here_and_not_there(scored: dict[str, Any]) -> None:
    case = CASES["2018 with ties"]
    at_half = compute_metrics(case.truth, case.probability, case.labels, Settings()).labels
    theirs = scored["2018 with ties"]["score"]["per_category"]["specificity"]
    assert (case.probability == 0.5).any()
    assert all(at_half[label].specificity <= theirs[label] + 1e-12 for label in case.labels)
    assert any(at_half[label].specificity < theirs[label] - 1e-12 for label in case.labels)


def test_an_image_without_weight_is_left_out_as_is_one_of_2018(scored: dict[str, Any]) -> None:
    """We have no weights: who wants a challenge's own figure evaluates the images that have one."""
    case = CASES["weights"]
    counted = (case.weight == 1) & (np.array(case.names) != NEVER_SCORED)
    metrics = ours(Case(case.labels, case.truth[counted], case.probability[counted]))
    assert metrics.isic_scores["isic2018"] == pytest.approx(scored["weights"]["balanced"])
    for label in case.labels:
        theirs = {figure: values[label] for figure, values in scored["weights"]["score"]["per_category"].items()}
        for figure in ("auc", "average_precision", "sensitivity", "specificity"):
            expected = theirs["ap" if figure == "average_precision" else figure]
            assert metrics.labels[label].value(figure) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", ["2017", "2017 with ties"])
def test_the_mean_auc_of_2017(scored: dict[str, Any], name: str) -> None:
    """The scorer is younger than 2017; asked to rank by AUC, it takes the mean of those of the file's columns."""
    case = CASES[name]
    scores = isic_scores(case.truth, case.probability, case.labels)
    assert scores == {"isic2017": pytest.approx(scored[name]["auc"], rel=1e-12)}
