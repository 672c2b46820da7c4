from __future__ import annotations

import json
from pathlib import Path

import pytest

from melanoma_dist.artifacts.epochs import read_epochs
from melanoma_dist.errors import DataError

from ..hostile import fuzz_reader

EPOCH = {"epoch": 1, "best_epoch": 1, "seconds": 2.5, "device": "CPU core", "devices": 2, "images_per_s": 40.0,
         "wait_share": 0.1, "train_loss": float("nan"), "skipped_steps": 0, "accumulate": 1}  # fmt: skip


def test_whatever_is_in_a_history_is_told_or_refused(tmp_path: Path) -> None:
    def read(data: bytes) -> None:
        (tmp_path / "metrics.jsonl").write_bytes(data)
        sum(epoch["devices"] * epoch["seconds"] for epoch in read_epochs(tmp_path))

    fuzz_reader(read, (json.dumps(EPOCH) + "\n").encode() * 2, DataError)


@pytest.mark.parametrize("text", ["", "{}", "7", "[]", json.dumps({**EPOCH, "seconds": "long"}), "[" * 100_000])
def test_a_damaged_history_is_refused_with_what_to_do(text: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(text)
    with pytest.raises(DataError, match=r"metrics\.jsonl: does not tell the epochs of its fold .*to train it anew"):
        read_epochs(tmp_path)
