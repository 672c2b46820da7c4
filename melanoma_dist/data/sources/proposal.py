"""Proposes the description of a collection from its table: `data describe`. The user corrects it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from unicodedata import combining, normalize

from melanoma_dist.data.rows import read_rows
from melanoma_dist.data.sources.description import CHOOSE, MEANINGS, UNKNOWN
from melanoma_dist.data.tables import ABSENT, VOCABULARY
from melanoma_dist.errors import DataError

Columns = dict[str, list[str]]
"""The values of each column, in the table's order."""

_ROLES = {
    "id": r"image|img|file|photo|foto|isic|^id$|^bild|datei|aufnahme|fichier|cliche|imagen|archivo|immagin|^name$|^nom",
    "lesion": r"lesi|laesion|lasion|^mole|^mal$|befund_?(id|nr)|lunar",
    "patient": r"patient|pat_?(id|nr)|subject|person|case|fall|pacient|pazient|^(nhc|nip|ipp)$|historia",
    "label": r"diagno|^dx$|^label$|class|klass|target|malign|befund|dignit|clase|etiquet",
    "age": r"\bage|age_|_age|^alter|jahre|^edad|^eta$|\beta_|_eta$|anni|annos",
    "sex": r"^sex|gender|geschlecht|genre|genero|sesso|sexo",
    "site": r"site\b|site_|_site|locali|lokal|location|anatom|koerper|korper|body|region|emplacement|ubicacion|sede",
    "split": r"split|partition|^set$|subset|fold|aufteilung|ensemble|conjunto|particion|partizione",
}
"""Parts of the names that columns with each role often have in English, German, French, Spanish and Italian.

They are compared in lower case and without accents.
"""
_WORDS = {
    "NV": r"n(a|ae|æ)?e?v(us|i|o)s?|nv|n(a|ae)vuszell\w*|lunar",
    "MEL": r"(maligne\w* )?melanom[ae]?|mel",
    "BCC": r"basal.cell|bcc|basal(zell|iom|io)\w*|basocellul\w*|basocelular|bzk",
    "AK": r"a[ck]tini\w*|solar.keratosis|ack?",
    "SCC": r"squamous|scc|bowen|plattenepithel\w*|spinaliom|(epidermoid|spinocellul|espinocelul|squamocellul)\w*",
    "AKIEC": r"akiec",
    "BKL": r"(benign|seborr\w*|lichen\w*).*(keratosis|[ck]h?eratose|queratosis|cheratosi)|(seborr\w*|[ck]h?eratose|"
    r"queratosis|cheratosi).*seborr\w*|solar.lentigo|bkl|sek",
    "DF": r"(dermato|histio)fibrom[ae]?|df",
    "VASC": r"vas[ck]ul[ae]\w*|\w*angiom[ae]?|vasc",
    "not MEL": r"benign\w*|gutartig",
}
_SEXES = {
    "female": r"f|w|female|weiblich|frau|femme|feminin[oa]?|femenin[oa]|mujer|femmina|donna|woman",
    "male": r"m|male|mannlich|maennlich|mann|homme|h|masculin|masculino|hombre|varon|maschio|maschile|uomo|man",
}
_HELD_OUT = ("test", "validation", "valid", "val", "holdout")
_TRUTHS = ("yes", "no", "on", "off", "true", "false", "null", "y", "n")  # which YAML reads as other things
_MOST_LISTED = 5
_UNIQUE_SHARE = 0.8  # of the values of a column that names images, some of them twice by mistake
_MOST_WORDS = 60  # a column with more values is no diagnosis


def propose(path: Path) -> str:
    """A description of the table, as YAML with remarks. Raises DataError for a table that cannot be read."""
    columns = _read(path)
    roles = dict(_roles(columns))
    if "id" not in roles:
        raise DataError(f"{path}: no column names one image per row. The table needs one row per image, with its file.")
    repeated = [value for value, count in Counter(columns[roles["id"]]).items() if count > 1]
    by_column = "label" not in roles
    words = _positives(columns, set(roles.values())) if by_column else Counter(columns[roles["label"]])
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", _plain(path.stem)).strip("-_")[:40] or "own"
    lines = [
        f"# Proposed from {path.name}. Correct it, then: data prepare --source THIS_FILE --raw FOLDER --out DATA",
        f"name: {_text(name)}",
        f"table: {_text(path.name)}",
        "# images: [FOLDER]  # below --raw; default: all of it",
        *(
            [f"# In several rows, which `data prepare` refuses: {', '.join(repeated[:_MOST_LISTED])}"]
            if repeated
            else []
        ),
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
        rows = read_rows(path).rows
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as a table ({error}).") from error
    if len(rows) < 2:
        raise DataError(f"{path}: has no row below its header. Name the table with one row per image.")
    header = [name.strip() for name in rows[0][1]]
    full = [row for _, row in rows[1:] if len(row) == len(header) and any(row)]
    return {name: [row[at].strip() for row in full] for at, name in enumerate(header) if name}


def _roles(columns: Columns) -> Iterator[tuple[str, str]]:
    """The likely column of each role; every column has one at most."""
    free = dict(columns)
    for role, pattern in _ROLES.items():
        candidates = [name for name in free if re.search(pattern, _plain(name)) and _suits(role, free[name])]
        if role == "id":
            unique = [name for name in free if len(set(free[name])) == len(free[name]) and "" not in free[name]]
            candidates = [name for name in candidates if name in unique] or candidates or unique
        if candidates:
            # The words of a diagnosis say more than their summary, benign or malignant.
            chosen = max(candidates, key=lambda name: len(set(free[name]))) if role == "label" else candidates[0]
            yield role, chosen
            del free[chosen]


def _plain(name: str) -> str:
    """A name in lower case without accents: "Läsion" is "lasion", "Größe" is "grosse"."""
    return "".join(each for each in normalize("NFKD", name.casefold()) if not combining(each))


def _suits(role: str, values: list[str]) -> bool:
    if role == "id":
        return len(set(values)) >= _UNIQUE_SHARE * len(values) and "" not in values
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
        yield f"  {_text(word)}: {label or CHOOSE}  # {count} image{'s' * (count > 1)}"


def _meaning(word: str) -> str:
    text = _plain(word).replace("_", " ")
    labels = [label for label, words in _WORDS.items() if re.search(rf"\b({words})\b", text)]
    return labels[0] if len(labels) == 1 else ""


def _words(columns: Columns, roles: dict[str, str]) -> Iterator[str]:
    """What the words of sex and site mean, where some are others than ours."""
    lines: list[str] = []
    for role, vocabulary in VOCABULARY.items():
        present = {value.casefold() for value in columns[roles[role]]} - ABSENT if role in roles else set()
        foreign = sorted(present - {*vocabulary})
        if foreign:
            lines += [f"  {role}:  # one of {', '.join(vocabulary)}, or {UNKNOWN}"]
            sexes = _sexes(foreign) if role == "sex" else {}
            lines += [f"    {_text(word)}: {sexes.get(word, CHOOSE)}" for word in foreign]
    yield from ["words:", *lines] if lines else []


def _sexes(words: list[str]) -> dict[str, str]:
    """The meanings of words of sex. Beside h, hombre, the letter m may be mujer: then neither letter has one."""
    doubtful = {"h", "m"} if "h" in words else set()
    return {
        word: sex for word in words for sex, known in _SEXES.items()
        if word not in doubtful and re.fullmatch(known, _plain(word))
    }  # fmt: skip


def _holdouts(columns: Columns, roles: dict[str, str]) -> Iterator[str]:
    values = sorted(set(columns[roles["split"]])) if "split" in roles else []
    held_out = [value for value in values if value.lower() in _HELD_OUT]
    if values:
        yield f"holdouts: [{', '.join(map(_text, held_out))}]  # of {', '.join(values)}: no fold trains on them"


def _text(text: str) -> str:
    """A text for YAML: quoted, as JSON, unless it is a plain word."""
    plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_./-]*", text) and text.lower() not in _TRUTHS
    return text if plain else json.dumps(text, ensure_ascii=False)
