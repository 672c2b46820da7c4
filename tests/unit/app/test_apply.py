"""`segment apply`: every image has a mask, by a model that has not seen its group; interrupted, it resumes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from melanoma_dist.app import apply as command
from melanoma_dist.artifacts.lesion_table import RECORD, out_of_fold_check, read_lesions
from melanoma_dist.config.apply import ApplyConfig
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.errors import ConfigError, DataError
from melanoma_dist.inference.lesion_masks import largest_region
from melanoma_dist.inference.segmenter import open_segmenter
from melanoma_dist.world import World

from ..samples import small_dataset
from ..segmenters import masked_dataset, segmenter_run


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return masked_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data: Dataset) -> Path:
    return segmenter_run(tmp_path_factory.mktemp("runs"), data)


def settings(run: Path, out: Path, **values: object) -> ApplyConfig:
    return ApplyConfig(run, out, gpus=0, decode_threads=1, batch_size=5, **values)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def applied(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("lesions") / "table"
    command.apply(settings(run, out))
    return out


def test_every_image_has_its_mask_from_models_that_never_saw_its_group(applied: Path, run: Path, data: Dataset) -> None:
    table = read_lesions(applied, data)
    folds = pd.read_parquet(run / "folds.parquet")
    fold = data.manifest["group"].map(dict(zip(folds["group"], folds["fold"], strict=True)))
    expected = [f"fold-{int(number)}" if number >= 0 else "ensemble" for number in fold.fillna(-1)]
    assert table.rows["model"].tolist() == expected
    assert {"fold-0", "fold-1", "ensemble"} == set(expected)
    assert out_of_fold_check(data.manifest, table.rows, folds).passed
    for row, (height, width) in enumerate(data.manifest[["height", "width"]].to_numpy()):
        mask = table.mask(row)
        assert mask.shape == (height, width)
        assert mask.mean() == pytest.approx(table.rows["area"].iloc[row])
        np.testing.assert_array_equal(mask, largest_region(mask))
    assert not (applied / "journal.jsonl").exists()


def test_an_interrupted_command_resumes_to_the_same_table(
    applied: Path, run: Path, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, calls = tmp_path / "table", []

    def counted(*arguments: object) -> None:
        calls.append(arguments)
        if len(calls) == 13:  # within the third batch
            raise KeyboardInterrupt
        original(*arguments)  # type: ignore[arg-type]

    original = command.write_mask
    monkeypatch.setattr(command, "write_mask", counted)
    with pytest.raises(KeyboardInterrupt):
        command.apply(settings(run, out))
    assert not (out / RECORD).exists()
    with pytest.raises(DataError, match="is unfinished"):
        read_lesions(out, data)
    before = len(calls)
    command.apply(settings(run, out))
    assert len(calls) - before < len(data.manifest)
    assert read_lesions(out, data).record.fingerprint == read_lesions(applied, data).record.fingerprint


def test_a_finished_folder_is_shown_and_not_written_again(
    applied: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (applied / RECORD).read_bytes()
    command.apply(settings(run, applied))
    assert f"{applied} is finished" in capsys.readouterr().out
    assert (applied / RECORD).read_bytes() == before


def test_a_folder_of_another_run_is_refused(applied: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "fingerprint", lambda run: "other")
    with pytest.raises(ConfigError, match="holds the lesions that another segmentation run found"):
        command.apply(settings(run, applied))


def test_another_data_set_is_refused(run: Path, tmp_path: Path) -> None:
    other = small_dataset(tmp_path / "other", 30)
    with pytest.raises(DataError, match="Only the data set of a run says which images each fold has seen"):
        command.apply(settings(run, tmp_path / "table", data=str(other.folder)))
    assert not (tmp_path / "table").exists()


def test_the_fingerprint_is_of_weights_and_threshold(run: Path) -> None:
    trained = open_segmenter(run, World())
    other = replace(trained, config=replace(trained.config, threshold=0.4))
    assert command.fingerprint(trained) != command.fingerprint(other)
