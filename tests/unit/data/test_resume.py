"""A stopped preparation resumes and produces the same bytes as an uninterrupted one."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest

from melanoma_dist.data import journal, shards, store
from melanoma_dist.data import prepare as prepare_module
from melanoma_dist.data.decode import _submit
from melanoma_dist.data.manifest import load_dataset
from melanoma_dist.data.photo import Photo, PhotoJob, prepare_photo
from melanoma_dist.data.prepare import Request, prepare
from melanoma_dist.errors import DataError
from melanoma_dist.storage.locks import lock_folder

from ..hostile import fuzz_reader
from .conftest import Raw, write_image

ROOT = Path(__file__).resolve().parents[3]


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.fixture
def request_of_50(raw: Raw) -> Request:
    """50 images, one unreadable, some with masks."""
    for number in range(50):
        raw.image_2017(number)
    images = raw.folder / "2017/ISIC-2017_Training_Data"
    (images / "ISIC_0000017.jpg").write_bytes(b"no photograph")
    for number in range(0, 50, 7):
        write_image(raw.folder / f"2017/ISIC-2017_Training_Part1_GroundTruth/ISIC_{number:07d}_segmentation.png")
    return Request(raw.folder, ("2017",), size=24)


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several shards, and several syncs to the disk."""
    monkeypatch.setattr(store, "_SYNC_EVERY", 4)
    monkeypatch.setattr(store, "ShardWriter", lambda folder, after: shards.ShardWriter(folder, 20_000, after))


class Stops:
    """Decodes some images, then is interrupted."""

    def __init__(self) -> None:
        self.decoded: list[str] = []
        self.after = 0

    def __call__(self, jobs: Sequence[PhotoJob]) -> Iterator[Photo]:
        for number, job in enumerate(jobs):
            if number == self.after:
                raise KeyboardInterrupt
            self.decoded.append(job.image_id)
            yield prepare_photo(job)


@pytest.fixture
def stops(monkeypatch: pytest.MonkeyPatch) -> Stops:
    stops = Stops()
    monkeypatch.setattr(store, "prepare_photos", stops)
    return stops


def test_a_stopped_preparation_resumes(request_of_50: Request, tmp_path: Path, stops: Stops) -> None:
    out = tmp_path / "out"
    stops.after = 100
    prepare(request_of_50, tmp_path / "whole")
    stops.decoded = []
    for after in (0, 3, 9, 22):
        stops.after = after
        with pytest.raises(KeyboardInterrupt):
            prepare(request_of_50, out)
        with pytest.raises(DataError, match=r"unfinished data set.*prepare` again"):
            load_dataset(out)
    stops.after = 100
    prepare(request_of_50, out)
    assert digests(out) == digests(tmp_path / "whole")
    assert len(list(out.glob("shard-*.tar"))) > 1
    # At most the images since the last settled ones are decoded again, each time.
    assert len(stops.decoded) < 50 + 4 * 4


def test_images_after_the_last_sync_are_written_again(request_of_50: Request, tmp_path: Path, stops: Stops) -> None:
    out = tmp_path / "out"
    stops.after = 100
    prepare(request_of_50, tmp_path / "whole")
    stops.after = 30
    with pytest.raises(KeyboardInterrupt):
        prepare(request_of_50, out)
    with (out / "journal.jsonl").open("ab") as journal:
        journal.write(b'{"image_id": "ISIC_00000')  # torn
    with sorted(out.glob("shard-*.tar"))[-1].open("ab") as shard:
        shard.write(b"half an image")
    stops.after = 100
    prepare(request_of_50, out)
    assert digests(out) == digests(tmp_path / "whole")


def test_another_request_starts_from_scratch(request_of_50: Request, tmp_path: Path, stops: Stops) -> None:
    out = tmp_path / "out"
    stops.after = 30
    with pytest.raises(KeyboardInterrupt):
        prepare(request_of_50, out)
    stops.after = 100
    other = Request(request_of_50.raw, ("2017",), size=20)
    prepare(other, out)
    prepare(other, tmp_path / "whole")
    assert digests(out) == digests(tmp_path / "whole")


def test_images_of_other_pixels_are_made_anew_and_a_finished_folder_stays(
    request_of_50: Request, tmp_path: Path, stops: Stops, monkeypatch: pytest.MonkeyPatch
) -> None:
    stops.after = 30
    with pytest.raises(KeyboardInterrupt):
        prepare(request_of_50, tmp_path / "out")
    stops.after, stops.decoded = 100, []
    monkeypatch.setattr(prepare_module, "PIXELS", 0)  # of another version
    prepare(request_of_50, tmp_path / "out")
    assert len(stops.decoded) == 50
    monkeypatch.undo()
    before = digests(tmp_path / "out")
    prepare(request_of_50, tmp_path / "out")
    assert digests(tmp_path / "out") == before


def test_processes_do_not_see_the_interrupt_of_a_terminal(request_of_50: Request) -> None:
    (photo,) = sorted(request_of_50.raw.rglob("ISIC_0000003.jpg"))
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        future = _submit(pool, [PhotoJob("a", (photo,), None, 24)])
        (pid,) = pool._processes
        status = Path(f"/proc/{pid}/status").read_text()
        blocked = int(re.findall(r"SigBlk:\s*(\w+)", status)[0], 16)
        assert blocked >> (signal.SIGINT - 1) & 1
        assert future.result()[0].jpeg is not None
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, set())


def test_a_shard_shorter_than_the_journal_says_is_refused(request_of_50: Request, tmp_path: Path, stops: Stops) -> None:
    stops.after = 30
    with pytest.raises(KeyboardInterrupt):
        prepare(request_of_50, tmp_path / "out")
    sorted((tmp_path / "out").glob("shard-*.tar"))[-1].write_bytes(b"")
    with pytest.raises(DataError, match=r"shorter than the journal records. Delete"):
        prepare(request_of_50, tmp_path / "out")


def test_two_preparations_do_not_write_into_one_folder(request_of_50: Request, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with (
        lock_folder(out, DataError("ours")),
        pytest.raises(DataError, match="another preparation is writing here"),
    ):
        prepare(request_of_50, out)
    assert len(prepare(request_of_50, out).manifest) == 49


@pytest.mark.slow
def test_ten_kills_do_not_change_the_bytes(raw: Raw, tmp_path: Path) -> None:
    for number in range(1_000_000, 1_003_000):  # numbers of one's own: the challenge published only 2,000 images
        raw.image_2017(number, size=(640, 480)) if number < 1_000_008 else raw.image_2017(number)
    out = tmp_path / "out"
    command = [sys.executable, str(ROOT / "launch.py"), "data", "prepare"]
    command += ["--raw", str(raw.folder), "--years", "2017", "--out"]
    whole = subprocess.run([*command, str(tmp_path / "whole")], stdout=subprocess.DEVNULL, timeout=300)
    assert whole.returncode == 0
    command.append(str(out))
    rng = np.random.default_rng(0)
    for _ in range(10):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        limit = time.monotonic() + 60
        while not (out / "journal.jsonl").exists() and process.poll() is None and time.monotonic() < limit:
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 4))
        workers = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.kill()
        process.wait()
        assert psutil.wait_procs(workers, timeout=30)[1] == []
    assert subprocess.run(command, stdout=subprocess.DEVNULL, timeout=300).returncode == 0
    assert digests(out) == digests(tmp_path / "whole")


def test_a_corrupt_journal_resumes_up_to_its_last_whole_line_or_is_refused(
    request_of_50: Request, tmp_path: Path
) -> None:
    jobs = [
        PhotoJob(path.stem, (path,), None, 24)
        for path in sorted((request_of_50.raw / "2017/ISIC-2017_Training_Data").iterdir())[:3]
    ]
    place = shards.Place("shard-00000.tar", 512, 9, 1, -1, -1, -1)
    lines = [{"request": "x"}, *(store._entry(tmp_path, prepare_photo(job), place)._asdict() for job in jobs)]

    def read(data: bytes) -> None:
        (tmp_path / "journal.jsonl").write_bytes(data)
        with journal.open_journal(tmp_path) as entries:
            if entries.resume("x"):
                store.read_results(entries)

    fuzz_reader(read, "".join(json.dumps(line) + "\n" for line in lines).encode(), DataError)
