"""A search space is checked, whole, before anything starts."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from melanoma_dist.config.region import RegionConfig
from melanoma_dist.config.run import RunConfig
from melanoma_dist.config.segment import SegmentConfig
from melanoma_dist.errors import ConfigError
from melanoma_dist.sweep.space import Space, check_space, read_space

SPACES = sorted((Path(__file__).resolve().parents[3] / "tune_spaces").glob("*.py"))


def space_of(folder: Path, body: str) -> Space:
    path = folder / "space.py"
    path.write_text(f"from ray import tune\n{body}\n")
    return read_space(path)


# An entry of SPACE, and its error.
WRONG = [
    ('"optimizer.lrr": tune.uniform(0, 1)', "optimizer.lrr: is not a field that may vary; similar: optimizer.lr"),
    ('"lr": tune.uniform(0.1, 1)', "lr: is not a field that may vary"),
    ('"data.folds": tune.choice([2, 3])', "data.folds: is not a field that may vary"),
    ('"seed": tune.choice([2, 3])', "seed: is not a field that may vary"),
    ('"schedule.epochs": tune.choice([2, 3])', "schedule.epochs: may not vary: configurations are compared"),
    ('"loss.dice_weight": tune.choice([0.5])', "is not a field that may vary here: `segment sweep` varies it"),
    ('"optimizer.lr": tune.choice(["fast"])', "optimizer.lr: 'fast' is not a number"),
    ('"input.balance": tune.choice([0, 1])', "input.balance: 0 is not True or False"),
    ('"input.batch_size": tune.uniform(8, 64)', "input.batch_size: 8.0 is not a whole number"),
    ('"input.batch_size": tune.choice([True])', "input.batch_size: True is not a whole number"),
    ('"model.pooling": tune.choice(["avg", "mean"])', "model.pooling: 'mean' is not one of avg, max, avgmax, gem"),
    ('"input.image_size": tune.choice([64, "big"])', "input.image_size: 'big' is not a whole number or None"),
    ('"optimizer.lr": tune.loguniform(1e-4, 2.0)', "optimizer.lr: --lr 2.0: must be above 0 and at most 1"),
    ('"model.hidden": tune.randint(0, 9000)', "model.hidden: --hidden 8999: must be 0 to 8192"),
    ('"optimizer.lr": tune.randn()', "optimizer.lr: has no bounds"),
    ('"optimizer.lr": [1e-3, 1e-4]', "optimizer.lr: is not a supported search-space function"),
    ('"optimizer.lr": {"nested": 1}', "optimizer.lr: is not a supported search-space function"),
    ('"optimizer.lr": tune.grid_search([1e-3, 5])', "optimizer.lr: --lr 5: must be above 0"),
    ('"optimizer.lr": 7.0', "optimizer.lr: --lr 7.0: must be above 0"),
]


@pytest.mark.parametrize(("entry", "complaint"), WRONG)
def test_the_error_names_the_wrong_entry(entry: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(complaint)) as caught:
        check_space(space_of(tmp_path, f"SPACE = {{{entry}}}"), RunConfig())
    assert str(tmp_path / "space.py") in str(caught.value)


@pytest.mark.parametrize(
    ("conditions", "complaint"),
    [
        ('{"optimizer.weight_decay": {"optimizer.lr": [1]}}', "ONLY_IF['optimizer.weight_decay']: is not in SPACE"),
        ('{"optimizer.lr": {"optimizer.name": [1]}}', "'optimizer.name' is not a field that may vary"),
    ],
)
def test_conditions_are_checked_too(conditions: str, complaint: str, tmp_path: Path) -> None:
    space = space_of(tmp_path, f'SPACE = {{"optimizer.lr": 0.1}}\nONLY_IF = {conditions}')
    with pytest.raises(ConfigError, match=re.escape(complaint)):
        check_space(space, RunConfig())


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("SPACES = {}", "defines no SPACE"),
        ("SPACE = {}", "defines no SPACE"),
        ("SPACE = [1]", "defines no SPACE"),
        ("SPACE = {'optimizer.lr': 0.1}\nONLY_IF = ['optimizer.lr']", "its ONLY_IF must be like"),
        ("SPACE = {'optimizer.lr': tune.loguniforn(1, 2)}", "fails when executed (AttributeError"),
        ("SPACE = {", "fails when executed (SyntaxError"),
    ],
)
def test_a_file_that_is_no_space_is_refused(body: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(complaint)):
        space_of(tmp_path, body)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--space .*gone\.py: cannot be read \(No such file"):
        read_space(tmp_path / "gone.py")
    with pytest.raises(ConfigError, match="--space: name a file"):
        read_space(None)


def test_a_field_is_active_only_where_its_condition_holds(tmp_path: Path) -> None:
    space = space_of(
        tmp_path,
        'SPACE = {"schedule.schedule": tune.choice(["plateau", "cosine"]),'
        '         "schedule.plateau_factor": tune.uniform(0.1, 0.5)}\n'
        'ONLY_IF = {"schedule.plateau_factor": {"schedule.schedule": ["plateau"]}}',
    )
    check_space(space, RunConfig())
    values = {"schedule.schedule": "plateau", "schedule.plateau_factor": 0.3}
    assert space.active(RunConfig(), values) == values
    assert space.active(RunConfig(), {**values, "schedule.schedule": "cosine"}) == {"schedule.schedule": "cosine"}


def test_conditions_may_depend_on_conditions_and_on_fixed_fields(tmp_path: Path) -> None:
    space = space_of(
        tmp_path,
        'SPACE = {"loss.focal_gamma": tune.uniform(1, 3), "model.dropout": tune.uniform(0, 0.5)}\n'
        'ONLY_IF = {"loss.focal_gamma": {"loss.loss": ["focal"]}, "model.dropout": {"loss.focal_gamma": [2.0]}}',
    )
    values = {"loss.focal_gamma": 2.0, "model.dropout": 0.1}
    assert space.active(RunConfig(), values) == {}  # the loss is bce by default


@pytest.mark.parametrize("entry", ["model.pooling", "loss.focal_gamma", "input.balance", "region.region"])
def test_what_a_segmenter_does_not_have_may_not_vary(entry: str, tmp_path: Path) -> None:
    space = space_of(tmp_path, f'SPACE = {{"{entry}": tune.choice(["avg"])}}')
    with pytest.raises(ConfigError, match=f"{entry}: is not a field that may vary here: `sweep` varies it"):
        check_space(space, SegmentConfig())


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_the_spaces_of_this_repository_are_valid(path: Path) -> None:
    space = read_space(path)
    region = RegionConfig("lesion", lesions="lesions") if path.stem == "region" else RegionConfig()
    config = SegmentConfig() if path.stem == "segmentation" else replace(RunConfig(), region=region)
    check_space(space, config)
    text = path.read_text()
    assert f"--space tune_spaces/{path.name}" in text.partition('"""')[2].partition('"""')[0]


def test_a_space_of_regions_needs_a_table_of_lesions_and_a_margin_only_of_lesions() -> None:
    space = read_space(next(path for path in SPACES if path.stem == "region"))
    with pytest.raises(ConfigError, match=r"region\.region: --region lesion: needs the table"):
        check_space(space, RunConfig())
    values = {"region.region": "whole", "region.region_margin": 0.1}
    assert space.active(RunConfig(), values) == {"region.region": "whole"}


def test_there_are_spaces() -> None:
    names = {"augmentation", "backbones", "full", "head", "optimizer", "region", "segmentation"}
    assert {path.stem for path in SPACES} == names


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ('SPACE = {"optimizer.lr": tune.choice([])}', "optimizer.lr: has no values to choose from"),
        ('SPACE = {"optimizer.lr": tune.grid_search([])}', "optimizer.lr: has no values to choose from"),
        (
            'SPACE = {"loss.focal_gamma": tune.uniform(1, 3)}\n'
            'ONLY_IF = {"loss.focal_gamma": {"loss.loss": ["focall"]}}',
            "loss.loss: 'focall' is not one of bce, focal",
        ),
        (
            'SPACE = {"optimizer.lr": tune.uniform(0.1, 1), "model.dropout": tune.uniform(0, 0.5)}\n'
            'ONLY_IF = {"optimizer.lr": {"model.dropout": [0.1]}, "model.dropout": {"optimizer.lr": [0.2]}}',
            "depends on it in turn",
        ),
    ],
)
def test_a_field_that_could_never_vary_is_refused(body: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(complaint)):
        check_space(space_of(tmp_path, body), RunConfig())


@pytest.mark.parametrize("condition", ['"focal"', "True", "1"])
def test_conditions_must_be_lists(condition: str, tmp_path: Path) -> None:
    body = f'SPACE = {{"loss.focal_gamma": 2.0}}\nONLY_IF = {{"loss.focal_gamma": {{"loss.loss": {condition}}}}}'
    with pytest.raises(ConfigError, match="its ONLY_IF must be like"):
        space_of(tmp_path, body)


def test_a_space_that_exits_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"fails when executed \(SystemExit"):
        space_of(tmp_path, "raise SystemExit(3)")
