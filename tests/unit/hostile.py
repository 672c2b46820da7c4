"""Fuzz readers of untrusted files with random bytes and corrupted real files."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st

_MAX_CUT = 64  # bytes replaced at once
_TOKENS = (
    b"NaN", b"-1", b"1e999", b"9" * 5000, b"null", b"{}", b"[" * 2000, b'"\\ud800"', b"&a [*a]", b"../../x",
    b"\n", b",", b'"', b"\0", b"\xff" * 8, b"\xef\xbb\xbf",
)  # fmt: skip


@st.composite
def corrupted(draw: st.DrawFn, real: bytes) -> bytes:
    """Truncate a real file, or replace a stretch of it."""
    start = draw(st.integers(0, len(real)))
    if draw(st.integers(0, 3)) == 0:
        return real[:start]
    end = draw(st.integers(start, min(start + _MAX_CUT, len(real))))
    return real[:start] + draw(st.sampled_from(_TOKENS) | st.binary(max_size=8)) + real[end:]


def fuzz_reader(read: Callable[[bytes], object], real: bytes, *refusals: type[Exception], examples: int = 40) -> None:
    """Check that ``read`` accepts the ``real`` file, and accepts any other or raises one of ``refusals``."""
    read(real)

    @settings(max_examples=examples, deadline=None, derandomize=True, database=None)
    @given(corrupted(real) | st.binary(max_size=100))
    def hostile(data: bytes) -> None:
        with suppress(*refusals):
            read(data)

    hostile()
