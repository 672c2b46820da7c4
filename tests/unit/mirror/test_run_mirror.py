"""A run that lost its disk, or a part of it, comes back from its mirror; a mirror of another run does not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from melanoma_dist.artifacts.run_folder import RunFolder
from melanoma_dist.config.run import RunConfig
from melanoma_dist.errors import ConfigError
from melanoma_dist.mirror import run_mirror
from melanoma_dist.mirror.run_mirror import Part, mirrored, parts, restore
from melanoma_dist.storage import atomic
from melanoma_dist.storage.backoff import Backoff
from melanoma_dist.storage.locks import LOCK, alone_by

from ..samples import tiny
from .storage import Flaky, everything

BUSY = ConfigError("another command")
IDENTITY = {"seed": 0, "data": "fingerprint"}
MIRROR = "flaky://bucket/runs"


class Run:
    """The folder of a run, made by hand, and its mirror."""

    def __init__(self, path: Path, config: RunConfig | None = None) -> None:
        self.config = config or tiny(mirror=MIRROR, folds=2, repeats=2)
        self.folder = RunFolder(path, IDENTITY)
        self.parts = parts(self.config, self.folder)
        self.told: list[str] = []

    def write(self, path: str, text: str) -> None:
        (self.folder.path / path).parent.mkdir(parents=True, exist_ok=True)
        atomic.write_text(self.folder.path / path, text)

    def save(self, fold: str, epoch: int) -> None:
        place = self.folder.path / fold / "checkpoints" / f"epoch-{epoch:05d}-step-0000000"
        atomic.write_folder(place, lambda aside: (aside / "state.pt").write_text(f"{fold} {epoch}"))

    def begin(self) -> None:
        self.write("record.json", json.dumps({"identity": IDENTITY}))
        self.write("config.yaml", "seed: 0")
        self.write("folds.parquet", "folds")
        self.write("seed-1/folds.parquet", "the same folds")
        for fold in ("fold-0", "fold-1", "seed-1/fold-0", "seed-1/fold-1"):
            self.save(fold, 1)
            self.write(f"{fold}/metrics.jsonl", f"{fold} 1")

    def finish(self) -> None:
        for place in ("", "seed-1/"):
            for fold in (0, 1):
                self.write(f"{place}model/fold-{fold}.safetensors", f"{place}weights {fold}")
                self.write(f"{place}fold-{fold}/predictions.parquet", f"{place}predictions {fold}")
        self.write("predictions.parquet", "all predictions")
        self.write("model/README.md", "the card")
        self.write("summary.json", "the figures")

    def copy(self) -> None:
        with mirrored(self.parts, self.told.append):
            pass

    def lose(self) -> dict[str, bytes]:
        before = everything(self.folder.path)
        shutil.rmtree(self.folder.path)
        return before

    def back(self) -> dict[str, bytes]:
        self.told.clear()
        restore(self.folder, self.parts, BUSY, self.told.append)
        return everything(self.folder.path)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    Flaky.clean()
    monkeypatch.setattr(run_mirror, "_BACKOFF", Backoff(0.01, 0.02))
    yield Run(tmp_path / "runs" / "name")
    Flaky.clean()


def test_a_run_that_is_not_mirrored_has_no_parts(tmp_path: Path) -> None:
    plain = Run(tmp_path / "name", tiny(folds=2))
    assert plain.parts == []
    restore(plain.folder, [], BUSY, print)
    with mirrored([], print):
        pass
    assert not plain.folder.path.exists()


def test_every_file_is_of_one_part(run: Run) -> None:
    assert [part.url.removeprefix(f"{MIRROR}/name/") for part in run.parts] == [
        "run", "fold-0", "fold-1", "seed-1/fold-0", "seed-1/fold-1"
    ]  # fmt: skip
    run.begin()
    run.finish()
    claimed = [
        (part.root / path).relative_to(run.folder.path).as_posix()
        for part in run.parts
        for path in everything(part.root)
        if part.belongs(path)
    ]
    assert sorted(claimed) == sorted(everything(run.folder.path))


def test_a_run_that_lost_its_disk_is_what_it_was(run: Run) -> None:
    run.begin()
    run.copy()
    assert run.told == [f"mirror: {MIRROR}/name has all of this run"]
    before = run.lose()
    assert run.back() == before
    assert len(run.told) == 5
    run.finish()
    run.copy()
    before = run.lose()
    assert run.back() == before


def test_nothing_is_brought_where_nothing_was_mirrored_or_nothing_lacks(run: Run) -> None:
    assert run.back() == {}
    assert not run.folder.path.exists()
    run.begin()
    run.copy()
    run.write("fold-0/metrics.jsonl", "newer")
    run.save("fold-1", 2)
    before = everything(run.folder.path)
    assert run.back() == before
    assert run.told == []


def test_a_part_that_is_behind_is_brought_up(run: Run) -> None:
    run.begin()
    run.save("fold-0", 2)
    run.copy()
    checkpoints = run.folder.path / "fold-0" / "checkpoints"
    shutil.rmtree(checkpoints / "epoch-00002-step-0000000")
    found = run.back()
    assert found["fold-0/checkpoints/epoch-00002-step-0000000/state.pt"] == b"fold-0 2"
    assert len(run.told) == 1
    (checkpoints / "epoch-00002-step-0000000" / "state.pt").write_text("damaged here")
    assert run.back() == found


def test_a_finished_run_comes_back_finished_after_an_interruption_in_the_middle(run: Run) -> None:
    run.begin()
    run.finish()
    run.copy()
    before = run.lose()
    for number in range(200):

        def stop(_: str, left: list[int] = [number]) -> None:  # noqa: B006
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt

        Flaky.after = staticmethod(stop)
        try:
            assert run.back() == before
            break
        except KeyboardInterrupt:
            there = everything(run.folder.path) if run.folder.path.exists() else {}
            if "summary.json" in there:
                assert there == before
            for fold in ("fold-0", "fold-1"):
                if f"{fold}/predictions.parquet" in there:
                    assert f"model/{fold}.safetensors" in there
        Flaky.after = staticmethod(lambda _: None)
        if run.folder.path.exists():
            shutil.rmtree(run.folder.path)
    else:
        pytest.fail("it never ended")


def damage(text: bytes) -> None:
    for path, file in Flaky.store.items():
        if "/objects/" in path and file.getvalue() == text:
            file.seek(0)
            file.write(b"X")


def test_a_damaged_checkpoint_of_the_mirror_falls_back_to_the_one_before(run: Run) -> None:
    run.begin()
    run.save("fold-0", 2)
    run.copy()
    run.lose()
    damage(b"fold-0 2")
    found = run.back()
    assert "fold-0/checkpoints/epoch-00001-step-0000000/state.pt" in found
    assert not any("epoch-00002" in path for path in found)
    assert any("epoch-00002-step-0000000 is damaged and was left out" in line for line in run.told)


@pytest.mark.parametrize("text", [b"weights 0", b"predictions 0"])
def test_a_damaged_fold_is_finished_anew_and_so_is_the_run(run: Run, text: bytes) -> None:
    run.begin()
    run.finish()
    run.copy()
    run.lose()
    damage(text)
    found = run.back()
    assert "fold-0/predictions.parquet" not in found
    assert "fold-1/predictions.parquet" in found
    assert "summary.json" not in found
    assert "record.json" in found


def test_a_damaged_file_of_the_run_is_made_anew(run: Run) -> None:
    run.begin()
    run.finish()
    run.copy()
    run.lose()
    damage(b"the card")
    found = run.back()
    assert not {"summary.json", "record.json"} & found.keys()
    assert "fold-0/predictions.parquet" in found


def test_a_record_that_nests_without_end_is_made_anew(run: Run) -> None:
    run.begin()
    run.write("record.json", "[" * 100_000)
    run.copy()
    run.lose()
    assert "record.json" in run.back()


def test_the_mirror_of_another_run_is_refused(run: Run) -> None:
    run.begin()
    run.copy()
    run.lose()
    run.folder.identity["seed"] = 7
    with pytest.raises(ConfigError, match=r"holds another run \(seed: 0 there, 7 now\)"):
        run.back()
    assert not run.folder.path.exists()
    run.folder.identity["seed"] = 0


def test_a_folder_in_which_a_command_works_is_left_alone(run: Run) -> None:
    run.begin()
    run.copy()
    run.lose()
    run.folder.path.mkdir()
    with alone_by(run.folder.path / LOCK, BUSY), pytest.raises(ConfigError, match="another command"):
        run.back()


def test_a_mirror_that_cannot_be_used_at_the_start_is_told_before_anything_is_trained(run: Run) -> None:
    run.begin()
    Flaky.refusals = 10**6
    for action in (run.back, run.copy):
        with pytest.raises(ConfigError, match=r"--mirror flaky://.*cannot be used \(ConnectionError: 503 slow down\)"):
            action()


def test_a_short_trouble_at_the_start_is_waited_for(run: Run) -> None:
    run.begin()
    Flaky.refusals = 3
    run.copy()
    before = run.lose()
    Flaky.refusals = 3
    assert run.back() == before


@pytest.mark.parametrize("url", ["nonsense://bucket/runs", "s4://x"])
def test_an_unknown_kind_of_url_is_told_at_once(tmp_path: Path, url: str) -> None:
    strange = Run(tmp_path / "name", tiny(mirror=url, folds=2))
    with pytest.raises(ConfigError, match="Protocol not known"):
        strange.back()


def test_what_fails_in_the_end_is_told_and_fails_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_mirror, "_LAST_WAIT_S", 0.1)
    run.begin()
    copied: list[Any] = []
    couriers = Part.courier

    def courier(part: Part, tell: Any) -> Any:
        copied.append(couriers(part, tell))
        return copied[-1]

    monkeypatch.setattr(Part, "courier", courier)
    with mirrored(run.parts, run.told.append):
        Flaky.refusals = 10**6
    assert sum("the mirror lacks what is newest here" in line for line in run.told) >= 4
    for each in copied:
        each._thread.join(30)
