"""A collection described as data: a YAML file that says where a collection's images and table lie and what they mean.

name: clinic                      # in the manifest, and before the names of its holdouts
table: lesions.csv                # a CSV in or below the raw folder
images: [photos]                  # folders in or below the raw folder; default: all of it
columns:                          # of the table
  id: photo                       # file names, with or without suffix
  label: diagnosis                # or none, if each label has a column of 0 and 1
  label_if_blank: group           # the label where that column is blank
  lesion: lesion                  # what joins images: lesion, patient, or both
  patient: patient
  age: age
  sex: sex
  site: site
  split: set
labels: {mel: MEL, nevus: NV}     # words of the label's column, or names of columns, and their labels
words: {sex: {w: female}}         # other words of sex and site
optional: [age, site]             # columns that the table may lack
holdouts: [test]                  # values of the split's column that no fold trains on
holdout_rows: {test: {table: test.csv, column: rows}}  # or lists of rows, numbered from 0
training_ids: [A_001, A_900]      # or the first and the last id to train on; the others are the holdout `test`
masks: {folder: masks, suffix: _mask}
duplicates: {table: copies.csv, first: one, second: other}  # a list of copies: two columns of ids
archive: false                    # true if the ids are those of the ISIC Archive, as in the challenges
licence: CC BY 4.0
citation: Who and where
note: Clinical photographs        # told at each preparation
counts: {images: 3000, lesions: 2500, patients: 900}
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from melanoma_dist.config.label_sets import LABEL_NAME
from melanoma_dist.config.saved import parse_yaml
from melanoma_dist.data.labels import LABEL_COLUMNS
from melanoma_dist.data.tables import VOCABULARY
from melanoma_dist.errors import DataError, nearest
from melanoma_dist.storage.untrusted import MEBIBYTE, read_text

NONE, UNKNOWN, NOT = "none", "unknown", "not "
"""Meanings of a word beside a label: another diagnosis than all labels; no diagnosis; another one than a label."""
MEANINGS = (
    f"one of {' '.join(LABEL_COLUMNS)} or a label of your own in capitals, or `not LABEL`, `{NONE}` (another "
    f"diagnosis), `{UNKNOWN}`"
)
CHOOSE = "CHOOSE"
"""What a proposal has for a word that it does not understand."""
COLUMNS = ("id", "label", "label_if_blank", "lesion", "patient", "age", "sex", "site", "split")
"""The roles of columns."""
OPTIONAL = ("label_if_blank", "lesion", "patient", "age", "sex", "site")
"""The roles of columns that a table may lack, if the description says so."""
COUNTS = ("images", "lesions", "patients")
OUTSIDE = "test"
"""The holdout of the images outside `training_ids`."""

BUILT_IN = {path.stem: path for path in sorted(Path(__file__).parent.glob("*.yaml"))}
"""The descriptions of public collections that come with the program, by name."""
_MAX_BYTES = MEBIBYTE // 4
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
_NAME_RULE = "must be 1 to 40 letters, digits, '-' and '_', and begin with a letter or digit"
_REQUIRED = ("name", "table", "columns", "labels")


@dataclass(frozen=True)
class SourceDescription:
    """The content of a description. `parse_description` checks it."""

    name: str
    table: str
    columns: Mapping[str, str]
    """The names of the table's columns by their roles, `COLUMNS`. The id is required."""
    labels: Mapping[str, str]
    """Words of the label's column, or without one names of columns, and what they mean: see `MEANINGS`."""
    images: tuple[str, ...] = ()
    words: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    optional: tuple[str, ...] = ()
    """Roles of columns that the table may lack."""
    holdouts: tuple[str, ...] = ()
    holdout_rows: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Holdouts with the table and the column that list their rows in the collection's table, numbered from 0."""
    training_ids: tuple[str, ...] = ()
    """The first and the last id that folds may train on; none for all."""
    masks: Mapping[str, str] = field(default_factory=dict)
    duplicates: Mapping[str, str] = field(default_factory=dict)
    archive: bool = False
    year: int = 0
    licence: str = ""
    citation: str = ""
    note: str = ""
    """What a user should know before training on it."""
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def all_holdouts(self) -> tuple[str, ...]:
        """The names of all holdouts."""
        return (*self.holdouts, *self.holdout_rows, *([OUTSIDE] if self.training_ids else []))

    @property
    def label_columns(self) -> tuple[str, ...]:
        """The columns of labels: those of every manifest, and the description's own."""
        named = {meaning.removeprefix(NOT) for meaning in self.labels.values()} - {NONE, UNKNOWN, *LABEL_COLUMNS}
        return (*LABEL_COLUMNS, *sorted(named))


def read_description(path: Path) -> SourceDescription:
    """Read a description, or the built-in one of that name (`BUILT_IN`).

    Raises DataError, with file, field, value, rule and remedy, for anything wrong in it.
    """
    path = BUILT_IN.get(str(path), path)
    try:
        tree = parse_yaml(read_text(path, _MAX_BYTES))
    except (OSError, ValueError) as error:
        raise DataError(f"--source {path}: cannot be read ({error}). {_REMEDY}") from error
    return parse_description(tree, str(path))


_REMEDY = "`data describe TABLE` proposes such a file, and docs/data.md explains its fields."


def parse_description(tree: Any, place: str) -> SourceDescription:
    """Check the tree of a description from ``place`` (a file, or the command line). Raises DataError."""
    content = _Fields(place, "", tree)
    content.only({item.name for item in fields(SourceDescription)}, _REQUIRED)
    columns = content.section("columns")
    columns.only(COLUMNS, ("id",))
    roles = {role: columns.text(role) for role in columns.tree}
    labels = _labels(content)
    content.require("labels", labels, len(labels) > 0, "must name at least one label")
    return SourceDescription(
        name=content.text("name", _NAME, _NAME_RULE),
        table=content.text("table"),
        columns=roles,
        labels=labels,
        images=content.texts("images"),
        words=_words(content),
        optional=_optional(content, roles),
        holdouts=_holdouts(content, roles),
        holdout_rows=_holdout_rows(content),
        training_ids=_training_ids(content),
        masks=_masks(content),
        duplicates=_duplicates(content),
        archive=content.value("archive", False, bool, "must be true or false"),
        year=content.value("year", 0, int, "must be a whole number"),
        licence=content.text("licence", default=""),
        citation=content.text("citation", default=""),
        note=content.text("note", default=""),
        counts=_counts(content),
    )


@dataclass(frozen=True)
class _Fields:
    """One level of a description, with its place for messages."""

    place: str
    prefix: str
    tree: Any

    def __post_init__(self) -> None:
        if not isinstance(self.tree, dict):
            name = self.prefix.rstrip(".") or "the file"
            raise DataError(f"{self.place}: {name}: must hold names with values (name: value). {_REMEDY}")

    def require(self, name: str, value: object, holds: bool, rule: str, remedy: str = _REMEDY) -> None:
        if not holds:
            raise DataError(f"{self.place}: {self.prefix}{name} {value!r}: {rule}. {remedy}")

    def only(self, known: Iterable[str], required: Iterable[str]) -> None:
        for name in self.tree:
            near = nearest(str(name), known)
            rule = f"is no field; fields are {', '.join(sorted(known))}"
            self.require(str(name), self.tree[name], name in known, rule, f"Did you mean: {near}?" if near else _REMEDY)
        for name in required:
            self.require(name, None, self.tree.get(name) is not None, "is missing")

    def section(self, name: str) -> _Fields:
        return _Fields(self.place, f"{self.prefix}{name}.", self.tree.get(name, {}))

    def value(self, name: str, default: Any, kind: type, rule: str) -> Any:
        value = self.tree.get(name, default)
        self.require(name, value, type(value) is kind, rule)
        return value

    def text(
        self, name: str, pattern: re.Pattern[str] | None = None, rule: str = "", default: str | None = None
    ) -> str:
        value = self.tree.get(name, default)
        text = str(value) if type(value) is int else value  # YAML reads a column called 7 as a number
        printable = isinstance(text, str) and text.isprintable() and (text != "" or default == "")
        self.require(name, value, printable, "must be a printable text")
        if pattern:
            self.require(name, value, pattern.fullmatch(str(text)) is not None, rule)
        return str(text)

    def texts(self, name: str) -> tuple[str, ...]:
        value = self.tree.get(name, [])
        values = value if isinstance(value, list) else [value]
        rule = "must be a text or a list of texts"
        self.require(name, value, all(type(each) in (str, int) and each != "" for each in values), rule)
        return tuple(map(str, values))


def _labels(content: _Fields) -> dict[str, str]:
    """The meaning of each word, which is compared without regard to case where it is a value."""
    section = content.section("labels")
    labels: dict[str, str] = {}
    by_value = "label" in content.section("columns").tree
    for word, meaning in section.tree.items():
        label = meaning.removeprefix(NOT) if isinstance(meaning, str) else ""
        own = LABEL_NAME.fullmatch(label) is not None and label != CHOOSE
        holds = own or meaning in (NONE, UNKNOWN)
        section.require(str(word), meaning, holds, f"must be {MEANINGS}", "Choose what the word means.")
        key = as_text(word)
        key = key.casefold() if by_value else key
        section.require(key, meaning, key not in labels, "is there twice, in different case", "Remove one.")
        labels[key] = str(meaning)
    return labels


def as_text(word: object) -> str:
    """A word of a table as YAML gives it: 0, 1, yes and no come as numbers and truths."""
    return {True: "true", False: "false"}[word] if isinstance(word, bool) else str(word)


def _words(content: _Fields) -> dict[str, dict[str, str]]:
    section = content.section("words")
    section.only(VOCABULARY, ())
    words: dict[str, dict[str, str]] = {"sex": {"f": "female", "m": "male"}}
    for column in section.tree:
        inner = section.section(column)
        for word, meaning in inner.tree.items():
            known = (*VOCABULARY[column], UNKNOWN)
            rule = f"must be one of {', '.join(known)}"
            inner.require(str(word), meaning, meaning in known, rule, "Choose what the word means.")
            words.setdefault(column, {})[as_text(word).casefold()] = meaning
    return words


def _holdouts(content: _Fields, columns: Mapping[str, str]) -> tuple[str, ...]:
    values = content.texts("holdouts")
    content.require("holdouts", list(values), not values or "split" in columns, "needs the column split in `columns`")
    if "split" in columns:
        rule = "must name the values of the column split that no fold trains on"
        content.require("holdouts", list(values), bool(values), rule, "Name them, or remove `split` from `columns`.")
    for value in values:
        content.require("holdouts", value, _NAME.fullmatch(value) is not None, _NAME_RULE, "Rename it in the table.")
        content.require("holdouts", value, value.casefold() != "train", "is the name of what folds train on")
    return values


def _optional(content: _Fields, columns: Mapping[str, str]) -> tuple[str, ...]:
    roles = content.texts("optional")
    for role in roles:
        known = role in OPTIONAL and role in columns
        content.require("optional", role, known, f"must be among {', '.join(OPTIONAL)}, and in `columns`")
    return roles


def _holdout_rows(content: _Fields) -> dict[str, dict[str, str]]:
    section = content.section("holdout_rows")
    lists = {}
    for name in section.tree:
        section.require(str(name), name, _NAME.fullmatch(str(name)) is not None, _NAME_RULE)
        inner = section.section(name)
        inner.only(("table", "column"), ("table", "column"))
        lists[str(name)] = {key: inner.text(key) for key in inner.tree}
    return lists


def _training_ids(content: _Fields) -> tuple[str, ...]:
    ends = content.texts("training_ids")
    content.require("training_ids", list(ends), len(ends) in (0, 2), "must be the first and the last id")
    return ends


def _masks(content: _Fields) -> dict[str, str]:
    section = content.section("masks")
    section.only(("folder", "suffix"), ("folder",) if section.tree else ())
    return {name: section.text(name, default="" if name == "suffix" else None) for name in section.tree}


def _duplicates(content: _Fields) -> dict[str, str]:
    section = content.section("duplicates")
    names = ("table", "first", "second")
    section.only(names, names if section.tree else ())
    return {name: section.text(name) for name in section.tree}


def _counts(content: _Fields) -> dict[str, int]:
    section = content.section("counts")
    section.only(COUNTS, ())
    return {name: section.value(name, 0, int, "must be a whole number") for name in section.tree}
