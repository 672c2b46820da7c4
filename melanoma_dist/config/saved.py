"""A configuration saved as YAML, turned into the flags of the command line: one parser checks both."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml

from melanoma_dist.config.fields import field_kind, fits, in_words
from melanoma_dist.config.run import RunConfig
from melanoma_dist.errors import ConfigError, nearest
from melanoma_dist.storage.untrusted import MEBIBYTE, read_text, require_plain

_MOST = MEBIBYTE // 4  # of a file


def with_file(arguments: list[str]) -> list[str]:
    """``--config FILE`` replaced by its flags, put before those that were typed: the later one wins."""
    arguments = [part for argument in arguments for part in _split_config(argument)]
    if "--config" not in arguments:
        return arguments
    at = arguments.index("--config")
    if at + 1 >= len(arguments):
        raise ConfigError("--config: the file's name is missing.")
    rest = arguments[:at] + arguments[at + 2 :]
    return [*as_flags(read_yaml(Path(arguments[at + 1]))), *rest]


def _split_config(argument: str) -> list[str]:
    flag, equals, value = argument.partition("=")
    return [flag, value] if flag == "--config" and equals else [argument]


def read_yaml(path: Path) -> dict[str, Any]:
    """The sections and fields of a YAML file. Raises ConfigError for a file that is none."""
    try:
        tree = parse_yaml(read_text(path, _MOST))
    except (OSError, ValueError) as error:
        raise ConfigError.of("config", path, f"cannot be read ({str(error).splitlines()[0]})") from error
    if not isinstance(tree, dict):
        raise ConfigError.of("config", path, "must hold the fields of a configuration")
    return tree


def parse_yaml(text: str) -> Any:
    """What a YAML text holds: plain values of its own, nested at most 50 deep. Raises ValueError for any other."""
    try:
        tree = yaml.load(text, _PlainLoader)  # noqa: S506  # nosec B506  # a SafeLoader
    except (yaml.YAMLError, RecursionError, OverflowError, AttributeError) as error:  # as for a date that is none
        raise ValueError(str(error) or "it is nested too deep") from error
    require_plain(tree)
    return tree


class _PlainLoader(yaml.SafeLoader):
    """YAML without aliases, nine lines of which can unfold to a billion values, and without keys given twice."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has an alias: write the value out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        made = super().construct_mapping(node, deep)
        if len(made) < len(node.value):
            raise yaml.YAMLError("it gives a key twice")
        return made


def as_flags(tree: Mapping[str, Any]) -> Iterator[str]:
    """Turn a configuration, as read from YAML, into command-line flags, so that one parser checks both.

    Fields stand in their section or, as on the command line, without it. Raises ConfigError for names that are neither.
    """
    defaults = RunConfig()
    values = {item.name: getattr(defaults, item.name) for item in fields(RunConfig)}
    sections = {name: {item.name for item in fields(value)} for name, value in values.items() if is_dataclass(value)}
    top = set(values) - set(sections)
    for key, value in tree.items():
        if key in sections and isinstance(value, Mapping):
            for name, inner in value.items():
                yield from _flag(f"{key}.{name}", name, inner, sections[key])
        else:
            yield from _flag(key, key, value, top.union(*sections.values()))


def _flag(path: str, name: str, value: Any, known: Collection[str]) -> Iterator[str]:
    if name not in known:
        near = nearest(str(name), known)
        remedy = f"Near it: {near}." if near else "See --help for the fields."
        raise ConfigError(f"--config: unknown field {path!r}. {remedy}")
    if isinstance(value, Mapping | list):
        raise ConfigError(f"--config: {path}: {value!r} is no value of a field.")
    if isinstance(value, bool):
        yield f"--{'' if value else 'no-'}{name.replace('_', '-')}"
    else:
        yield from (f"--{name.replace('_', '-')}", str(value))


def saved_config(path: Path) -> RunConfig:
    """The configuration that a run saved of itself. Raises ConfigError for a file that is none.

    A field that is not in it, because it is younger than the run, has its default.
    """
    tree = read_yaml(path)
    defaults = RunConfig()
    values: dict[str, Any] = {}
    try:
        for key, value in tree.items():
            kind: Any = type(getattr(defaults, key))
            if is_dataclass(kind) != isinstance(value, Mapping):
                raise TypeError(f"{key}: {value!r}")
            values[key] = _section(kind, value) if isinstance(value, Mapping) else value
        values = {**values, "runs": Path(values.get("runs", defaults.runs))}
        config: RunConfig = _section(RunConfig, values)
        return config
    except (AttributeError, OverflowError, TypeError, ValueError) as error:
        raise ConfigError.of("config", path, f"is not the configuration of a run ({error})") from error


def _section(kind: Any, values: Mapping[str, Any]) -> Any:
    """A section of the configuration. Raises TypeError for a value of the wrong kind, ConfigError for a wrong one."""
    made = kind(**values)
    for name, value in values.items():
        if not fits(value, field_kind(made, name)):
            raise TypeError(f"{name}: {value!r} is not {in_words(field_kind(made, name))}")
    return made
