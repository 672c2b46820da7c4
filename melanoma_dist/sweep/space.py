"""A search space: a Python file that defines ``SPACE``, checked against the configuration before anything starts.

    SPACE = {"model.backbone": tune.choice([...]), "optimizer.lr": tune.loguniform(1e-5, 1e-3), ...}
    ONLY_IF = {"schedule.plateau_factor": {"schedule.schedule": ["plateau"]}}     # optional

Keys are dotted fields of the configuration, values are Ray's own search-space functions. A field in ``ONLY_IF`` is
active only where the other fields have one of the listed values, and keeps its default elsewhere.
"""

from __future__ import annotations

import hashlib
import runpy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from melanoma_dist.config.rules import field_type, has_type, suppressed, type_in_words
from melanoma_dist.config.run import RunConfig, dotted, with_values
from melanoma_dist.config.segment import SegmentConfig
from melanoma_dist.errors import ConfigError, nearest
from melanoma_dist.sweep.domains import boundary_values

Values = dict[str, object]
"""The values of a configuration, by dotted field."""

_SECTIONS = ("input.", "model.", "loss.", "optimizer.", "schedule.", "region.region", "region.mask")
_FIXED = {"schedule.epochs": "configurations are compared at equal epochs of equally long schedules"}


@dataclass(frozen=True)
class Space:
    """The content of a space file."""

    path: Path
    domains: Mapping[str, object]
    """A search-space function or a constant for each dotted field."""
    only_if: Mapping[str, Mapping[str, tuple[object, ...]]]
    """The values of other fields for which a field is active."""
    digest: str
    """sha256 of the file."""

    def active(self, config: RunConfig, values: Mapping[str, object]) -> Values:
        """The values whose condition holds, if they have one, where ``config`` sets all other fields."""
        chosen = {**dotted(config), **values}
        return {key: value for key, value in values.items() if self._holds(key, chosen)}

    def _holds(self, key: str, chosen: Mapping[str, object]) -> bool:
        conditions = self.only_if.get(key, {})
        return all(chosen[other] in allowed and self._holds(other, chosen) for other, allowed in conditions.items())

    def error(self, key: str, rule: str) -> ConfigError:
        """The error for a wrong entry."""
        return ConfigError(f"--space {self.path}: {key}: {rule}.")


def read_space(path: Path | None) -> Space:
    """Execute a space file. Raises ConfigError if it fails or does not define ``SPACE``."""
    if path is None:
        raise ConfigError("--space: name a file with a search space, such as those in tune_spaces.")
    try:
        content = path.read_bytes()
        names = runpy.run_path(str(path))
    except OSError as error:
        raise ConfigError.of("space", path, f"cannot be read ({error.strerror})") from error
    except (Exception, SystemExit) as error:  # the user's code may fail in any way
        raise ConfigError.of("space", path, f"fails when executed ({type(error).__name__}: {error})") from error
    domains, only_if = names.get("SPACE"), names.get("ONLY_IF", {})
    if not isinstance(domains, dict) or not domains:
        raise ConfigError.of("space", path, "defines no SPACE, a dict of dotted fields and their search domains")
    if not _are_conditions(only_if):
        raise ConfigError.of("space", path, "its ONLY_IF must be like {field: {other field: [values]}}")
    conditions = {key: {other: tuple(allowed) for other, allowed in value.items()} for key, value in only_if.items()}
    return Space(path, domains, conditions, hashlib.sha256(content).hexdigest())


def check_space(space: Space, config: RunConfig) -> None:
    """Raise ConfigError unless every key is a field that may vary, and the field allows its whole domain."""
    known = _known(config)
    for key, domain in space.domains.items():
        if key in _FIXED:
            raise space.error(key, f"may not vary: {_FIXED[key]}")
        if key not in known:
            raise space.error(key, f"is not a field that may vary{_hint(str(key), config, known)}")
        try:
            values = boundary_values(domain)
        except ValueError as error:
            raise space.error(key, str(error)) from error
        for value in values:
            check_value(space, config, key, value)
    for key in space.only_if:
        _check_conditions(space, config, key, known)


def _known(config: RunConfig) -> dict[str, object]:
    """The fields that may vary. Those that are no flags of the command may not."""
    allowed = {key: value for key, value in dotted(config).items() if key.startswith(_SECTIONS) and key not in _FIXED}
    return {key: value for key, value in allowed.items() if not _is_suppressed(config, *key.split("."))}


def _hint(key: str, config: RunConfig, known: Mapping[str, object]) -> str:
    """The command that varies a field, or the known field with the nearest name."""
    classifies = config.task == "classification"
    other, command = (SegmentConfig(), "segment sweep") if classifies else (RunConfig(), "sweep")
    if key in _known(other):
        return f" here: `{command}` varies it"
    near = nearest(key, known)
    return f"; similar: {near}" if near else ""


def _is_suppressed(config: RunConfig, section: str, name: str) -> bool:
    return section in suppressed(type(config)) or name in suppressed(type(getattr(config, section)))


def _are_conditions(only_if: object) -> bool:
    return isinstance(only_if, dict) and all(
        isinstance(conditions, dict) and all(isinstance(allowed, list | tuple | set) for allowed in conditions.values())
        for conditions in only_if.values()
    )


def _check_conditions(space: Space, config: RunConfig, key: str, known: Mapping[str, object]) -> None:
    entry = f"ONLY_IF[{key!r}]"
    if key not in space.domains:
        raise space.error(entry, "is not in SPACE")
    for other, allowed in space.only_if[key].items():
        if other not in known:
            raise space.error(entry, f"{other!r} is not a field that may vary")
        if _leads_to(space, other, key, set()):
            raise space.error(entry, f"{other!r} depends on it in turn")
        for value in allowed:
            check_value(space, config, other, value)


def _leads_to(space: Space, start: str, goal: str, visited: set[str]) -> bool:
    """Whether the conditions of ``start`` lead to ``goal``."""
    if start == goal:
        return True
    visited.add(start)
    conditions = space.only_if.get(start, {})
    return any(_leads_to(space, other, goal, visited) for other in conditions if other not in visited)


def check_value(space: Space, config: RunConfig, key: str, value: object) -> None:
    """Raise ConfigError unless a value is valid for a field, apart from all other fields."""
    section, _, name = key.partition(".")
    kind = field_type(getattr(config, section), name)
    if not has_type(value, kind):
        raise space.error(key, f"{value!r} is not {type_in_words(kind)}")
    try:
        with_values(config, {key: value})
    except ConfigError as error:
        raise space.error(key, str(error).rstrip(".")) from None
