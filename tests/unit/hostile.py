"""Files that somebody else may have written, for the tests of readers: anything at all, and real ones with damage."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st

_LONGEST = 64  # bytes that are taken out at once
_TOKENS = (
    b"NaN", b"-1", b"1e999", b"9" * 5000, b"null", b"{}", b"[" * 2000, b'"\\ud800"', b"&a [*a]", b"../../x",
    b"\n", b",", b'"', b"\0", b"\xff" * 8, b"\xef\xbb\xbf",
)  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, real: bytes) -> bytes:
    """A real file, cut short or with a stretch of it replaced."""
    start = draw(st.integers(0, len(real)))
    if draw(st.integers(0, 3)) == 0:
        return real[:start]
    end = draw(st.integers(start, min(start + _LONGEST, len(real))))
    return real[:start] + draw(st.sampled_from(_TOKENS) | st.binary(max_size=8)) + real[end:]


def require_read_or_refused(
    read: Callable[[bytes], object], real: bytes, *refusals: type[Exception], examples: int = 40
) -> None:
    """``read`` takes the ``real`` file, and takes or refuses, with one of ``refusals``, whatever else it is given."""
    read(real)

    @settings(max_examples=examples, deadline=None, derandomize=True, database=None)
    @given(damaged(real) | st.binary(max_size=100))
    def hostile(data: bytes) -> None:
        with suppress(*refusals):
            read(data)

    hostile()
