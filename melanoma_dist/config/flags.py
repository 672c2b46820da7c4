"""Reads the flags of a command into its configuration."""

from __future__ import annotations

import inspect
from dataclasses import fields, make_dataclass, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from melanoma_dist import console
from melanoma_dist.config.saved import with_file

Config = TypeVar("Config")

PARSER = (tyro.conf.OmitArgPrefixes,)
POSITIONAL = (*PARSER, tyro.conf.PositionalRequiredArgs)
TYPES = ConstructorRegistry()


def parse_with_file(
    config: type[Config], arguments: list[str], command: str = "", description: str | None = None, required: str = ""
) -> Config:
    """Parse flags that may name a file with more flags: ``--config`` is read before, and stands in the help."""
    help_text = "YAML file with settings, such as config.yaml of a run. Flags override it."
    flag = Annotated[Path | None, tyro.conf.arg(help=help_text, metavar="FILE")]
    extended = make_dataclass("Flags", [("config", flag, None)], bases=(config,), frozen=True)
    run: Any = getattr(config(), "run", config())  # of a sweep, what it searches
    parsed: Any = parse(
        extended, with_file(arguments, type(run)), command, description or inspect.getdoc(config), required=required
    )
    return config(**{item.name: getattr(parsed, item.name) for item in fields(config)})  # type: ignore[arg-type]


def parse(
    config: type[Config],
    arguments: list[str],
    command: str = "",
    description: str | None = None,
    markers: tuple[Any, ...] = PARSER,
    required: str = "",
) -> Config:
    """Parse the flags of a command. Prints the help, or what is wrong with a flag, and exits.

    ``required``: what the usage names before the options. Raises ConfigError for values that break a rule.
    """
    prog = f"{console.program()} {command}".rstrip()
    with console.replacing("[OPTIONS]", f"{required} [OPTIONS]".lstrip()):
        return tyro.cli(config, args=arguments, prog=prog, description=description, config=markers, registry=TYPES)


@TYPES.primitive_rule
def _optional(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """Parse an optional field as its type alone: its absence is None, and nobody types None."""
    kinds = [kind for kind in get_args(info.type) if kind is not NoneType]
    if get_origin(info.type) not in (Union, UnionType) or len(kinds) != 1:
        return None
    spec = ConstructorRegistry.get_primitive_spec(replace(info, type=kinds[0], type_origin=get_origin(kinds[0])))
    if not isinstance(spec, PrimitiveConstructorSpec):
        return None
    return replace(
        spec,
        is_instance=lambda value: value is None or spec.is_instance(value),
        str_from_instance=lambda value: ["none"] if value is None else spec.str_from_instance(value),
    )
