"""Identifiers are the field's words.

No participle stands for a thing: a ``message``, a ``result`` and a ``subset`` have names that a reader can search for.
No class or function has its former, private name.
"""

from __future__ import annotations

import io
import keyword
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLACES = ("melanoma_dist", "tests", "benchmarks", "tune_spaces")
PARTICIPLES = {
    "told", "found", "made", "mine", "given", "begun", "kept", "wanted", "asked", "said", "shown", "seen", "gone",
    "anew", "heed", "heeded", "concede", "conceded", "mend", "mended", "retell", "judged",
}  # fmt: skip
FORMER = {
    "Learner", "Keeper", "Board", "Material", "Concessions", "Agreement", "Wish", "Skipping", "Rhythm", "Left", "Race",
    "shared_out", "own_state", "Mailbox", "mailbox", "Room", "Agenda", "agenda", "Conductor", "conductor", "Ground",
    "ground", "Runner", "standings", "Crew", "Holding", "DamagedFile", "Courier", "courier", "Watch", "of_run", "Look",
    "Judged", "Contender", "Together", "complain", "hear", "heed_signals", "asked_to_leave", "show_table",
}  # fmt: skip


def identifiers(path: Path) -> Iterator[str]:
    """All names in a Python file, without leading underscores; comments and strings are not names."""
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        if token.type == tokenize.NAME and not keyword.iskeyword(token.string):
            yield token.string.lstrip("_")


FILES = [ROOT / "launch.py", *(path for place in PLACES for path in sorted((ROOT / place).rglob("*.py")))]


@pytest.mark.parametrize("file", [str(path.relative_to(ROOT)) for path in FILES])
def test_identifiers_are_the_fields_words(file: str) -> None:
    allowed = {"given"} if "from hypothesis import" in (ROOT / file).read_text() else set()
    names = (PARTICIPLES | FORMER).intersection(identifiers(ROOT / file)) - allowed
    assert not names
