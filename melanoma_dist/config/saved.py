"""Configurations in YAML files, and their conversion to command-line flags: one parser checks both."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from melanoma_dist.config.fault_tolerance import FaultToleranceConfig
from melanoma_dist.config.places import expanded
from melanoma_dist.config.rules import field_type, has_type, suppressed, type_in_words
from melanoma_dist.config.run import RunConfig, dotted
from melanoma_dist.config.segment import SegmentConfig
from melanoma_dist.errors import ConfigError, nearest
from melanoma_dist.storage.untrusted import MEBIBYTE, read_text, require_plain

Section = TypeVar("Section")

_MAX_BYTES = MEBIBYTE // 4
_RENAMED = {"max_damaged_images": "max_corrupt_images"}  # since the first runs
# Fields that the first runs lacked, with the values they acted by.
_YOUNGER: dict[str, dict[str, object]] = {"input": {"tta": 1}, "model": {"trunk_norm": "batch"}}


def with_file(arguments: list[str], config: type[RunConfig] = RunConfig) -> list[str]:
    """Replace ``--config FILE`` by the flags of ``config`` in the file, before the typed ones: the last one wins."""
    arguments = [part for argument in arguments for part in _split_config(argument)]
    if "--config" not in arguments:
        return arguments
    if arguments.count("--config") > 1:
        raise ConfigError("--config: is given more than once. Write all settings into one file.")
    at = arguments.index("--config")
    if at + 1 >= len(arguments):
        raise ConfigError("--config: the file's name is missing. Write --config FILE.")
    rest = arguments[:at] + arguments[at + 2 :]
    return [*as_flags(read_yaml(expanded("config", arguments[at + 1])), config), *rest]


def _split_config(argument: str) -> list[str]:
    flag, equals, value = argument.partition("=")
    return [flag, value] if flag == "--config" and equals else [argument]


def read_yaml(path: Path) -> dict[str, object]:
    """The sections and fields of a YAML file. Raises ConfigError for an unreadable file or another content."""
    try:
        tree = parse_yaml(read_text(path, _MAX_BYTES))
    except (OSError, ValueError) as error:
        raise ConfigError.of("config", path, f"cannot be read ({error})") from error
    if not isinstance(tree, dict):
        raise ConfigError.of("config", path, "must hold the fields of a configuration")
    return _in_todays_sections(tree)


def _in_todays_sections(tree: dict[str, object]) -> dict[str, object]:
    """Move what older versions saved under ``hardware`` to ``fault_tolerance``, so that their runs stay readable."""
    hardware, tolerance = tree.get("hardware"), tree.get("fault_tolerance", {})
    if not isinstance(hardware, dict) or not isinstance(tolerance, dict):
        return tree
    names = {item.name for item in fields(FaultToleranceConfig)}
    hardware = {_RENAMED.get(name, name): value for name, value in hardware.items()}
    tolerance = {name: value for name, value in hardware.items() if name in names} | tolerance
    hardware = {name: value for name, value in hardware.items() if name not in names}
    return {**tree, "hardware": hardware, **({"fault_tolerance": tolerance} if tolerance else {})}


def parse_yaml(text: str) -> Any:
    """Parse YAML into plain values, nested at most 50 deep. Raises ValueError for everything else."""
    try:
        tree = yaml.load(text, _PlainLoader)  # noqa: S506  # nosec B506  # a SafeLoader
    except yaml.YAMLError as error:
        raise ValueError(_place_and_cause(error, text)) from error
    except (RecursionError, OverflowError, AttributeError) as error:  # as for an impossible date
        raise ValueError(str(error) or "it is nested too deep") from error
    require_plain(tree)
    return tree


def _place_and_cause(error: yaml.YAMLError, text: str) -> str:
    """What is wrong in a YAML text, and in which line and column."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return str(error).splitlines()[0]
    mark = error.problem_mark
    before = text[text.rfind("\n", 0, mark.index) + 1 : mark.index + 1]  # up to the mark in its line
    tab = before.find("\t")
    cause = error.problem if tab < 0 else "a tab, which YAML does not allow there: type spaces"
    return f"line {mark.line + 1}, column {(mark.column if tab < 0 else tab) + 1}: {cause}"


class _PlainLoader(yaml.SafeLoader):
    """YAML without aliases (nine lines of them can unfold to a billion values) and without repeated keys."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has an alias: write the value out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        mapping = super().construct_mapping(node, deep)
        if len(mapping) < len(node.value):
            raise yaml.YAMLError("it repeats a key")
        return mapping


def as_flags(tree: Mapping[str, object], config: type[RunConfig] = RunConfig) -> Iterator[str]:
    """Convert a configuration from YAML to command-line flags.

    A field stands in its section or, as on the command line, without it. Raises ConfigError for unknown names.
    """
    tree = _without_fixed(tree, config())
    values = {item.name: getattr(config(), item.name) for item in fields(config)}
    sections = {name: {item.name for item in fields(value)} for name, value in values.items() if is_dataclass(value)}
    top = set(values) - set(sections)
    for key, value in tree.items():
        if key in sections and isinstance(value, Mapping):
            for name, inner in value.items():
                yield from _flag(f"{key}.{name}", name, inner, sections[key])
        else:
            yield from _flag(key, key, value, top.union(*sections.values()))


def _without_fixed(tree: Mapping[str, object], defaults: RunConfig) -> dict[str, object]:
    """A tree without the fields that are no flags. Raises ConfigError where one is not the default."""
    expected = defaults.task
    task = tree.get("task", expected)
    if task != expected:
        segmenters = "`segment`, or `segment sweep`"
        commands = segmenters if expected == "classification" else "the command without a name, or `sweep`"
        raise ConfigError.of(
            "config", task, f"is the configuration of another task than {expected}", f"Use {commands}."
        )
    return {
        name: {key: each for key, each in value.items() if not _is_fixed(getattr(defaults, name), key, each)}
        if isinstance(value, Mapping) and is_dataclass(getattr(defaults, name, None))
        else value
        for name, value in tree.items()
        if not _is_fixed(defaults, name, value)
    }


def _is_fixed(section: object, name: str, value: object) -> bool:
    """Whether a field is no flag, and has its default. Raises ConfigError for another value."""
    if name not in suppressed(type(section)):
        return False
    default = getattr(section, name)
    if is_dataclass(default) and not isinstance(default, type):
        default = asdict(default)
        value = {**default, **value} if isinstance(value, Mapping) else value  # a file may be older than a field
    if value != default:
        raise ConfigError.of("config", name, f"is {default!r} for this command, not {value!r}", "Remove it.")
    return True


_OPTIONAL = {key.rpartition(".")[2] for key, value in dotted(RunConfig()).items() if value is None}


def _flag(path: str, name: str, value: object, known: Collection[str]) -> Iterator[str]:
    if name not in known:
        near = nearest(str(name), known)
        remedy = f"Did you mean: {near}?" if near else "See --help for the fields."
        raise ConfigError(f"--config: unknown field {path!r}. {remedy}")
    if isinstance(value, Mapping | list):
        raise ConfigError(f"--config: {path}: {value!r} must be a single value.")
    if value is None and name in _OPTIONAL:
        return
    if isinstance(value, bool):
        yield f"--{'' if value else 'no-'}{name.replace('_', '-')}"
    else:
        yield from (f"--{name.replace('_', '-')}", str(value))


def is_segmenter(run: Path) -> bool:
    """Whether a folder is the run of a segmenter. False for anything that is no whole run: who opens it says so."""
    try:
        return saved_config(run / "config.yaml").task == "segmentation"
    except ConfigError:
        return False


def saved_config(path: Path) -> RunConfig:
    """Read the config.yaml of a run. Raises ConfigError for any other file.

    A field that is younger than the run has the value that the run acted by, else its default.
    """
    tree = read_yaml(path)
    config = SegmentConfig if tree.get("task") == "segmentation" else RunConfig
    for name, younger in _YOUNGER.items():
        if isinstance(section_values := tree.get(name), dict):
            tree[name] = {**younger, **section_values}
    defaults = config()
    values: dict[str, object] = {}
    try:
        for key, value in tree.items():
            section = type(getattr(defaults, key))
            if is_dataclass(section) != isinstance(value, Mapping):
                raise TypeError(f"{key}: {value!r}")
            values[key] = _section(section, value) if isinstance(value, Mapping) else value
        runs = tree.get("runs", str(defaults.runs))
        if not isinstance(runs, str):
            raise TypeError(f"runs: {runs!r}")
        values["runs"] = Path(runs)
        return _section(config, values)
    except (AttributeError, ConfigError, OverflowError, TypeError, ValueError) as error:
        raise ConfigError.of("config", path, f"is not the configuration of a run ({error})") from error


def _section(section: type[Section], values: Mapping[str, object]) -> Section:
    """Build a section of the configuration. Raises TypeError for a value of another type, ConfigError for a bad one."""
    config = section(**values)
    for name, value in values.items():
        declared = field_type(config, name)
        if not has_type(value, declared):
            raise TypeError(f"{name}: {value!r} is not {type_in_words(declared)}")
    return config
