from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from melanoma_dist.artifacts.run_record import Machine
from melanoma_dist.artifacts.summary import FoldTraining
from melanoma_dist.evaluate.comparison.cost import cost, differences, parameters
from melanoma_dist.evaluate.comparison.records import Cost
from melanoma_dist.evaluate.comparison.runs import ComparedRun, read_out_of_fold_runs

from .run_folders import ENVIRONMENT, images, scores, write_run


def finished(tmp_path: Path, name: str = "a", **changed: Any) -> Path:
    table = images(30)
    return write_run(tmp_path, name, table, scores(table, 1, 0), **changed)


def read(*folders: Path) -> list[ComparedRun]:
    return read_out_of_fold_runs(folders)


def test_hours_are_summed_and_speeds_averaged_over_folds(tmp_path: Path) -> None:
    fold = FoldTraining(3, 2, 1.0, "GPU", 1800.0, 100.0, 0.1)
    other = FoldTraining(5, 2, 1.0, "GPU", 5400.0, 300.0, 0.3)
    (run,) = read(finished(tmp_path, training={0: fold, 1: other, 2: other}))
    assert cost(run) == Cost("GPU", 3.5, 3, 13, pytest.approx(700 / 3), pytest.approx(0.7 / 3), 15)


def test_different_devices_and_missing_weights_are_none(tmp_path: Path) -> None:
    fold = FoldTraining(3, 2, 1.0, "GPU", 1800.0, 100.0, 0.1)
    (run,) = read(finished(tmp_path, training={0: fold, 1: replace(fold, device="CPU core"), 2: fold}))
    assert cost(run).device is None
    assert cost(run).parameters == 15
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
    other = replace(ENVIRONMENT, code="d" * 64, libraries={"torch": "2.8"}, machine=Machine("Linux", 8))
    identity = {"seed": 0, "data.folds": 3, "data.labels": "isic2017", "model.backbone": "a", "data": "f" * 64}
    identity |= {"optimizer.lr": 0.1}
    runs = read(
        finished(tmp_path, "a"),
        finished(tmp_path, "b", backbone="a", environment=other, identity=identity, threshold=0.3, repeats=2),
    )
    assert [run.name for run in runs] == ["a", "b"]  # the same backbone: named by folder
    assert differences(runs) == {
        "code": ["c" * 64, "d" * 64], "library torch": ["2.9", "2.8"], "machine cores": [2, 8],
        "optimizer.lr": [None, 0.1], "repeats": [1, 2], "threshold": [0.5, 0.3],
    }  # fmt: skip
