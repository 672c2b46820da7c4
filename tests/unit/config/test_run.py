from __future__ import annotations

import io
import math
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
import tyro

from melanoma_dist.cli import main
from melanoma_dist.config.fault_tolerance import FaultToleranceConfig
from melanoma_dist.config.flags import PARSER
from melanoma_dist.config.hardware import HardwareConfig
from melanoma_dist.config.rules import suppressed
from melanoma_dist.config.run import DataConfig, RunConfig, differences, dotted
from melanoma_dist.config.segment import MaskLossConfig, SegmentConfig
from melanoma_dist.errors import ConfigError

from ..samples import config

FLAGS = [
    "accept_changes", "accumulate", "address", "allow_resize", "amp", "augment", "backbone", "balance", "batch_size",
    "changes", "channels_last", "checkpoint_every", "class_weights", "clip_norm", "collective_timeout_s", "compile",
    "cuda_graph", "data",
    "decode_threads", "dropout", "ema_decay", "epochs", "focal_gamma", "folds", "freeze_epochs", "fusion", "gpus",
    "gpus_per_unit", "grace_s", "head_lr_factor", "head_norm", "headline", "hidden", "image_size", "keep_checkpoints",
    "labels", "layer_decay", "lesions", "loss",
    "lr", "mask", "max_corrupt_images", "max_preemptions", "max_restarts", "max_skipped_steps", "metadata", "min_gain",
    "mirror", "name",
    "optimizer", "patience", "plateau_factor", "plateau_patience", "pooling", "ranks_per_unit", "region",
    "region_margin", "repeats", "runs",
    "schedule", "seed", "sync_batchnorm", "threshold", "track", "trunk_norm", "tta", "warmup_epochs", "weight_decay",
    "weights",
]  # fmt: skip

NAMES = "must be 1 to 100 letters, digits, '.', '-' and '_', and begin with neither '.' nor '-'"
BROKEN: list[tuple[str, Any, str]] = [
    ("folds", 1, "must be 2 to 20"),
    ("folds", 21, "must be 2 to 20"),
    ("image_size", 31, "must be 32 to 1024"),
    ("image_size", 1025, "must be 32 to 1024"),
    ("batch_size", 1, "must be 2 to 65536"),
    ("batch_size", 65537, "must be 2 to 65536"),
    ("region_margin", -0.1, "must be 0.0 to 2.0"),
    ("region_margin", 2.1, "must be 0.0 to 2.0"),
    ("hidden", -1, "must be 0 to 8192"),
    ("hidden", 8193, "must be 0 to 8192"),
    ("dropout", 1.0, "must be at least 0 and below 1"),
    ("dropout", -0.1, "must be at least 0 and below 1"),
    ("dropout", math.nan, "must be at least 0 and below 1"),
    ("focal_gamma", -1.0, "must be 0.0 to 10.0"),
    ("focal_gamma", 10.5, "must be 0.0 to 10.0"),
    ("lr", 0.0, "must be above 0 and at most 1"),
    ("lr", 1.5, "must be above 0 and at most 1"),
    ("lr", math.nan, "must be above 0 and at most 1"),
    ("head_lr_factor", 0.0, "must be above 0 and at most 1000"),
    ("head_lr_factor", 1001.0, "must be above 0 and at most 1000"),
    ("layer_decay", 0.0, "must be above 0 and at most 1"),
    ("layer_decay", 1.1, "must be above 0 and at most 1"),
    ("weight_decay", -0.1, "must be 0.0 to 1.0"),
    ("weight_decay", 1.1, "must be 0.0 to 1.0"),
    ("clip_norm", 0.0, "must be above 0 (inf for no clipping)"),
    ("clip_norm", math.nan, "must be above 0 (inf for no clipping)"),
    ("accumulate", 0, "must be 1 to 1024"),
    ("accumulate", 1025, "must be 1 to 1024"),
    ("ema_decay", 1.0, "must be at least 0 and below 1"),
    ("ema_decay", -0.5, "must be at least 0 and below 1"),
    ("freeze_epochs", -1, "must not be negative"),
    ("epochs", 0, "must be 1 to 10000"),
    ("epochs", 10001, "must be 1 to 10000"),
    ("warmup_epochs", -0.5, "must be 0 to 30 (epochs)"),
    ("warmup_epochs", 30.5, "must be 0 to 30 (epochs)"),
    ("plateau_patience", 0, "must be at least 1"),
    ("plateau_factor", 0.0, "must be above 0 and below 1"),
    ("plateau_factor", 1.0, "must be above 0 and below 1"),
    ("patience", 0, "must be at least 1"),
    ("min_gain", -0.1, "must be 0.0 to 0.5"),
    ("min_gain", 0.6, "must be 0.0 to 0.5"),
    ("gpus", -1, "must not be negative"),
    ("gpus_per_unit", 0, "must be a number of GPUs, or a share of one from 0.05 to 1"),
    ("ranks_per_unit", 0, "must be at least 1"),
    ("decode_threads", 0, "must be at least 1"),
    ("max_restarts", -1, "must not be negative"),
    ("max_preemptions", -1, "must not be negative"),
    ("max_skipped_steps", -1, "must not be negative"),
    ("max_corrupt_images", -1, "must not be negative"),
    ("grace_s", -1, "must not be negative"),
    *[
        ("checkpoint_every", each, "must be a number of steps, or a time such as 90s, 10m or 2h")
        for each in ("0", "0m", "", "5d", "-1", "1.5h")
    ],
    ("mirror", "folder", "must be a URL, such as s3://BUCKET/RUNS, with no user or password in it"),
    ("mirror", "ftp://me@host/runs", "must be a URL, such as s3://BUCKET/RUNS, with no user or password in it"),
    ("collective_timeout_s", 4, "must be 5 to 86400"),
    ("collective_timeout_s", 86401, "must be 5 to 86400"),
    ("seed", -1, "must be 0 to 4294967295"),
    ("seed", 2**32, "must be 0 to 4294967295"),
    ("threshold", 0.0, "must be above 0 and below 1"),
    ("threshold", 1.0, "must be above 0 and below 1"),
    ("name", "", NAMES),
    ("name", "../other", NAMES),
    ("name", "..", NAMES),
    ("name", ".hidden", NAMES),
    ("name", "a" * 101, NAMES),
    ("name", "a b", NAMES),
]
CPU_ONLY = "--ranks-per-unit 2: is for the CPU (--gpus 0). Use --gpus-per-unit, or add --gpus 0."


def sections() -> list[Any]:
    return [RunConfig(), *(value for value in vars(RunConfig()).values() if is_dataclass(value))]


def test_the_defaults_are_valid_and_differ_from_themselves_in_nothing() -> None:
    assert differences(RunConfig()) == {}


@pytest.mark.parametrize("field", ["data", "mirror"])
@pytest.mark.parametrize(
    ("url", "output"),
    [
        ("https://me:hush/@1@host/isic", "https://...host/isic"),
        ("s3://bucket/isic?X-Amz-Signature=hush", "s3://...bucket/isic"),
        ("ftp://:hush@host", "ftp://...host"),
    ],
)
def test_a_secret_in_a_url_is_refused_and_not_printed(field: str, url: str, output: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(**{field: url})
    assert str(caught.value).startswith(f"--{field} {output}: must hold no password and no signature")
    assert "hush" not in str(caught.value)


def test_an_address_without_a_secret_is_a_url() -> None:
    assert config(data="abfs://container@account.dfs.core.windows.net/isic").data.data
    assert config(data="folder/with:colon@sign").data.data


@pytest.mark.parametrize(("field", "value", "rule"), BROKEN, ids=lambda value: str(value)[:24])
def test_a_broken_rule_names_field_value_and_rule(field: str, value: Any, rule: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(**{field: value})
    assert str(caught.value) == f"--{field.replace('_', '-')} {value}: {rule}."


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gpus": 0, "gpus_per_unit": 2}, "--gpus-per-unit 2: is for GPUs, and --gpus is 0. Use --ranks-per-unit."),
        ({"gpus": 2, "ranks_per_unit": 2}, CPU_ONLY),
        ({"ranks_per_unit": 2}, CPU_ONLY),
        ({"gpus": 0, "cuda_graph": "on"}, "--cuda-graph on: needs one GPU for each fold."),
        ({"gpus_per_unit": 2, "cuda_graph": "on"}, "--cuda-graph on: needs one GPU for each fold."),
        ({"freeze_epochs": 31}, "--freeze-epochs 31: must not exceed --epochs 30."),
        ({"epochs": 2, "warmup_epochs": 3.0}, "--warmup-epochs 3.0: must be 0 to 2 (epochs)."),
    ],
    ids=lambda value: str(value)[:30],
)
def test_fields_that_contradict_each_other(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(**values)
    assert str(caught.value) == message


def test_bounds_are_inclusive() -> None:
    config(folds=20, batch_size=65536, dropout=0.0, lr=1.0, ema_decay=0.999, freeze_epochs=30, warmup_epochs=30.0)
    config(folds=2, batch_size=2, image_size=32, accumulate=1024, seed=2**32 - 1, min_gain=0.5, clip_norm=math.inf)


def test_field_names_are_unique_over_the_sections() -> None:
    names = [item.name for section in sections() for item in fields(section)]
    leaves = [key.rpartition(".")[2] for key in dotted(RunConfig())]
    assert sorted(leaves) == sorted(set(leaves))
    assert len(names) == len(set(names)) + sum(
        name in ("data", "loss", "optimizer", "region", "schedule") for name in set(names)
    )


def test_the_flags_are_these_and_no_others() -> None:
    names = {key.rpartition(".")[2] for key in dotted(RunConfig())}
    assert suppressed(RunConfig) == {"task"}
    assert sorted(names - suppressed(RunConfig)) == FLAGS


def test_a_segmenter_has_the_flags_of_a_run_but_those_about_labels_and_two_of_its_own() -> None:
    absent = {
        "balance", "class_weights", "dropout", "focal_gamma", "fusion", "head_norm", "headline", "hidden", "labels",
        "lesions", "loss", "mask", "metadata", "pooling", "region", "region_margin",
    }  # fmt: skip
    text = tyro.extras.get_parser(SegmentConfig, config=PARSER).format_help()
    listed = {word.strip(",") for word in text.replace("|", " ").split() if word.startswith("--")}
    names = {key.rpartition(".")[2] for key in dotted(SegmentConfig())}
    flags = {name for name in names if f"--{name.replace('_', '-')}" in listed}
    assert flags == set(FLAGS) - absent | {"dice_weight", "tversky_weight"}


def test_a_loss_without_weight_is_not_in_the_identity_of_a_segmenter() -> None:
    before = SegmentConfig().identity()
    assert "loss.tversky_weight" not in before  # as in runs that are older than the field: they keep their names
    assert SegmentConfig(loss=MaskLossConfig(tversky_weight=0.5)).identity() == before | {"loss.tversky_weight": 0.5}


def test_the_help_lists_every_flag_without_its_section() -> None:
    text = io.StringIO()
    with pytest.raises(SystemExit) as caught:
        tyro.cli(RunConfig, args=["--help"], config=PARSER, console_outputs=False)
    assert caught.value.code == 0
    text.write(tyro.extras.get_parser(RunConfig, config=PARSER).format_help())
    listed = {word.strip(",") for word in text.getvalue().replace("|", " ").split() if word.startswith("--")}
    assert {f"--{flag.replace('_', '-')}" for flag in FLAGS} <= listed
    assert not any("." in flag for flag in listed)


def test_the_identity_holds_every_field_but_places_hardware_and_fault_tolerance() -> None:
    outside = {key for key in dotted(RunConfig()) if key not in RunConfig().identity()}
    machines = {f"hardware.{item.name}" for item in fields(HardwareConfig)}
    faults = {f"fault_tolerance.{item.name}" for item in fields(FaultToleranceConfig)}
    assert outside == {"name", "runs", "mirror", "track", "data.data", "region.lesions"} | machines | faults


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "'trian' is not a command"),
        (["--config"], "the file's name is missing"),
        (["--config", "a.yaml", "--config=b.yaml"], "is given more than once"),
        (["--config", "no-such-file.yaml"], "no-such-file.yaml"),
        (["data", "prepar"], "'prepar' is not one of its commands: `data download`, `data prepare`"),
        (["--lr", "5"], "--lr 5.0: must be above 0"),
        (["--gpus", "0"], "--data: is missing"),
    ],
    ids=str,
)
def test_mistakes_end_with_code_2_and_one_message(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.startswith("error: ")
    assert "Traceback" not in captured.err


@pytest.mark.parametrize("arguments", [["--lerning-rate", "1"], ["--batch-size", "many"]], ids=str)
def test_the_parser_shows_a_broken_rule(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    output = capsys.readouterr().err
    assert arguments[0] in output
    assert "Traceback" not in output


def test_a_headline_changes_the_identity_only_where_it_is_not_the_default() -> None:
    before = RunConfig().identity()
    assert before["data.headline"] is None  # a run that is older than the field has this value
    assert RunConfig(data=DataConfig(headline="MEL")).identity() == before
    assert RunConfig(data=DataConfig(headline="BCC")).identity() == before | {"data.headline": "BCC"}
    assert DataConfig(labels="BCC,SCC", headline="SCC").label_set().headline == "SCC"
