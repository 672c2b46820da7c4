from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import tyro

from melanoma_dist.artifacts import run_folder
from melanoma_dist.artifacts.run_folder import locate_run, open_run
from melanoma_dist.artifacts.run_record import Environment, current_environment, read_run_record
from melanoma_dist.config.flags import PARSER
from melanoma_dist.config.run import RunConfig
from melanoma_dist.config.saved import with_file
from melanoma_dist.data.folds import make_folds
from melanoma_dist.data.labels import DIAGNOSES
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.errors import ConfigError, DataError

from ..samples import config


@pytest.fixture
def folds(dataset: Dataset) -> pd.DataFrame:
    return make_folds(dataset.manifest, DIAGNOSES, 5, 0)


def name(dataset: Dataset, **values: Any) -> str:
    return locate_run(config(**values), dataset).path.name


def read_back(file: Path) -> RunConfig:
    return tyro.cli(RunConfig, args=with_file(["--config", str(file)]), config=PARSER)


def test_the_same_configuration_finds_its_folder_again(dataset: Dataset, tmp_path: Path) -> None:
    values: dict[str, Any] = {"runs": tmp_path, "data": "/some/where/isic", "backbone": "hf/resnet", "lr": 2e-4}
    folder = locate_run(config(**values), dataset)
    assert folder == locate_run(config(**values), dataset)
    assert folder.path.parent == tmp_path
    assert folder.path.name.startswith("hf_resnet-isic-")
    assert not folder.path.exists()


def test_what_changes_the_result_changes_the_folder(dataset: Dataset) -> None:
    other = dataclasses.replace(dataset, fingerprint="f" * 64)
    names = [name(dataset), name(dataset, seed=1), name(dataset, lr=2e-4), name(dataset, clip_norm=math.inf)]
    assert len({*names, name(other)}) == 5


def test_a_run_of_another_resnet_v2_is_not_continued(dataset: Dataset, folds: pd.DataFrame, tmp_path: Path) -> None:
    settings = config(runs=tmp_path, name="run", backbone="ResNet152V2")
    folder = locate_run(settings, dataset)
    before = dataclasses.replace(folder, identity={k: v for k, v in folder.identity.items() if k != "model.geometry"})
    assert before.identity != folder.identity
    open_run(before, settings, folds)
    with pytest.raises(ConfigError, match=r"holds another run \(model\.geometry: None there, 'keras' now"):
        open_run(folder, settings, folds)


def test_where_it_is_made_and_what_it_is_called_are_no_part_of_it(dataset: Dataset, tmp_path: Path) -> None:
    plain = locate_run(config(), dataset)
    for values in ({"gpus": 0, "ranks_per_unit": 2}, {"gpus": 8}, {"runs": tmp_path}, {"amp": False}):
        other = locate_run(config(**values), dataset)
        assert (other.identity, other.path.name) == (plain.identity, plain.path.name)
    named = locate_run(config(name="mine"), dataset)
    assert (named.identity, named.path) == (plain.identity, Path("runs/mine"))


def test_a_weights_file_is_known_by_its_content_alone(dataset: Dataset, tmp_path: Path) -> None:
    first, copy = tmp_path / "first.safetensors", tmp_path / "copy.safetensors"
    first.write_bytes(b"one")
    copy.write_bytes(b"one")
    before = name(dataset, weights=str(first))
    assert name(dataset, weights=str(copy)) == before
    first.write_bytes(b"two")
    assert name(dataset, weights=str(first)) != before
    with pytest.raises(ConfigError, match=r"--weights .*gone.* is neither imagenet, none nor a file"):
        name(dataset, weights=str(tmp_path / "gone"))


def test_a_run_is_written_once_and_opened_again(dataset: Dataset, folds: pd.DataFrame, tmp_path: Path) -> None:
    chosen = config(runs=tmp_path / "deep" / "runs", clip_norm=math.inf)
    folder = locate_run(chosen, dataset)
    open_run(folder, chosen, folds)
    files = {path.name: path.read_bytes() for path in folder.path.iterdir()}
    assert sorted(files) == ["config.yaml", "folds.parquet", "record.json"]
    pd.testing.assert_frame_equal(pd.read_parquet(folder.folds), folds)
    assert json.loads(files["record.json"])["identity"] == folder.identity
    open_run(locate_run(chosen, dataset), dataclasses.replace(chosen, hardware=config(gpus=3).hardware), folds)
    assert {path.name: path.read_bytes() for path in folder.path.iterdir()} == files
    assert not folder.finished()


def test_another_run_in_the_folder_is_refused_by_what_differs(
    dataset: Dataset, folds: pd.DataFrame, tmp_path: Path
) -> None:
    first = config(runs=tmp_path, name="mine")
    open_run(locate_run(first, dataset), first, folds)
    before = sorted(path.read_bytes() for path in (tmp_path / "mine").iterdir())
    other = config(runs=tmp_path, name="mine", lr=0.002)
    with pytest.raises(ConfigError) as caught:
        open_run(locate_run(other, dataset), other, folds)
    assert str(caught.value) == (
        f"--name mine: {tmp_path / 'mine'} holds another run (optimizer.lr: 0.0003 there, 0.002 now). "
        "Choose another name."
    )
    with pytest.raises(ConfigError, match=r"holds another run \(data: .*'ffff' now\)"):
        open_run(locate_run(first, dataclasses.replace(dataset, fingerprint="ffff")), first, folds)
    with pytest.raises(ConfigError, match="are not those made now"):
        open_run(locate_run(first, dataset), first, folds.assign(fold=(folds["fold"] + 1) % 5))
    assert sorted(path.read_bytes() for path in (tmp_path / "mine").iterdir()) == before


def test_a_field_that_is_younger_than_the_run_has_its_default_there(
    dataset: Dataset, folds: pd.DataFrame, tmp_path: Path
) -> None:
    chosen = config(runs=tmp_path, name="old")
    folder = locate_run(chosen, dataset)
    open_run(folder, chosen, folds)
    record = json.loads(folder.record.read_text())
    del record["identity"]["model.dropout"]
    folder.record.write_text(json.dumps(record))
    open_run(folder, chosen, folds)
    other = config(runs=tmp_path, name="old", dropout=0.5)
    with pytest.raises(ConfigError, match=r"holds another run \(model.dropout: 0.2 there, 0.5 now\)"):
        open_run(locate_run(other, dataset), other, folds)


def test_a_new_field_renames_no_run(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    before = name(dataset), name(dataset, lr=2e-4)
    identity = RunConfig.identity
    monkeypatch.setattr(RunConfig, "identity", lambda self: {**identity(self), "model.drop_path": 0.0})
    assert (name(dataset), name(dataset, lr=2e-4)) == before


@pytest.mark.parametrize("place", ["runs", "runs/mine"])
def test_a_folder_that_cannot_be_written_is_told(
    place: str, dataset: Dataset, folds: pd.DataFrame, tmp_path: Path
) -> None:
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text("in the way")
    chosen = config(runs=tmp_path / "runs", name="mine")
    with pytest.raises(ConfigError, match=r"--runs .*: the run's folder cannot be written"):
        open_run(locate_run(chosen, dataset), chosen, folds)
    assert (tmp_path / place).read_text() == "in the way"


def test_a_corrupt_record_is_refused(dataset: Dataset, folds: pd.DataFrame, tmp_path: Path) -> None:
    chosen = config(runs=tmp_path, name="mine")
    open_run(locate_run(chosen, dataset), chosen, folds)
    (tmp_path / "mine" / "record.json").write_text('{"identity": {')
    with pytest.raises(DataError, match=r"record\.json: .*Choose another --name"):
        open_run(locate_run(chosen, dataset), chosen, folds)


@pytest.mark.parametrize(
    "changed", [{"resumed_with": 7}, {"resumed_with": [{"libraries": [1]}]}, {"environment": {"libraries": "x"}}]
)
def test_a_record_with_a_corrupt_environment_is_refused(
    changed: dict[str, Any], dataset: Dataset, folds: pd.DataFrame, tmp_path: Path
) -> None:
    chosen = config(runs=tmp_path, name="mine")
    open_run(locate_run(chosen, dataset), chosen, folds)
    path = tmp_path / "mine" / "record.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
    with pytest.raises(DataError, match=r"record\.json: .*Choose another --name"):
        open_run(locate_run(chosen, dataset), chosen, folds)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"clip_norm": math.inf, "lr": 1e-5, "seed": 3, "balance": True, "image_size": 64},
        {"gpus": 0, "ranks_per_unit": 2, "data": "demo", "name": "mine", "freeze_epochs": 1},
    ],
    ids=str,
)
def test_the_saved_configuration_makes_the_same_run(
    values: dict[str, Any], dataset: Dataset, folds: pd.DataFrame, tmp_path: Path
) -> None:
    chosen = config(runs=tmp_path / "the runs", **values)
    folder = locate_run(chosen, dataset)
    open_run(folder, chosen, folds)
    again = read_back(folder.path / "config.yaml")
    assert again == chosen
    assert locate_run(again, dataset) == folder


def test_other_libraries_finish_a_run_only_where_that_is_accepted(
    dataset: Dataset, folds: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, accepting = config(runs=tmp_path), config(runs=tmp_path, accept_changes=True)
    folder = locate_run(first, dataset)
    open_run(folder, first, folds)
    open_run(folder, first, folds)
    environment = current_environment()
    torch = environment.libraries["torch"]
    assert torch is not None

    def other() -> Environment:
        return dataclasses.replace(environment, libraries={**environment.libraries, "torch": "9.9"})

    monkeypatch.setattr(run_folder, "current_environment", other)
    with pytest.raises(ConfigError, match=rf"other code or libraries \(torch: {re.escape(torch)} then, 9.9 now\)\."):
        open_run(folder, first, folds)
    open_run(folder, accepting, folds)
    open_run(folder, first, folds)  # the last environment is the one to match
    record = read_run_record(folder.record)
    assert record.environment == environment
    assert [each.libraries["torch"] for each in record.resumed_with] == ["9.9"]
    monkeypatch.undo()
    with pytest.raises(ConfigError, match=r"torch: 9\.9 then"):
        open_run(folder, first, folds)
    folder.summary.touch()  # a finished run is only shown
    open_run(folder, first, folds)
