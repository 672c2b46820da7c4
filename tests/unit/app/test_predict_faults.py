"""`predict` survives what ends its processes: a photograph that kills its decoder, Ctrl-C, SIGTERM and SIGKILL."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from melanoma_dist.app.decoders import _Decoder
from melanoma_dist.app.inspection import InspectedPhoto
from melanoma_dist.app.predictor import Predictor
from melanoma_dist.storage.locks import lock_file

from ...conftest import ROOT
from .conftest import Predict
from .test_predict import new_photograph

BATCH = 7
CHUNK = 70  # readable images: whole batches of at least 64 images
IMAGES = 4 * 72 + 3


@pytest.fixture
def listed(sources: list[Path], tmp_path: Path) -> Path:
    """A table of some hundred images, in several chunks, with three that cannot be read."""
    place = tmp_path / "images"
    place.mkdir()
    for number, path in enumerate(4 * sources):
        shutil.copy(path, place / f"{number:03d}.jpg")
    (place / "010a.jpg").write_text("<html>")
    (place / "100a.jpg").write_bytes(sources[0].read_bytes()[:200])
    names = sorted(path.name for path in place.iterdir())
    names.insert(5, "missing.jpg")
    assert len(names) == IMAGES
    (place / "list.csv").write_text("note,image\n" + "".join(f"about {name},{name}\n" for name in names))
    return place / "list.csv"


@pytest.fixture
def expected(finished: Path, listed: Path, predict: Predict, tmp_path: Path) -> bytes:
    """The output of a command that nobody interrupts."""
    predict(finished, listed, "--out", tmp_path / "whole.csv", "--batch-size", BATCH, code=1)
    assert not (tmp_path / "whole.csv.part").exists()
    return (tmp_path / "whole.csv").read_bytes()


def resumed(text: str) -> int:
    """After how many images a command says that it resumed; 0 if it does not say so."""
    match = re.search(rf"resumes after (\d+) of {IMAGES} images", text)
    return int(match[1]) if match else 0


def interrupt(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Let Ctrl-C arrive after some chunks."""
    predict_chunk = Predictor.predict
    calls = []

    def predict(self: Predictor, photos: Sequence[InspectedPhoto], *rest: Any) -> Any:
        calls.append(len(photos))
        if len(calls) > after:
            raise KeyboardInterrupt
        return predict_chunk(self, photos, *rest)

    monkeypatch.setattr(Predictor, "predict", predict)


def test_a_photograph_that_kills_its_decoder_is_a_row_with_its_reason(
    finished: Path, predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [new_photograph(tmp_path / f"{name}.jpg", at) for at, name in enumerate(("a", "deadly", "b", "c"))]
    ask = _Decoder._ask

    def kill_while_it_decodes(self: _Decoder, image_id: str, data: bytes) -> InspectedPhoto:
        if "deadly" in image_id:
            assert self.pid is not None
            os.kill(self.pid, signal.SIGSTOP)
            threading.Timer(0.3, os.kill, (self.pid, signal.SIGSEGV)).start()
            threading.Timer(0.4, os.kill, (self.pid, signal.SIGCONT)).start()
        return ask(self, image_id, data)

    monkeypatch.setattr(_Decoder, "_ask", kill_while_it_decodes)
    text = predict(finished, *files, "--out", tmp_path / "out.csv", code=1)
    assert "1 of 4 images cannot be predicted" in text
    answers = pd.read_csv(tmp_path / "out.csv", keep_default_na=False)
    assert answers["error"].tolist() == ["", "its decoder crashed", "", ""]
    assert answers["MEL"][1] == ""
    assert len(answers["sha256"][1]) == 64
    monkeypatch.undo()
    predict(finished, files[0], files[2], files[3], "--out", tmp_path / "others.csv", "--batch-size", 4)
    others = pd.read_csv(tmp_path / "others.csv", keep_default_na=False)
    assert others["MEL"].tolist() == [float(value) for value in answers["MEL"][[0, 2, 3]]]


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGKILL, -signal.SIGKILL),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
    ],
)
def test_a_killed_command_resumes_to_the_same_bytes(
    number: signal.Signals, code: int, finished: Path, listed: Path, expected: bytes, predict: Predict, tmp_path: Path
) -> None:
    words = [finished, listed, "--out", tmp_path / "out.csv", "--batch-size", BATCH]
    command = [sys.executable, str(ROOT / "launch.py"), "predict", *map(str, words), "--gpus", "0", "-j", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    part = tmp_path / "out.csv.part"
    # The first chunk counts once it is flushed, which the file does not show: a second one follows it.
    while process.poll() is None and not (part.exists() and part.read_bytes().count(b'"ends_chunk": true') >= 2):
        time.sleep(0.005)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code, output
    assert not (tmp_path / "out.csv").exists()
    if number != signal.SIGKILL:
        assert "What was predicted is kept beside --out. The same command resumes:" in output
        assert "Traceback" not in output
    text = predict(*words, code=1)
    assert CHUNK < resumed(text) < IMAGES
    assert (tmp_path / "out.csv").read_bytes() == expected
    assert not part.exists()


def test_only_the_same_files_are_resumed(
    finished: Path, listed: Path, predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [finished, listed, "--out", tmp_path / "out.csv", "--batch-size", BATCH]
    with monkeypatch.context() as interrupted:
        interrupt(interrupted, after=2)
        assert "The same command resumes" in predict(*words, code=130)
    new_photograph(listed.with_name("100.jpg"))
    text = predict(*words, code=1)
    assert CHUNK < resumed(text) < 100
    predict(finished, listed, "--out", tmp_path / "whole.csv", "--batch-size", BATCH, code=1)
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_another_command_starts_anew_and_says_why(
    finished: Path, listed: Path, expected: bytes, predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [finished, listed, "--out", tmp_path / "out.csv", "--batch-size", BATCH]
    with monkeypatch.context() as interrupted:
        interrupt(interrupted, after=1)
        interrupted.setattr("melanoma_dist.app.predict.PIXELS", 0)  # of an earlier version
        predict(*words, "--tta", 2, code=130)
    text = predict(*words, code=1)
    assert "out.csv.part: holds another command's images (other pixels, tta). Starts anew." in text
    assert (tmp_path / "out.csv").read_bytes() == expected


def test_explanations_that_are_interrupted_cost_no_second_prediction(
    finished: Path, predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [finished, new_photograph(tmp_path / "a.jpg"), "--out", tmp_path / "out.csv", "--explain", tmp_path / "why"]

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as interrupted:
        interrupted.setattr("melanoma_dist.app.predict.write_explanations", stop)
        predict(*words, code=130)
    first = (tmp_path / "out.csv").read_bytes()
    assert "resumes after 1 of 1 images" in predict(*words)
    assert (tmp_path / "out.csv").read_bytes() == first
    assert not (tmp_path / "out.csv.part").exists()


def test_an_interrupt_before_the_first_chunk_leaves_nothing(
    finished: Path, predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = new_photograph(tmp_path / "a.jpg")
    interrupt(monkeypatch, after=0)
    assert "Nothing was saved" in predict(finished, image, "--out", tmp_path / "out.csv", code=130)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jpg"]


def test_neither_a_foreign_file_nor_the_part_of_a_running_command_is_replaced(
    finished: Path, predict: Predict, tmp_path: Path
) -> None:
    image = new_photograph(tmp_path / "a.jpg")
    part = tmp_path / "out.csv.part"
    part.write_text("notes\n")
    assert "which `predict` did not write" in predict(finished, image, "--out", tmp_path / "out.csv", code=2)
    assert part.read_text() == "notes\n"
    part.unlink()
    part.mkdir()
    assert "cannot be written (Is a directory)" in predict(finished, image, "--out", tmp_path / "out.csv", code=2)
    part.rmdir()
    with lock_file(part, RuntimeError()):  # type: ignore[arg-type]
        assert "another command is writing" in predict(finished, image, "--out", tmp_path / "out.csv", code=2)
    assert not (tmp_path / "out.csv").exists()
