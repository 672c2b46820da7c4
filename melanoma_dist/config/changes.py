"""Hyperparameters that change during a training: ``lr=1e-4@11`` is a learning rate of 1e-4 from epoch 11 on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated

from melanoma_dist.config.words import words
from melanoma_dist.errors import ConfigError, nearest

CHANGEABLE = (
    "optimizer.lr",
    "optimizer.head_lr_factor",
    "optimizer.layer_decay",
    "optimizer.weight_decay",
    "optimizer.clip_norm",
    "model.dropout",
)
"""The fields that may change. They shape neither the network nor its input, so weights and moments stay valid."""
NO_CHANGES = "none"
_KEYS = {key.rpartition(".")[2]: key for key in CHANGEABLE}
_FORM = re.compile(r"(?P<name>[\w-]+)=(?P<value>[^=@]+)@(?P<epoch>\d{1,5})")
_EXAMPLE = "Example: --changes lr=1e-4@11 weight_decay=0.05@11."

Changes = Annotated[str, words("{none,FIELD=VALUE@EPOCH ...}")]
"""A list of changes. It is typed as words, ``--changes lr=1e-4@11 dropout=0.5@11``, and saved as one, with commas."""


@dataclass(frozen=True, order=True)
class Change:
    """A new value of a field."""

    epoch: int
    """The first epoch with the value, from 1."""
    key: str
    """The dotted field."""
    value: float

    def __str__(self) -> str:
        return f"{self.key.rpartition('.')[2]}={self.value!r}@{self.epoch}"


def parse_changes(text: str) -> tuple[Change, ...]:
    """The changes in a list with commas, the first epoch first.

    Raises ConfigError for text of another form, a field that may not change, and two values of a field in one epoch.
    """
    words = [word.strip() for word in text.split(",")]
    if words in ([NO_CHANGES], [""]):
        return ()
    changes = sorted(map(_parse, words))
    places = [(change.epoch, change.key) for change in changes]
    for change in changes:
        if places.count((change.epoch, change.key)) > 1:
            raise ConfigError.of("changes", text, f"has two values of a field in epoch {change.epoch}", "Remove one.")
    return tuple(changes)


def write_changes(changes: Iterable[Change]) -> str:
    """The text that ``parse_changes`` reads: equal changes are equal texts."""
    return ",".join(map(str, sorted(changes))) or NO_CHANGES


def settle_changes(text: str, epochs: int) -> str:
    """The same changes in the spelling that runs compare. Raises ConfigError also for an epoch beyond ``epochs``."""
    changes = parse_changes(text)
    for change in changes:
        if not 2 <= change.epoch <= epochs:
            raise ConfigError.of("changes", change, f"its epoch must be 2 to {epochs} (--epochs)")
    return write_changes(changes)


def with_changes(text: str, epoch: int, values: Mapping[str, float]) -> str:
    """The changes in ``text`` and those to ``values`` of dotted fields in ``epoch``, which replace others there."""
    others = [change for change in parse_changes(text) if change.epoch != epoch or change.key not in values]
    return write_changes([*others, *(Change(epoch, key, value) for key, value in values.items())])


def _parse(word: str) -> Change:
    match = _FORM.fullmatch(word)
    try:
        value = float(match["value"]) if match else 0.0
    except ValueError:
        match = None
    if match is None:
        raise ConfigError.of("changes", word, "must be FIELD=VALUE@EPOCH", _EXAMPLE)
    name = match["name"]
    if name not in _KEYS:
        near = nearest(name, _KEYS)
        rule = f"{name} may not change during a training; {', '.join(_KEYS)} may"
        raise ConfigError.of("changes", word, rule, f"Did you mean {near}?" if near else _EXAMPLE)
    return Change(int(match["epoch"]), _KEYS[name], value)
