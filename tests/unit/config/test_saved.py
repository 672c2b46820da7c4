"""Configurations in YAML files: saved, read, merged with flags, and refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import tyro
import yaml

from melanoma_dist.config.flags import PARSER
from melanoma_dist.config.run import RunConfig, dotted, nested
from melanoma_dist.config.saved import as_flags, read_yaml, saved_config, with_file
from melanoma_dist.config.segment import SegmentConfig
from melanoma_dist.errors import ConfigError

from ..hostile import fuzz_reader
from ..samples import config

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
VARIED: list[dict[str, Any]] = [
    {},
    {"mirror": "s3://bucket/runs"},
    {"clip_norm": math.inf, "lr": 1e-4, "weight_decay": 1e-5, "min_gain": 1e-4},
    {"lr": 1e-05, "head_lr_factor": 1.0, "plateau_factor": 0.125},
    {"balance": True, "amp": False, "channels_last": False, "compile": True, "sync_batchnorm": True},
    {"gpus": 8, "gpus_per_unit": 2, "address": "auto", "image_size": 299},
    {"gpus": 0, "ranks_per_unit": 3, "decode_threads": 2},
    {"name": "a-b_c.2", "runs": Path("else where/runs"), "data": "demo", "seed": 2**32 - 1},
    {"name": "off", "data": "no", "augment": "none", "weights": "none", "loss": "focal", "freeze_epochs": 2},
    {"name": "2019", "data": "1e3", "weights": "/a/file.safetensors", "labels": "melanoma"},
]


def parsed(flags: list[str]) -> RunConfig:
    return tyro.cli(RunConfig, args=flags, config=PARSER)


@pytest.mark.parametrize("values", VARIED, ids=str)
def test_a_saved_configuration_loads_as_the_same_one(values: dict[str, Any], tmp_path: Path) -> None:
    before = config(**values)
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(nested(before), sort_keys=False))
    assert parsed(with_file(["--config", str(file)])) == before


def test_a_configuration_of_an_older_version_keeps_its_fault_tolerance(tmp_path: Path) -> None:
    """It saved these fields under ``hardware``."""
    file = tmp_path / "run.yaml"
    file.write_text("seed: 3\nhardware: {gpus: 0, grace_s: 7, max_damaged_images: 8}\n")
    expected = config(seed=3, gpus=0, grace_s=7, max_corrupt_images=8)
    assert saved_config(file) == expected
    assert parsed(with_file(["--config", str(file)])) == expected


def test_a_segmenter_takes_its_own_configuration_also_one_that_is_older_than_a_field_it_does_not_have() -> None:
    tree: dict[str, Any] = dict(nested(SegmentConfig()))
    tree["region"] = {"region": "whole", "region_margin": 0.3, "lesions": None}  # before --mask
    flags = list(as_flags(tree, SegmentConfig))
    assert tyro.cli(SegmentConfig, args=flags, config=PARSER) == SegmentConfig()
    for section, values in (("region", {"region": "lesion"}), ("loss", {"loss": "focal"})):
        with pytest.raises(ConfigError, match="for this command, not"):
            list(as_flags({section: values}, SegmentConfig))
    with pytest.raises(ConfigError, match="Use `segment`, or `segment sweep`"):
        list(as_flags(tree))
    with pytest.raises(ConfigError, match="Use the command without a name, or `sweep`"):
        list(as_flags(nested(RunConfig()), SegmentConfig))


def test_scientific_notation_without_a_dot_stays_a_number(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("optimizer:\n  lr: 1e-3\nclip_norm: .inf\n")  # YAML itself reads 1e-3 as a text
    chosen = parsed(with_file(["--config", str(file)]))
    assert (chosen.optimizer.lr, chosen.optimizer.clip_norm) == (1e-3, math.inf)


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("seed: 3\ninput:\n  balance: true\n  batch_size: 16\n")
    chosen = parsed(with_file(["--seed", "4", "--config", str(file), "--no-balance"]))
    assert (chosen.seed, chosen.input.balance, chosen.input.batch_size) == (4, False, 16)


@pytest.mark.parametrize(
    ("tree", "complaint"),
    [
        ({"optimizer": {"learning_rate": 1.0}}, "unknown field 'optimizer.learning_rate'"),
        ({"schedule": {"folds": 3}}, "unknown field 'schedule.folds'"),
        ({"modell": {"backbone": "resnet50"}}, "unknown field 'modell'"),
        ({"model": 3}, "unknown field 'model'"),
        ({"input": {"batch_size": [1, 2]}}, r"input.batch_size: \[1, 2\] must be a single value"),
    ],
)
def test_an_unknown_key_is_refused(tree: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        list(as_flags(tree))


def test_fields_stand_in_their_section_or_without_it() -> None:
    assert list(as_flags({"seed": 1, "lr": 0.1, "model": {"backbone": "resnet50"}, "schedule": "cosine"})) == [
        *("--seed", "1", "--lr", "0.1", "--backbone", "resnet50", "--schedule", "cosine")
    ]


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("model:\n\tbackbone: densenet201\n", "line 2, column 1: a tab, which YAML does not allow there: type spaces"),
        ("seed: 1\nlr:\t\t1\nfolds: [\n", "line 2, column 4: a tab"),
        ("model:\n  \tbackbone: x\n", "line 2, column 3: a tab"),
        ("seed: 1\nname: 'first\n", "line 3, column 1: found unexpected end of stream"),
        ("seed: 1\n  lr: 2\n", "line 2, column 5: mapping values are not allowed here"),
    ],
    ids=str,
)
def test_a_mistake_in_yaml_has_its_line_and_column(content: str, place: str, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError) as caught:
        read_yaml(file)
    assert place in str(caught.value)


@pytest.mark.parametrize(("section", "name", "then"), [("input", "tta", 1), ("model", "trunk_norm", "batch")])
def test_a_field_younger_than_the_run_has_the_value_that_the_run_acted_by(
    section: str, name: str, then: object, tmp_path: Path
) -> None:
    tree = nested(RunConfig())
    saved = tree[section]
    assert isinstance(saved, dict)
    assert saved.pop(name) != then
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(tree))
    assert getattr(getattr(saved_config(file), section), name) == then


def test_null_in_a_file_is_the_default_of_an_optional_field_only() -> None:
    assert list(as_flags({"name": None, "gpus": None, "lr": None})) == ["--lr", "None"]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(b"seed: [", "cannot be read"), (b"- 1\n", "must hold the fields"), (b"\xff\xfe\x00", "cannot be read")],
)
def test_a_file_that_is_no_configuration_is_refused(content: bytes, complaint: str, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=complaint) as caught:
        read_yaml(file)
    assert str(file) in str(caught.value)


def test_a_corrupt_configuration_raises_config_error_only(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        list(as_flags(read_yaml(path)))
        saved_config(path)

    fuzz_reader(read, yaml.safe_dump(nested(config(lr=0.01))).encode(), ConfigError)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_examples_are_configurations(path: Path) -> None:
    tree = {name: values for name, values in read_yaml(path).items() if isinstance(values, dict)}
    actual = dotted(parsed(with_file(["--config", str(path)])))
    expected = {f"{section}.{name}": value for section, values in tree.items() for name, value in values.items()}
    assert expected
    assert {key: actual[key] for key in expected} == expected
