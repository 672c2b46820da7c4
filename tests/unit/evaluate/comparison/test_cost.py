from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from melanoma_dist.evaluate.comparison.cost import cost, differences, parameters
from melanoma_dist.evaluate.comparison.records import Cost
from melanoma_dist.evaluate.comparison.runs import ComparedRun, read_out_of_fold_runs

from .run_folders import images, scores, write_run


def finished(tmp_path: Path, name: str = "a", **changed: Any) -> Path:
    table = images(30)
    return write_run(tmp_path, name, table, scores(table, 1, 0), **changed)


def read(*folders: Path) -> list[ComparedRun]:
    return read_out_of_fold_runs(folders)


def test_hours_are_summed_and_speeds_averaged_over_folds(tmp_path: Path) -> None:
    fold = {"device": "GPU", "epochs": 3, "device_seconds": 1800.0, "images_per_s": 100.0, "input_wait_share": 0.1}
    other = {**fold, "epochs": 5, "device_seconds": 5400.0, "images_per_s": 300.0, "input_wait_share": 0.3}
    (run,) = read(finished(tmp_path, training={"0": fold, "1": other}))
    assert cost(run) == Cost("GPU", 2.0, 2, 8, 200.0, pytest.approx(0.2), 15)


def test_a_value_that_one_fold_lacks_is_none(tmp_path: Path) -> None:
    (run,) = read(finished(tmp_path, training={"0": {"device": "GPU", "epochs": 3, "device_seconds": 9.0}, "1": {}}))
    assert set(vars(cost(run)).values()) == {None, 2, 15}
    (run.folder / "model" / "fold-0.safetensors").unlink()
    assert cost(run).parameters is None


def test_parameters_are_counted_without_the_statistics_of_batch_norms(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.Flatten())
    save_file(model.state_dict(), tmp_path / "model.safetensors", metadata={"labels": "MEL"})
    expected = sum(parameter.numel() for parameter in model.parameters())
    assert parameters(tmp_path / "model.safetensors") == expected


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 64, b"\x02" + bytes(7) + b"[]"])
def test_a_corrupt_model_has_no_number_of_parameters(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(content)
    assert parameters(tmp_path / "model") is None


def test_differences_come_from_configuration_code_and_machine(tmp_path: Path) -> None:
    makers = {"version": "0.1.0", "code": "d" * 64, "libraries": {"torch": "2.8"}, "machine": {"cores": 8}}
    identity = {"seed": 0, "data.folds": 3, "data.labels": "isic2017", "model.backbone": "a", "data": "f" * 64}
    identity |= {"optimizer.lr": 0.1}
    runs = read(
        finished(tmp_path, "a"),
        finished(tmp_path, "b", backbone="a", made_with=makers, identity=identity, threshold=0.3, repeats=2),
    )
    assert [run.name for run in runs] == ["a", "b"]  # the same backbone: named by folder
    assert differences(runs) == {
        "code": ["c" * 64, "d" * 64], "library torch": ["2.9", "2.8"], "machine cores": [2, 8],
        "optimizer.lr": [None, 0.1], "repeats": [1, 2], "threshold": [0.5, 0.3],
    }  # fmt: skip
