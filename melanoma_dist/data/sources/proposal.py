"""Proposes the description of a collection from its table: `data describe`. The user corrects it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from melanoma_dist.data.rows import read_rows
from melanoma_dist.data.sources.description import CHOOSE, MEANINGS, UNKNOWN
from melanoma_dist.data.tables import VOCABULARY
from melanoma_dist.errors import DataError

Columns = dict[str, list[str]]
"""The values of each column, in the table's order."""

_ROLES = {
    "id": r"image|img|file|photo|isic|^id$|name",
    "lesion": r"lesion|^mole",
    "patient": r"patient|subject|person|case",
    "label": r"diagnos|^dx$|^label$|class|target|malignan",
    "age": r"\bage|age_|_age|alter",
    "sex": r"^sex|gender",
    "site": r"site|locali|location|anatom",
    "split": r"split|partition|^set$|subset|fold",
}
"""Parts of the names that columns with each role often have, in lower case."""
_WORDS = {
    "NV": r"nev(us|i)|nv|naevus",
    "MEL": r"melanoma|mel",
    "BCC": r"basal.cell|bcc",
    "AK": r"actinic|solar.keratosis|ack?",
    "SCC": r"squamous|scc|bowen",
    "AKIEC": r"akiec",
    "BKL": r"(benign|seborr\w*|lichen\w*).*keratosis|solar.lentigo|bkl|sek",
    "DF": r"dermatofibroma|df",
    "VASC": r"vascular|\w*angioma|vasc",
    "not MEL": r"benign",
}
_HELD_OUT = ("test", "validation", "valid", "val", "holdout")
_KNOWN_WORDS = {"", "unknown", "nan", "na", "n/a", "f", "m"}
_TRUTHS = ("yes", "no", "on", "off", "true", "false", "null", "y", "n")  # which YAML reads as other things
_MOST_WORDS = 60  # a column with more values is no diagnosis


def propose(path: Path) -> str:
    """A description of the table, as YAML with remarks. Raises DataError for a table that cannot be read."""
    columns = _read(path)
    roles = dict(_roles(columns))
    if "id" not in roles:
        raise DataError(f"{path}: no column names one image per row. The table needs one row per image, with its file.")
    by_column = "label" not in roles
    words = _positives(columns, set(roles.values())) if by_column else Counter(columns[roles["label"]])
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", path.stem).strip("-_")[:40] or "own"
    lines = [
        f"# Proposed from {path.name}. Correct it, then: data prepare --source THIS_FILE --raw FOLDER --out DATA",
        f"name: {_text(name)}",
        f"table: {_text(path.name)}",
        "# images: [FOLDER]  # below --raw; default: all of it",
        "columns:",
        *(f"  {role}: {_text(column)}" for role, column in roles.items()),
        *(f"  # {role}: COLUMN" for role in ("lesion", "patient") if role not in roles),
        f"# what each {'column of 0 and 1' if by_column else 'word'} means: {MEANINGS}",
        "labels:",
        *_labels(words),
        *_words(columns, roles),
        *_holdouts(columns, roles),
        "# licence: NAME",
        "# citation: WHO AND WHERE",
    ]
    return "\n".join(lines)


def _read(path: Path) -> Columns:
    try:
        rows, _ = read_rows(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as a CSV in UTF-8 ({error}). Save it as one.") from error
    if len(rows) < 2:
        raise DataError(f"{path}: has no row below its header. Name the table with one row per image.")
    header = [name.strip() for name in rows[0][1]]
    full = [row for _, row in rows[1:] if len(row) == len(header) and any(row)]
    return {name: [row[at].strip() for row in full] for at, name in enumerate(header) if name}


def _roles(columns: Columns) -> Iterator[tuple[str, str]]:
    """The likely column of each role; every column has one at most."""
    free = dict(columns)
    for role, pattern in _ROLES.items():
        candidates = [name for name in free if re.search(pattern, name.lower()) and _suits(role, free[name])]
        if role == "id" and not candidates:
            candidates = [name for name in free if _suits("id", free[name])]
        if candidates:
            # The words of a diagnosis say more than their summary, benign or malignant.
            chosen = max(candidates, key=lambda name: len(set(free[name]))) if role == "label" else candidates[0]
            yield role, chosen
            del free[chosen]


def _suits(role: str, values: list[str]) -> bool:
    if role == "id":
        return len(set(values)) == len(values) and "" not in values
    if role in ("label", "sex", "site", "split"):
        return len(set(values)) <= _MOST_WORDS
    return True


def _positives(columns: Columns, others: set[str]) -> dict[str, int]:
    """The number of 1 in each column that has only 0 and 1."""
    truths = {name: [value.removesuffix(".0") for value in values] for name, values in columns.items()}
    return {
        name: values.count("1")
        for name, values in truths.items()
        if set(values) <= {"0", "1", ""} and name not in others
    }


def _labels(words: dict[str, int]) -> Iterator[str]:
    for word, count in sorted(words.items(), key=lambda item: -item[1]):
        label = UNKNOWN if word.casefold() in ("", "unknown", "nan", "na") else _meaning(word)
        yield f"  {_text(word)}: {label or CHOOSE}  # {count} images"


def _meaning(word: str) -> str:
    text = word.lower().replace("_", " ")
    labels = [label for label, words in _WORDS.items() if re.search(rf"\b({words})\b", text)]
    return labels[0] if len(labels) == 1 else ""


def _words(columns: Columns, roles: dict[str, str]) -> Iterator[str]:
    """What the words of sex and site mean, where they are others than ours."""
    lines: list[str] = []
    for role, vocabulary in VOCABULARY.items():
        present = {value.lower() for value in columns[roles[role]]} if role in roles else set()
        foreign = sorted(present - {*vocabulary, *_KNOWN_WORDS})
        if foreign:
            lines += [f"  {role}:  # one of {', '.join(vocabulary)}, or {UNKNOWN}"]
            lines += [f"    {_text(word)}: {UNKNOWN}" for word in foreign]
    yield from ["words:", *lines] if lines else []


def _holdouts(columns: Columns, roles: dict[str, str]) -> Iterator[str]:
    values = sorted(set(columns[roles["split"]])) if "split" in roles else []
    held_out = [value for value in values if value.lower() in _HELD_OUT]
    if values:
        yield f"holdouts: [{', '.join(map(_text, held_out))}]  # of {', '.join(values)}: no fold trains on them"


def _text(text: str) -> str:
    """A text for YAML: quoted, as JSON, unless it is a plain word."""
    plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_./-]*", text) and text.lower() not in _TRUTHS
    return text if plain else json.dumps(text, ensure_ascii=False)
