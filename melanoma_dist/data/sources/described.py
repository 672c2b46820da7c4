"""Reads a collection by its description: tables and images of a clinic, or of another archive, without code."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from melanoma_dist.data.groups import TRAIN
from melanoma_dist.data.labels import LABEL_COLUMNS
from melanoma_dist.data.raw_folder import RawFolder
from melanoma_dist.data.rows import read_header
from melanoma_dist.data.schema import IMAGE_ID_RULE, is_image_id
from melanoma_dist.data.sources.description import MEANINGS, NONE, NOT, OUTSIDE, UNKNOWN, SourceDescription
from melanoma_dist.data.sources.isic import base_id
from melanoma_dist.data.sources.source import RECORD_COLUMNS, Collection
from melanoma_dist.data.tables import Column, IdColumn, Problems, read_fields, read_metadata, read_table, without_suffix
from melanoma_dist.errors import DataError

_METADATA: dict[str, Column] = {
    "lesion": "lesion_id", "patient": "patient_id", "age": "age", "sex": "sex", "site": "site",
}  # fmt: skip
_TRUTH = {"1": 1.0, "1.0": 1.0, "0": 0.0, "0.0": 0.0, "": np.nan}
_SHOWN_VALUES = 10  # of the column of splits, in a message
_MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg")


@dataclass(frozen=True)
class DescribedSource:
    """The `Source` of a description."""

    description: SourceDescription

    @property
    def name(self) -> str:
        """The description's name."""
        return self.description.name

    @property
    def year(self) -> int:
        """The description's year."""
        return self.description.year

    @property
    def holdouts(self) -> frozenset[str]:
        """The holdouts of the description, each after the collection's name."""
        return frozenset(f"{self.name}-{value}" for value in self.description.all_holdouts)

    def has_labels(self, raw: RawFolder) -> bool:
        """Whether the table lies in the raw folder."""
        return self._table(raw) is not None

    def cautions(self, collections: Sequence[Collection]) -> list[str]:
        """No warnings."""
        return []

    def read(self, raw: RawFolder, selected: bool, problems: Problems) -> Collection:
        """Read the table, and find images and masks."""
        about, path = self.description, self._table(raw)
        if path is None:
            raise DataError(
                f"collection {self.name}: there is no table {about.table} in --raw {raw.folder}. "
                f"Tables there: {raw.describe_tables(tuple(about.columns.values()))}. Correct `table`, or --raw."
            )
        about = _without_absent_columns(about, read_header(path))
        rule = "must be ISIC_ and seven digits" if about.archive else f"must be a file name: {IMAGE_ID_RULE}"
        ids = IdColumn(about.columns["id"], self._image_id, rule)
        roles = [about.columns[role] for role in ("label", "label_if_blank", "split") if role in about.columns]
        by_column = () if "label" in about.columns else tuple(about.labels)
        table = read_table(path, ids, (*roles, *by_column), problems)
        metadata = {_METADATA[role]: name for role, name in about.columns.items() if role in _METADATA}
        facts = read_metadata(path, ids, metadata, problems, about.words)
        duplicates = self._duplicates(raw, set(table["image_id"]), problems)
        labels = self._labels_by_column(path, table, problems) if by_column else _labels(about, path, table, problems)
        records = pd.concat([table[["image_id"]], labels], axis=1).merge(facts, on="image_id", how="left")
        records["split"] = self._splits(raw, path, table, problems)
        own = about.label_columns[len(LABEL_COLUMNS) :]
        records = records.reindex(columns=[*RECORD_COLUMNS, *own])
        return Collection(
            self.name,
            records,
            self._files(raw, set(records["image_id"])),
            masks=self._masks(raw),
            notes=(about.note,) if about.note else (),
            remarks=tuple(self._remarks(raw, path, about.columns)),
            selected=selected,
            gaps=tuple(_gaps(about, path, records)),
            terms=self._terms(),
            duplicates=duplicates,
            own_ids=not about.archive,
        )

    def _table(self, raw: RawFolder) -> Path | None:
        return _find_table(raw, self.description.table, self.name)

    def _duplicates(self, raw: RawFolder, image_ids: set[str], problems: Problems) -> tuple[tuple[str, str], ...]:
        """The pairs of the list of copies, between images of this table. Raises DataError if the list is missing."""
        about = self.description.duplicates
        if not about:
            return ()
        path = self._list(raw, about["table"], "list of copies", "duplicates")
        pairs = []
        for line, entries in read_fields(path, (about["first"], about["second"]), problems):
            one, other = (self._image_id(without_suffix(entry)) for entry in entries)
            if one is None or other is None:
                problems.add(path, line, "row", ",".join(entries), "must be two image ids")
            elif {one, other} <= image_ids and one != other:
                pairs.append((one, other))
        return tuple(pairs)

    def _list(self, raw: RawFolder, name: str, what: str, field: str) -> Path:
        """A further table of the collection. Raises DataError if it is missing."""
        path = _find_table(raw, name, self.name)
        if path is None:
            raise DataError(
                f"collection {self.name}: there is no {what} {name} in --raw {raw.folder}. "
                f"Put it there, or copy the description without `{field}`."
            )
        return path

    def _image_id(self, text: str) -> str | None:
        """The id in a table's entry, or of a file's name without suffix; entries may have folders before the name."""
        name = text.replace("\\", "/").rpartition("/")[2]
        return base_id(name) if self.description.archive else name if is_image_id(name) else None

    def _labels_by_column(self, path: Path, table: pd.DataFrame, problems: Problems) -> pd.DataFrame:
        """The labels by one column of 0 and 1 each. A blank is unknown."""
        meanings, columns = self.description.labels, self.description.label_columns
        truths = pd.DataFrame({name: table[name].map(_TRUTH) for name in meanings}, dtype="float64")
        rows = []
        for at, line in enumerate(table["line"]):
            for name in meanings:
                if (text := table[name].iloc[at]) not in _TRUTH:
                    problems.add(path, line, name, text, "must be 0, 1, or blank for unknown")
            positive = [name for name in meanings if truths[name].iloc[at] == 1]
            if len(positive) > 1:
                problems.add(path, line, "labels", " ".join(positive), "only one of them may be 1")
            negatives = _negatives(meanings, truths.iloc[at], columns)
            rows.append(label_values(meanings[positive[0]], columns) if positive else negatives)
        return pd.DataFrame(rows, columns=list(columns), dtype="float64")

    def _splits(self, raw: RawFolder, table_path: Path, table: pd.DataFrame, problems: Problems) -> pd.Series[str]:
        about, splits = self.description, pd.Series(TRAIN, index=table.index)
        if column := about.columns.get("split"):
            _check_holdouts(about, table_path, table, problems)
            splits = (self.name + "-" + table[column]).where(table[column].isin(about.holdouts), TRAIN)
        if about.training_ids:
            first, last = about.training_ids
            splits = splits.where(table["image_id"].between(first, last), f"{self.name}-{OUTSIDE}")
        for name, rows in about.holdout_rows.items():
            path = self._list(raw, rows["table"], "list of rows", "holdout_rows")
            for line, [entry] in read_fields(path, (rows["column"],), problems):
                if entry.isascii() and entry.isdecimal() and int(entry) < len(table):
                    splits.iloc[int(entry)] = f"{self.name}-{name}"
                else:
                    problems.add(path, line, rows["column"], entry, f"must be a row, 0 to {len(table) - 1}")
        return splits

    def _files(self, raw: RawFolder, image_ids: set[str]) -> dict[str, tuple[Path, ...]]:
        """The image files of labelled images. Raises DataError if an id has two different files."""
        folders = self.description.images
        masks = {path for paths in self._mask_files(raw).values() for path in paths}
        files: dict[str, tuple[Path, ...]] = {}
        for stem, paths in raw.images(folders).items():
            image_id = self._image_id(stem)
            photographs = [path for path in paths if path not in masks]
            if image_id in image_ids and photographs:
                files[image_id] = (*files.get(image_id, ()), *photographs)
        for image_id, paths in files.items() if not self.description.archive else ():
            if len(paths) > 1 and len({path.read_bytes() for path in paths}) > 1:
                names = ", ".join(raw.name(path) for path in paths)
                raise DataError(
                    f"collection {self.name}: {image_id} is the name of {len(paths)} different files: {names}. "
                    "Move all but one away, or name the right folder in `images`."
                )
        return files

    def _mask_files(self, raw: RawFolder) -> Mapping[str, tuple[Path, ...]]:
        masks = self.description.masks
        files = raw.images((masks["folder"],), _MASK_SUFFIXES) if masks else {}
        return {stem: paths for stem, paths in files.items() if stem.endswith(masks.get("suffix", ""))}

    def _masks(self, raw: RawFolder) -> dict[str, Path]:
        suffix = self.description.masks.get("suffix", "")
        masks = {self._image_id(stem.removesuffix(suffix)): paths[0] for stem, paths in self._mask_files(raw).items()}
        return {image_id: path for image_id, path in masks.items() if image_id is not None}

    def _remarks(self, raw: RawFolder, path: Path, roles: Mapping[str, str]) -> list[str]:
        columns = ", ".join(f"{role} from {name}" for role, name in roles.items())
        unused = [name for name in read_header(path) if name not in ("", *roles.values(), *self.description.labels)]
        others = f" It does not use {', '.join(unused)}." if unused else ""
        return [f"{raw.name(path)}: {columns}.{others}", *([f"{terms}."] if (terms := self._terms()) else [])]

    def _terms(self) -> str:
        terms = {"licence": self.description.licence, "cite": self.description.citation}
        return "; ".join(f"{word} {text}" for word, text in terms.items() if text)


def _check_holdouts(about: SourceDescription, path: Path, table: pd.DataFrame, problems: Problems) -> None:
    """A misspelt holdout would train on the images that it should keep out."""
    column = about.columns["split"]
    counts = Counter(table[column])
    known = ", ".join(f"{value!r} ({count})" for value, count in counts.most_common(_SHOWN_VALUES))
    for word in sorted(set(about.holdouts) - set(counts)):
        problems.add(path, 1, column, word, f"is named in `holdouts`, and no row has it. Rows have {known}")
    held_out = {word.casefold(): word for word in about.holdouts}
    for line, value in zip(table["line"], table[column], strict=True):
        word = held_out.get(value.casefold(), value)
        if word != value and value not in about.holdouts:
            problems.add(path, line, column, value, f"is not {word!r}, which `holdouts` names. Write both alike")


def _labels(about: SourceDescription, path: Path, table: pd.DataFrame, problems: Problems) -> pd.DataFrame:
    """The labels by the words of one column. All words without a meaning are one problem, with their counts."""
    column = about.columns["label"]
    if further := about.columns.get("label_if_blank"):
        table = table.assign(**{column: table[column].where(table[column] != "", table[further])})
    words = table[column].str.casefold()
    known = words.isin(list(about.labels))
    counts = Counter(table.loc[~known, column])
    listing = ", ".join(f"{word!r} ({count})" for word, count in counts.most_common())
    rule = f"is not in `labels` (--map). Words without a meaning: {listing}. Give each one: {MEANINGS}"
    for word in counts:
        problems.add(path, int(table.loc[table[column] == word, "line"].iloc[0]), column, word, rule)
    meanings = words.map(lambda word: about.labels.get(word, UNKNOWN))
    columns = about.label_columns
    return pd.DataFrame([label_values(meaning, columns) for meaning in meanings], columns=list(columns))


def _gaps(about: SourceDescription, path: Path, records: pd.DataFrame) -> list[str]:
    """What the table leaves open: lesions and patients, or images that were published."""
    gaps = []
    grouping = next((role for role in ("patient", "lesion") if role in about.columns), None)
    if grouping is None:
        gaps.append(f"{path.name}: no column says which images show one lesion or one patient")
    elif blank := int(records[f"{grouping}_id"].isna().sum()):
        column = about.columns[grouping]
        gaps.append(f"{path.name}: {column} is blank for {blank} of {len(records)} images: their {grouping} is unknown")
    actual = {
        "images": len(records),
        "lesions": records["lesion_id"].nunique(),
        "patients": records["patient_id"].nunique(),
    }
    wrong = {name: count for name, count in about.counts.items() if actual[name] != count}
    if wrong:
        has = ", ".join(f"{actual[name]} {name}" for name in wrong)
        gaps.append(
            f"{path.name}: {has}; `counts` says {', '.join(f'{count} {name}' for name, count in wrong.items())}"
        )
    return gaps


def _without_absent_columns(about: SourceDescription, header: Sequence[str]) -> SourceDescription:
    """The description without the optional columns that the table lacks."""
    absent = {role for role in about.optional if about.columns[role] not in header}
    return replace(about, columns={role: name for role, name in about.columns.items() if role not in absent})


def _find_table(raw: RawFolder, name: str, collection: str) -> Path | None:
    """A table by its path below the raw folder or its folder ``collection``, or by its name anywhere below it."""
    for path in (raw.folder / collection / name, raw.folder / name):
        if path.is_file():
            return path
    if Path(name).suffix.lower() != ".csv":
        return next((paths[0] for paths in raw.files(re.compile(f"({re.escape(Path(name).name)})")).values()), None)
    table = raw.table(Path(name).stem, (), [])
    return table.path if table else None


def label_values(meaning: str, columns: tuple[str, ...] = LABEL_COLUMNS) -> dict[str, float]:
    """The value of every label, 1, 0 or NaN for unknown, of an image with a diagnosis: see `MEANINGS`."""
    if meaning == UNKNOWN:
        return dict.fromkeys(columns, np.nan)
    if meaning.startswith(NOT):
        label = meaning.removeprefix(NOT)
        return _consistent(dict.fromkeys(columns, np.nan) | {label: 0.0})
    values = dict.fromkeys(columns, 0.0)
    if meaning == "AKIEC":  # either of the two
        values |= {"AK": np.nan, "SCC": np.nan}
    elif meaning in ("AK", "SCC"):
        values["AKIEC"] = 1.0
    return values | ({meaning: 1.0} if meaning != NONE else {})


def _negatives(meanings: Mapping[str, str], truths: pd.Series[float], columns: tuple[str, ...]) -> dict[str, float]:
    """The labels of an image whose columns are all 0 or unknown."""
    zeros = {meaning for name, meaning in meanings.items() if truths[name] == 0 and meaning in columns}
    return _consistent(dict.fromkeys(columns, np.nan) | dict.fromkeys(zeros, 0.0))


def _consistent(values: dict[str, float]) -> dict[str, float]:
    """AKIEC means AK or SCC: what is not AKIEC is neither, and what is neither is not AKIEC."""
    if values["AKIEC"] == 0:
        return values | {"AK": 0.0, "SCC": 0.0}
    return values | ({"AKIEC": 0.0} if values["AK"] == values["SCC"] == 0 else {})
