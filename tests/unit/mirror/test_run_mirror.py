"""A run that lost its disk, or a part of it, is restored from its mirror; the mirror of another run is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from melanoma_dist.errors import ConfigError
from melanoma_dist.mirror import run_mirror
from melanoma_dist.mirror.run_mirror import MirrorPart, keep_mirrored, restore
from melanoma_dist.storage.locks import LOCK, lock_file

from ..samples import tiny
from .conftest import BUSY, MIRROR, Run
from .storage import Flaky, read_all_files


def test_a_run_that_is_not_mirrored_has_no_parts(tmp_path: Path) -> None:
    plain = Run(tmp_path / "name", tiny(folds=2))
    assert plain.parts == []
    restore(plain.folder, [], BUSY, print)
    with keep_mirrored([], print):
        pass
    assert not plain.folder.path.exists()


def test_every_file_belongs_to_one_part(run: Run) -> None:
    assert [part.url.removeprefix(f"{MIRROR}/name/") for part in run.parts] == [
        "run", "fold-0", "fold-1", "seed-1/fold-0", "seed-1/fold-1"
    ]  # fmt: skip
    run.start()
    run.finish()
    claimed = [
        (part.root / path).relative_to(run.folder.path).as_posix()
        for part in run.parts
        for path in read_all_files(part.root)
        if part.includes(path)
    ]
    assert sorted(claimed) == sorted(read_all_files(run.folder.path))


def test_a_run_that_lost_its_disk_is_restored(run: Run) -> None:
    run.start()
    run.copy()
    assert run.messages == [f"mirror: {MIRROR}/name is up to date"]
    before = run.lose_disk()
    assert run.restore_run() == before
    assert len(run.messages) == 5
    run.finish()
    run.copy()
    before = run.lose_disk()
    assert run.restore_run() == before


def test_nothing_is_restored_without_a_mirror_or_without_missing_files(run: Run) -> None:
    assert run.restore_run() == {}
    assert not run.folder.path.exists()
    run.start()
    run.copy()
    run.write("fold-0/metrics.jsonl", "newer")
    run.save("fold-1", 2)
    before = read_all_files(run.folder.path)
    assert run.restore_run() == before
    assert run.messages == []


def test_a_part_that_is_behind_is_restored(run: Run) -> None:
    run.start()
    run.save("fold-0", 2)
    run.copy()
    checkpoints = run.folder.path / "fold-0" / "checkpoints"
    shutil.rmtree(checkpoints / "epoch-00002-step-0000000")
    files = run.restore_run()
    assert files["fold-0/checkpoints/epoch-00002-step-0000000/state.pt"] == b"fold-0 2"
    assert len(run.messages) == 1
    (checkpoints / "epoch-00002-step-0000000" / "state.pt").write_text("corrupt here")
    assert run.restore_run() == files


def test_checkpoints_that_a_finished_fold_removed_are_not_fetched_again(run: Run) -> None:
    """The last upload may have failed, so the mirror still has them."""
    run.start()
    run.finish()
    run.copy()
    shutil.rmtree(run.folder.path / "fold-0" / "checkpoints")
    assert not any(path.startswith("fold-0/checkpoints") for path in run.restore_run())
    assert run.messages == []
    (run.folder.path / "fold-1" / "predictions.parquet").unlink()  # unfinished here: the mirror is further
    assert "fold-1/predictions.parquet" in run.restore_run()


def test_an_interrupted_restore_never_leaves_a_run_that_only_looks_finished(run: Run) -> None:
    run.start()
    run.finish()
    run.copy()
    before = run.lose_disk()
    for number in range(200):

        def stop(_: str, left: list[int] = [number]) -> None:  # noqa: B006
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt

        Flaky.on_call = staticmethod(stop)
        try:
            assert run.restore_run() == before
            break
        except KeyboardInterrupt:
            restored = read_all_files(run.folder.path) if run.folder.path.exists() else {}
            if "summary.json" in restored:
                assert restored == before
            for fold in ("fold-0", "fold-1"):
                if f"{fold}/predictions.parquet" in restored:
                    assert f"model/{fold}.safetensors" in restored
        Flaky.on_call = staticmethod(lambda _: None)
        if run.folder.path.exists():
            shutil.rmtree(run.folder.path)
    else:
        pytest.fail("the restore never finished")


def corrupt_object(text: bytes) -> None:
    for path, file in Flaky.store.items():
        if "/objects/" in path and file.getvalue() == text:
            file.seek(0)
            file.write(b"X")


def test_a_corrupt_checkpoint_of_the_mirror_falls_back_to_the_one_before(run: Run) -> None:
    run.start()
    run.save("fold-0", 2)
    run.copy()
    run.lose_disk()
    corrupt_object(b"fold-0 2")
    files = run.restore_run()
    assert "fold-0/checkpoints/epoch-00001-step-0000000/state.pt" in files
    assert not any("epoch-00002" in path for path in files)
    assert any("epoch-00002-step-0000000 is corrupt and was left out" in line for line in run.messages)


@pytest.mark.parametrize("text", [b"weights 0", b"predictions 0"])
def test_a_corrupt_fold_is_left_unfinished_and_so_is_the_run(run: Run, text: bytes) -> None:
    run.start()
    run.finish()
    run.copy()
    run.lose_disk()
    corrupt_object(text)
    files = run.restore_run()
    assert "fold-0/predictions.parquet" not in files
    assert "fold-1/predictions.parquet" in files
    assert "summary.json" not in files
    assert "record.json" in files


def test_a_corrupt_file_of_the_run_leaves_the_run_unfinished(run: Run) -> None:
    run.start()
    run.finish()
    run.copy()
    run.lose_disk()
    corrupt_object(b"the card")
    files = run.restore_run()
    assert not {"summary.json", "record.json"} & files.keys()
    assert "fold-0/predictions.parquet" in files


def test_a_record_that_is_nested_too_deeply_does_not_stop_the_restore(run: Run) -> None:
    run.start()
    run.write("record.json", "[" * 100_000)
    run.copy()
    run.lose_disk()
    assert "record.json" in run.restore_run()


def test_the_mirror_of_another_run_is_refused(run: Run) -> None:
    run.start()
    run.copy()
    run.lose_disk()
    run.folder.identity["seed"] = 7
    with pytest.raises(ConfigError, match=r"holds another run \(seed: 0 there, 7 now\)"):
        run.restore_run()
    assert not run.folder.path.exists()
    run.folder.identity["seed"] = 0


def test_a_folder_in_use_by_a_command_is_left_alone(run: Run) -> None:
    run.start()
    run.copy()
    run.lose_disk()
    run.folder.path.mkdir()
    with lock_file(run.folder.path / LOCK, BUSY), pytest.raises(ConfigError, match="another command"):
        run.restore_run()


def test_a_mirror_that_cannot_be_used_at_the_start_is_an_error(run: Run) -> None:
    run.start()
    Flaky.refusals = 10**6
    for action in (run.restore_run, run.copy):
        with pytest.raises(ConfigError, match=r"--mirror flaky://.*cannot be used \(ConnectionError: 503 slow down\)"):
            action()


def test_a_short_outage_at_the_start_is_retried(run: Run) -> None:
    run.start()
    Flaky.refusals = 3
    run.copy()
    before = run.lose_disk()
    Flaky.refusals = 3
    assert run.restore_run() == before


@pytest.mark.parametrize("url", ["nonsense://bucket/runs", "s4://x"])
def test_an_unknown_url_is_reported_at_once(tmp_path: Path, url: str) -> None:
    unknown = Run(tmp_path / "name", tiny(mirror=url, folds=2))
    with pytest.raises(ConfigError, match="Protocol not known"):
        unknown.restore_run()


def test_a_failure_at_the_end_is_reported_and_does_not_fail_the_command(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_mirror, "_LAST_WAIT_S", 0.1)
    run.start()
    uploaders: list[Any] = []
    original = MirrorPart.uploader

    def uploader(part: MirrorPart, log: Any) -> Any:
        uploaders.append(original(part, log))
        return uploaders[-1]

    monkeypatch.setattr(MirrorPart, "uploader", uploader)
    with keep_mirrored(run.parts, run.messages.append):
        Flaky.refusals = 10**6
    assert sum("the mirror is not up to date" in line for line in run.messages) >= 4
    for each in uploaders:
        each._thread.join(30)
