"""A journal keeps every finished item up to the first torn line, and only for the request that it was begun with."""

from __future__ import annotations

from pathlib import Path

import pytest

from melanoma_dist.storage.journal import Journal

REQUEST = {"run": "a", "size": 3}
ITEMS = [{"number": number} for number in range(5)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal of five items."""
    with (tmp_path / "journal").open("a+b") as file:
        journal = Journal(file)
        assert not journal.resume(REQUEST)
        journal.add(ITEMS[:2])
        journal.add(ITEMS[2:])
    return tmp_path / "journal"


def test_the_same_request_resumes_and_another_empties(path: Path) -> None:
    with path.open("a+b") as file:
        assert Journal(file).request() == REQUEST
        journal = Journal(file)
        assert journal.resume(REQUEST)
        assert (journal.finished, list(journal.records())) == (5, ITEMS)
        assert not journal.resume({**REQUEST, "size": 4})
        assert (journal.finished, list(journal.records())) == (0, [])


def test_it_continues_after_a_cut(path: Path) -> None:
    with path.open("a+b") as file:
        journal = Journal(file)
        journal.resume(REQUEST)
        journal.cut(3)
        journal.add([{"number": 9}])
        assert journal.finished == 4
    with path.open("a+b") as file:
        journal = Journal(file)
        assert journal.resume(REQUEST)
        assert list(journal.records()) == [*ITEMS[:3], {"number": 9}]


def test_every_torn_end_loses_its_line_alone(path: Path) -> None:
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for end in range(first, len(whole)):
        path.write_bytes(whole[:end])
        with path.open("a+b") as file:
            journal = Journal(file)
            assert journal.resume(REQUEST)
            lines = whole[first:end].count(b"\n")
            assert list(journal.records()) == ITEMS[:lines]
            journal.add([{"number": 9}])
            assert list(journal.records()) == [*ITEMS[:lines], {"number": 9}]


@pytest.mark.parametrize("content", [b"", b"image,MEL\n", b"[]\n", b'{"request": 1}', b"\xff\xfe\n"])
def test_to_ask_for_the_request_changes_nothing(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(content)
    with (tmp_path / "other").open("a+b") as file:
        assert Journal(file).request() is None
    assert (tmp_path / "other").read_bytes() == content
