"""`segment apply`: every image has a mask, by a model that has not seen its group; interrupted, it resumes."""

from __future__ import annotations

import itertools
import multiprocessing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from melanoma_dist.app import apply as command
from melanoma_dist.app import mask_workers
from melanoma_dist.app.mask_workers import Batch, MaskWriter, written_masks
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

    original = mask_workers.write_mask
    monkeypatch.setattr(mask_workers, "write_mask", counted)
    with pytest.raises(KeyboardInterrupt):
        command.apply(settings(run, out))
    assert not (out / RECORD).exists()
    with pytest.raises(DataError, match="is unfinished"):
        read_lesions(out, data)
    before = len(calls)
    command.apply(settings(run, out))
    assert len(calls) - before < len(data.manifest)
    assert read_lesions(out, data).record.fingerprint == read_lesions(applied, data).record.fingerprint


def test_two_processes_write_the_same_table(
    applied: Path, run: Path, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on two GPUs, with 10 images of fold 0 written before: the processes share the rest."""
    out, recorded = tmp_path / "table", command._recorded
    with monkeypatch.context() as patch:
        patch.setattr(command, "_recorded", lambda rows, journal: itertools.islice(recorded(rows, journal), 10))
        with pytest.raises(DataError):  # the table lacks images
            command.apply(settings(run, out))
    monkeypatch.setattr(command, "_worlds", lambda settings: [World(), World()])
    command.apply(settings(run, out))
    assert read_lesions(out, data).record.fingerprint == read_lesions(applied, data).record.fingerprint
    assert multiprocessing.active_children() == []


def test_a_process_that_is_killed_or_fails_ends_the_command(run: Path, data: Dataset, tmp_path: Path) -> None:
    worlds, out = [World(), World()], tmp_path / "file"
    out.write_text("no folder")
    writer = MaskWriter(open_segmenter(run), data, out, batch_size=5)
    batches = [Batch(None, np.arange(start, start + 5)) for start in (0, 5)]
    with written_masks(writer, batches, worlds) as rows:
        for process in multiprocessing.active_children():
            process.kill()
        with pytest.raises(DataError, match="the process that segments on cpu was killed"):
            next(rows)
    with written_masks(writer, batches, worlds) as rows, pytest.raises(NotADirectoryError):
        next(rows)


def test_more_gpus_than_the_machine_has_are_refused(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "one_process", lambda gpus, threads: World(gpu=0, threads=8))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert command._worlds(ApplyConfig(run, gpus=4)) == [World(gpu=gpu, threads=2) for gpu in range(4)]
    with pytest.raises(ConfigError, match=r"gpus.*must be at most the 4 of this machine"):
        command._worlds(ApplyConfig(run, gpus=5))


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


def test_a_folder_with_other_files_is_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.docx").touch()
    with pytest.raises(ConfigError, match=r"--out .*: holds other files; name a new folder"):
        command.apply(settings(run, tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.docx"]


def test_another_data_set_is_refused(run: Path, tmp_path: Path) -> None:
    other = small_dataset(tmp_path / "other", 30)
    with pytest.raises(DataError, match="Only the data set of a run says which images each fold has seen"):
        command.apply(settings(run, tmp_path / "table", data=str(other.folder)))
    assert not (tmp_path / "table").exists()


def test_the_fingerprint_is_of_weights_and_threshold(run: Path) -> None:
    trained = open_segmenter(run, World())
    other = replace(trained, config=replace(trained.config, threshold=0.4))
    assert command.fingerprint(trained) != command.fingerprint(other)
