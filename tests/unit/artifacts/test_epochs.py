from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from melanoma_dist.artifacts.epochs import read_epochs, write_epochs
from melanoma_dist.errors import DataError

from ..hostile import fuzz_reader
from ..samples import EPOCH


def test_epochs_are_read_as_they_were_written(tmp_path: Path) -> None:
    epochs = [EPOCH, replace(EPOCH, epoch=2, train_loss=0.1 + 0.2, score=1 / 3)]
    write_epochs(tmp_path, epochs)
    assert read_epochs(tmp_path) == epochs


def test_a_history_is_read_or_refused_whatever_it_holds(tmp_path: Path) -> None:
    def read(data: bytes) -> None:
        (tmp_path / "metrics.jsonl").write_bytes(data)
        sum(epoch.devices * epoch.seconds for epoch in read_epochs(tmp_path))

    fuzz_reader(read, (json.dumps(asdict(EPOCH)) + "\n").encode() * 2, DataError)


@pytest.mark.parametrize(
    "text", ["", "{}", "7", "[]", "[" * 100_000]
    + [json.dumps(asdict(EPOCH) | change) for change in (
        {"seconds": "2.5"}, {"seconds": float("nan")}, {"epoch": True}, {"epoch": 1.5}, {"score": None}, {"device": 1})]
)  # fmt: skip
def test_a_corrupt_history_is_refused_with_the_remedy(text: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(text)
    with pytest.raises(
        DataError, match=r"metrics\.jsonl: does not hold the epochs of its fold .*to train the fold again"
    ):
        read_epochs(tmp_path)
