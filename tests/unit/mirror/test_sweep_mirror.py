"""A sweep that lost its disk is restored from its mirror; epochs that its journal does not have come from the folds."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from melanoma_dist.artifacts.epochs import write_epochs
from melanoma_dist.artifacts.run_folder import RunFolder
from melanoma_dist.artifacts.run_record import RunRecord, current_environment, now, write_run_record
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.errors import ConfigError
from melanoma_dist.mirror import run_mirror
from melanoma_dist.mirror.run_mirror import MirrorPart, restore
from melanoma_dist.mirror.sweep_mirror import keep_sweep_mirrored, sweep_part
from melanoma_dist.storage.backoff import Backoff
from melanoma_dist.sweep.journal import EpochFinished
from melanoma_dist.train.unit import Unit

from ..samples import EPOCH
from ..sweep.test_work_source import Setting, epoch_done, train
from .conftest import BUSY, IDENTITY
from .storage import Flaky, checkpoint, read_all_files

MIRROR = "flaky://bucket/runs"


@pytest.fixture
def setting(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Setting]:
    Flaky.reset()
    monkeypatch.setattr(run_mirror, "_BACKOFF", Backoff(0.01, 0.02))
    (tmp_path / "heads").mkdir()
    setting = Setting(dataset, tmp_path / "heads")
    setting.context = replace(setting.context, config=replace(setting.context.config, mirror=MIRROR))
    write_run_record(setting.folder / "sweep.json", RunRecord(IDENTITY, current_environment(), now()))
    yield setting
    Flaky.reset()


def part_of(unit: Unit) -> MirrorPart:
    assert unit.mirror == f"{MIRROR}/heads/{unit.run.name}/fold-{unit.fold}"
    return MirrorPart(unit.mirror, unit.run, unit.fold)


def test_a_sweep_that_lost_its_disk_resumes_with_the_epochs_of_its_folds(setting: Setting) -> None:
    parts, messages = sweep_part(MIRROR, setting.folder), list[str]()
    source = setting.start()
    with keep_sweep_mirrored(parts, list, messages.append) as update:
        first = source.next_unit()
        assert first is not None
        train(source, first)
        second = source.next_unit()
        assert second is not None
        source.on_event(second, epoch_done(second, 1))
        update()
    assert messages == [f"mirror: {MIRROR}/heads is up to date"]
    before = setting.journal.records
    # What a killed machine did after the last copy of the journal.
    source.on_event(second, epoch_done(second, 2))
    records = [
        replace(EPOCH, epoch=epoch, score=event.score, best_score=event.best_score)
        for epoch in (1, 2)
        for event in [epoch_done(second, epoch)]
    ]
    checkpoint(second.folder, "epoch-00002-step-0000000", "state")
    write_epochs(second.folder, records)
    for unit in (first, second):
        part_of(unit).copy(print).update()
    files = read_all_files(setting.folder)
    shutil.rmtree(setting.folder)

    restore(RunFolder(setting.folder, IDENTITY), parts, BUSY, messages.append)
    restored = read_all_files(setting.folder)
    assert {path for path in restored if "/fold-" in path} == set()
    assert restored == {path: files[path] for path in restored} | {"journal.jsonl": restored["journal.jsonl"]}
    again = setting.start()
    assert setting.journal.records == before[: len(setting.journal.records)]
    for unit in (first, second):
        restore(RunFolder(unit.run, IDENTITY), [part_of(unit)], BUSY, messages.append)
    resumed = again.next_unit()
    assert resumed == second
    epochs = [record for record in setting.journal.records if isinstance(record, EpochFinished)]
    assert [record.epoch for record in epochs if (record.configuration, record.fold) == (0, 1)] == [1, 2]
    assert train(again, resumed, first=3) is None
    while (unit := again.next_unit()) is not None:
        train(again, unit)
    assert setting.controller.is_finished()


def test_the_mirror_of_another_sweep_is_refused(setting: Setting) -> None:
    parts = sweep_part(MIRROR, setting.folder)
    setting.start().next_unit()
    with keep_sweep_mirrored(parts, list, print):
        pass
    shutil.rmtree(setting.folder)
    with pytest.raises(ConfigError, match=r"holds another run \(seed: 0 there, 7 now\)"):
        restore(RunFolder(setting.folder, {**IDENTITY, "seed": 7}), parts, BUSY, print)


def test_an_interrupted_command_copies_its_journal_and_its_folds_stay_as_they_are(setting: Setting) -> None:
    parts = sweep_part(MIRROR, setting.folder)

    def interrupt() -> None:
        with keep_sweep_mirrored(parts, lambda: pytest.fail("folds"), print):
            setting.start().next_unit()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    shutil.rmtree(setting.folder)
    restore(RunFolder(setting.folder, IDENTITY), parts, BUSY, print)
    assert setting.start().next_unit() is not None
    assert [record.what for record in setting.journal.records] == ["start", "restart"]
