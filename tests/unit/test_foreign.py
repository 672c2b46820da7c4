"""Whatever is in a file, it is read or refused with one kind of error."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melanoma_dist.config_file import parse_yaml
from melanoma_dist.data.parquet import read_parquet
from melanoma_dist.foreign import parse_json, read_bytes


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
def test_json_that_would_fail_later_is_refused(text: str) -> None:
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


@given(st.binary(max_size=200))
def test_rubbish_is_refused_in_one_way(data: bytes) -> None:
    for read in (parse_json, read_parquet):
        with contextlib.suppress(OSError, ValueError):
            read(data)


def test_a_device_is_no_file() -> None:
    with pytest.raises(ValueError, match="no regular file"):
        read_bytes(Path("/dev/zero"))
