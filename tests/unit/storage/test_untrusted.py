"""An untrusted file is read or refused with one kind of error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from melanoma_dist.config.saved import parse_yaml
from melanoma_dist.storage.parquet import read_parquet
from melanoma_dist.storage.untrusted import parse_json, read_bytes

from ..hostile import fuzz_reader


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "NaN",
        "1e999",
        "9" * 5000,
        '"\\ud800"',
        "\ufeff{}",
        "[" * 60 + "]" * 60,
        "[" + "0," * 1_000_000 + "0]",
    ],
)
def test_json_that_would_fail_later_is_refused_at_once(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [1]\nb: *a",
        "!!python/object/apply:os.system [ls]",
        "a: !!timestamp x",
        "a: 1\na: 2",
        "[" * 5000,
        "0x" + "f" * 5000,
    ],
)
def test_yaml_that_is_not_plain_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_yaml(text)


def as_parquet() -> bytes:
    table = pd.DataFrame({"name": ["a", "b", None], "count": [1, 2, 3], "share": [0.5, None, 1.0]})
    return table.to_parquet(index=False)


@pytest.mark.parametrize(
    ("read", "real"),
    [
        (parse_json, b'{"a": [1, 2.5, null, true], "b": {"c": "text"}}'),
        (lambda data: parse_yaml(data.decode()), b"a: {b: 1, c: [2.5, null]}\nd:\n  - text\n  - 2024-01-01\n"),
        (read_parquet, as_parquet()),
    ],
    ids=["json", "yaml", "parquet"],
)
def test_fuzzed_files_are_refused_in_one_way(read: Callable[[bytes], object], real: bytes) -> None:
    fuzz_reader(read, real, OSError, ValueError, examples=80)


def test_a_device_is_refused() -> None:
    with pytest.raises(ValueError, match="not a regular file"):
        read_bytes(Path("/dev/zero"))
