"""What earlier processes wrote for TensorBoard, in one file without holes and doubles."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from torch.utils.tensorboard import SummaryWriter

from melanoma_dist.storage import atomic
from melanoma_dist.train import tensorboard_history

from ..hostile import fuzz_reader


def write(folder: Path, *steps: int, name: str = "") -> None:
    with SummaryWriter(str(folder), filename_suffix=name) as writer:
        for step in steps:
            writer.add_scalar("loss", float(step), step)
            writer.add_scalar("rate", -float(step), step)


def scalars(folder: Path) -> list[tuple[int, float]]:
    return [(each.step, each.value) for each in EventAccumulator(str(folder)).Reload().Scalars("loss")]


def test_nothing_is_made_where_nothing_is(tmp_path: Path) -> None:
    tensorboard_history.rewrite(tmp_path, 3)
    assert list(tmp_path.iterdir()) == []


def test_lost_steps_are_dropped_and_each_other_value_is_there_once(tmp_path: Path) -> None:
    write(tmp_path, 1, 2, 3, 4, 5)
    tensorboard_history.rewrite(tmp_path, 3)
    write(tmp_path, 4, 5, 6)
    assert scalars(tmp_path) == [(step, float(step)) for step in range(1, 7)]
    tensorboard_history.rewrite(tmp_path, 5)
    assert scalars(tmp_path) == [(step, float(step)) for step in range(1, 6)]
    assert len(list(tmp_path.iterdir())) == 1


def test_half_a_record_at_the_end_of_a_killed_process(tmp_path: Path) -> None:
    write(tmp_path, 1, 2, 3)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-5])
    tensorboard_history.rewrite(tmp_path, 9)
    assert scalars(tmp_path) == [(1, 1.0), (2, 2.0), (3, 3.0)]  # of step 3, the rate alone was torn


@pytest.mark.parametrize("length", [0, 1, 2**62, 2**64 - 1])
def test_a_corrupt_event_ends_the_reading(tmp_path: Path, length: int) -> None:
    write(tmp_path, 1, 2)
    (file,) = tmp_path.iterdir()
    head = struct.pack("<Q", length)
    record = head + struct.pack("<I", masked_crc32c(head)) + b"\xff" + struct.pack("<I", masked_crc32c(b"\xff"))
    file.write_bytes(file.read_bytes() + record)
    tensorboard_history.rewrite(tmp_path, 9)
    assert scalars(tmp_path) == [(1, 1.0), (2, 2.0)]


def test_a_clock_that_went_backwards_changes_no_order(tmp_path: Path) -> None:
    write(tmp_path, 1, 2)
    (file,) = tmp_path.iterdir()
    file.rename(tmp_path / "events.out.tfevents.9999999999.later")
    write(tmp_path, 3, 4)
    tensorboard_history.rewrite(tmp_path, 4)
    assert [step for step, _ in scalars(tmp_path)] == [1, 2, 3, 4]


def test_a_kill_before_the_old_files_are_gone_doubles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 1, 2, 3)

    def killed(_: Path, missing_ok: bool = False) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "unlink", killed)
    with pytest.raises(KeyboardInterrupt):
        tensorboard_history.rewrite(tmp_path, 2)
    monkeypatch.undo()
    assert len(list(tmp_path.iterdir())) == 2
    tensorboard_history.rewrite(tmp_path, 2)
    assert scalars(tmp_path) == [(1, 1.0), (2, 2.0)]


def test_a_kill_while_the_new_file_is_written_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 1, 2, 3)

    def killed(_: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(atomic, "_fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        tensorboard_history.rewrite(tmp_path, 2)
    monkeypatch.undo()
    left = [path.name for path in tmp_path.iterdir() if path.name.endswith(".tmp")]
    tensorboard_history.rewrite(tmp_path, 2)
    assert left
    assert [path.name for path in tmp_path.iterdir()] == ["events.out.tfevents.0000000000.merged"]
    assert scalars(tmp_path) == [(1, 1.0), (2, 2.0)]


def test_a_refused_write_leaves_the_old_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 1, 2, 3)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(_: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic, "_fsync", full)
    with pytest.raises(OSError, match="No space left"):
        tensorboard_history.rewrite(tmp_path, 2)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_whatever_is_there_is_rewritten(tmp_path: Path) -> None:
    write(tmp_path, 1, 2)
    (file,) = tmp_path.iterdir()

    def rewritten(data: bytes) -> None:
        for path in tmp_path.iterdir():
            path.unlink()
        file.write_bytes(data)
        tensorboard_history.rewrite(tmp_path, 9)

    fuzz_reader(rewritten, file.read_bytes())


def test_metrics_of_an_epoch_to_validate_again_are_dropped(tmp_path: Path) -> None:
    """A checkpoint may lie between an epoch's last step, where its metrics are, and its end."""
    with SummaryWriter(str(tmp_path)) as writer:
        for step in (4, 5):
            writer.add_scalar("train/loss_running", float(step), step)
            writer.add_scalar("train/loss", float(step), step)
    tensorboard_history.rewrite(tmp_path, 5, validated=False)
    merged = EventAccumulator(str(tmp_path)).Reload()
    assert [each.step for each in merged.Scalars("train/loss_running")] == [4, 5]
    assert [each.step for each in merged.Scalars("train/loss")] == [4]
