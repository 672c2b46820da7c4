"""Hyperparameters that change during a training: their text, their rules, and the configuration of each epoch."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import tyro
import yaml

from melanoma_dist.config.changes import CHANGEABLE, with_changes
from melanoma_dist.config.flags import PARSER
from melanoma_dist.config.run import RunConfig, dotted, nested, with_values
from melanoma_dist.config.saved import with_file
from melanoma_dist.config.segment import SegmentConfig
from melanoma_dist.errors import ConfigError

from ..samples import config


def changed(text: str, **values: object) -> RunConfig:
    return config(**{"epochs": 9, "changes": text, **values})


def test_an_epoch_trains_with_the_latest_value_of_each_field() -> None:
    run = changed("lr=0.02@5,lr=0.01@3,dropout=0.5@5,clip_norm=inf@9", lr=0.1, dropout=0.2)
    by_epoch = [run.at_epoch(epoch) for epoch in range(9)]
    assert [each.optimizer.lr for each in by_epoch] == [0.1] * 2 + [0.01] * 2 + [0.02] * 5
    assert [each.model.dropout for each in by_epoch] == [0.2] * 4 + [0.5] * 5
    assert [each.optimizer.clip_norm for each in by_epoch] == [1.0] * 8 + [math.inf]
    assert {each.schedule.changes for each in by_epoch} == {"none"}
    assert run.at_epoch(-1) == config(epochs=9, lr=0.1, dropout=0.2)  # before the first


def test_equal_changes_are_one_identity_whatever_their_spelling() -> None:
    first, second = changed("weight_decay=1e-2@4, lr=0.0010@2"), changed("lr=1e-3@2,weight_decay=0.01@4")
    assert first == second
    assert first.identity()["schedule.changes"] == "lr=0.001@2,weight_decay=0.01@4"
    assert config().identity()["schedule.changes"] == "none"


def test_flags_files_and_fields_say_the_same(tmp_path: Path) -> None:
    run = changed("lr=1e-05@2,clip_norm=inf@3")
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(nested(run)))
    for flags in (
        ["--epochs", "9", "--changes", "lr=1e-5@2", "clip_norm=inf@3"],
        ["--epochs", "9", "--changes", "lr=1e-5@2,clip_norm=inf@3"],
        with_file(["--config", str(tmp_path / "run.yaml")]),
    ):
        assert tyro.cli(RunConfig, args=flags, config=PARSER) == run


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr", "--changes lr: must be FIELD=VALUE@EPOCH. Example: --changes lr=1e-4@11 weight_decay=0.05@11."),
        ("lr=fast@3", "--changes lr=fast@3: must be FIELD=VALUE@EPOCH. Example: "),
        ("lr=0.1@3,", "--changes : must be FIELD=VALUE@EPOCH. Example: "),
        ("learning_rate=0.1@3", "--changes learning_rate=0.1@3: learning_rate may not change during a training; lr, "),
        ("weight-decay=0.1@3", "weight_decay, clip_norm, dropout may. Did you mean weight_decay"),
        ("batch_size=8@3", "--changes batch_size=8@3: batch_size may not change during a training; lr, head_lr_factor"),
        ("lr=0.1@1", "--changes lr=0.1@1: its epoch must be 2 to 9 (--epochs)."),
        ("lr=0.1@10", "--changes lr=0.1@10: its epoch must be 2 to 9 (--epochs)."),
        ("lr=0.1@3,lr=0.2@3", "has two values of a field in epoch 3. Remove one."),
        ("lr=5@3", "--changes lr=5.0@3: --lr 5.0: must be above 0 and at most 1."),
        ("lr=nan@3", "--changes lr=nan@3: --lr nan: must be above 0 and at most 1."),
        ("dropout=1@3", "--changes dropout=1.0@3: --dropout 1.0: must be at least 0 and below 1."),
    ],
)
def test_mistakes_are_refused_with_the_rule_and_a_remedy(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        changed(text)
    assert message in str(caught.value)


def test_a_segmenter_changes_its_own_fields_alone() -> None:
    run = with_values(SegmentConfig(), {"schedule.changes": "lr=0.01@3"})
    assert run.at_epoch(2).optimizer.lr == 0.01
    with pytest.raises(ConfigError, match=r"--changes dropout=0.5@3: dropout is no field of this command. Remove it."):
        with_values(SegmentConfig(), {"schedule.changes": "dropout=0.5@3"})


def test_changes_are_added_and_replace_those_of_their_epoch() -> None:
    assert with_changes("none", 3, {"optimizer.lr": 0.1}) == "lr=0.1@3"
    text = with_changes("lr=0.1@3,dropout=0.5@3", 3, {"optimizer.lr": 0.2})
    assert with_changes(text, 2, {"model.dropout": 0.1}) == "dropout=0.1@2,dropout=0.5@3,lr=0.2@3"


def test_what_may_change_are_numbers_of_a_run() -> None:
    assert all(isinstance(dotted(RunConfig())[key], float) for key in CHANGEABLE)
