"""A search space: a Python file with ``SPACE``, checked against the configuration before anything starts.

    SPACE = {"model.backbone": tune.choice([...]), "optimizer.lr": tune.loguniform(1e-5, 1e-3), ...}
    ONLY_IF = {"schedule.plateau_factor": {"schedule.schedule": ["plateau"]}}     # optional

Keys are dotted fields of the configuration, values Ray's own search-space functions. A field in ``ONLY_IF`` counts only
where the others have one of the values listed, and keeps its default elsewhere.
"""

from __future__ import annotations

import hashlib
import runpy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.tune.search.sample import Categorical, Domain, Float, Function, Integer

from melanoma_dist.config.rules import field_type, has_type, type_in_words
from melanoma_dist.config.run import RunConfig, dotted, with_values
from melanoma_dist.errors import ConfigError, nearest

_SECTIONS = ("input.", "model.", "loss.", "optimizer.", "schedule.")
_FIXED = {"schedule.epochs": "configurations are compared at equal epochs of equally long trainings"}


@dataclass(frozen=True)
class Space:
    """A search space that has been read."""

    path: Path
    domains: Mapping[str, Any]
    only_if: Mapping[str, Mapping[str, tuple[Any, ...]]]
    digest: str
    """sha256 of the file."""

    def active(self, config: RunConfig, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values that count beside ``config``: those whose condition, if they have one, holds."""
        chosen = {**dotted(config), **values}
        return {key: value for key, value in values.items() if self._holds(key, chosen)}

    def _holds(self, key: str, chosen: Mapping[str, Any]) -> bool:
        conditions = self.only_if.get(key, {})
        return all(chosen[other] in allowed and self._holds(other, chosen) for other, allowed in conditions.items())

    def error(self, key: str, rule: str) -> ConfigError:
        """What is wrong with an entry."""
        return ConfigError(f"--space {self.path}: {key}: {rule}.")


def read_space(path: Path | None) -> Space:
    """Execute a space file. Raises ConfigError for one that cannot be, or holds no ``SPACE``."""
    if path is None:
        raise ConfigError("--space: name a file with a search space, such as tune_spaces/backbones.py.")
    try:
        content = path.read_bytes()
        found = runpy.run_path(str(path))
    except OSError as error:
        raise ConfigError.of("space", path, f"cannot be read ({error.strerror})") from error
    except (Exception, SystemExit) as error:  # it is code and may fail in any way
        raise ConfigError.of("space", path, f"failed when it was run ({type(error).__name__}: {error})") from error
    domains, only_if = found.get("SPACE"), found.get("ONLY_IF", {})
    if not isinstance(domains, dict) or not domains:
        raise ConfigError.of("space", path, "defines no SPACE, a dict of dotted fields and what they may be")
    if not _are_conditions(only_if):
        raise ConfigError.of("space", path, "its ONLY_IF must be like {field: {other field: [values]}}")
    conditions = {key: {other: tuple(allowed) for other, allowed in value.items()} for key, value in only_if.items()}
    return Space(path, domains, conditions, hashlib.sha256(content).hexdigest())


def check_space(space: Space, config: RunConfig) -> None:
    """Raise ConfigError unless every key is a field that may vary and all it may be keeps the field's rules."""
    known = {key: value for key, value in dotted(config).items() if key.startswith(_SECTIONS) and key not in _FIXED}
    for key, domain in space.domains.items():
        if key in _FIXED:
            raise space.error(key, f"may not vary: {_FIXED[key]}")
        if key not in known:
            near = nearest(str(key), known)
            raise space.error(key, "is no field that may vary" + (f"; near it: {near}" if near else ""))
        for value in _extremes(space, key, domain):
            check_value(space, config, key, value)
    for key, conditions in space.only_if.items():
        _check_conditions(space, config, key, conditions, known)


def _are_conditions(only_if: Any) -> bool:
    return isinstance(only_if, dict) and all(
        isinstance(conditions, dict) and all(isinstance(allowed, list | tuple | set) for allowed in conditions.values())
        for conditions in only_if.values()
    )


def _check_conditions(
    space: Space, config: RunConfig, key: str, conditions: Mapping[str, Any], known: Mapping[str, Any]
) -> None:
    entry = f"ONLY_IF[{key!r}]"
    if key not in space.domains:
        raise space.error(entry, "is not in SPACE")
    for other, allowed in conditions.items():
        if other not in known:
            raise space.error(entry, f"{other!r} is no field that may vary")
        if _leads_to(space, other, key, set()):
            raise space.error(entry, f"{other!r} depends on it in turn")
        for value in allowed:
            check_value(space, config, other, value)


def _leads_to(space: Space, start: str, goal: str, seen: set[str]) -> bool:
    """Whether the conditions of ``start`` lead to ``goal``."""
    if start == goal:
        return True
    seen.add(start)
    return any(_leads_to(space, other, goal, seen) for other in space.only_if.get(start, {}) if other not in seen)


def _extremes(space: Space, key: str, domain: Any) -> Iterator[Any]:
    """The values that stand for all that a domain may be: every category, or both bounds."""
    if isinstance(domain, Categorical) or (isinstance(domain, dict) and set(domain) == {"grid_search"}):
        values = list(domain.categories if isinstance(domain, Categorical) else domain["grid_search"])
        if not values:
            raise space.error(key, "has no values to choose from")
        yield from values
    elif isinstance(domain, Integer):
        yield from (int(domain.lower), int(domain.upper) - 1)
    elif isinstance(domain, Float):
        if not all(map(_finite, (domain.lower, domain.upper))):
            raise space.error(key, "has no bounds; use tune.uniform or tune.loguniform")
        yield from (float(domain.lower), float(domain.upper))
    elif isinstance(domain, Domain | dict | list) and not isinstance(domain, Function):
        raise space.error(key, "is no search-space function that is understood (tune.choice, uniform, randint, ...)")
    elif not isinstance(domain, Function):  # a plain value; what a function gives is checked when it was called
        yield domain


def _finite(bound: float | None) -> bool:
    return bound is not None and abs(bound) != float("inf")


def check_value(space: Space, config: RunConfig, key: str, value: Any) -> None:
    """Raise ConfigError unless a field may have a value, alone."""
    section, _, name = key.partition(".")
    kind = field_type(getattr(config, section), name)
    if not has_type(value, kind):
        raise space.error(key, f"{value!r} is not {type_in_words(kind)}")
    try:
        with_values(config, {key: value})
    except ConfigError as error:
        raise space.error(key, str(error).rstrip(".")) from None
