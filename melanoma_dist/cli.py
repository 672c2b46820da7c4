"""The command line: which command, its configuration, its errors as one message and an exit code.

With no subcommand it trains. Nothing heavy is imported to parse.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

import tyro
import yaml

from melanoma_dist.config import RunConfig, as_flags
from melanoma_dist.errors import ConfigError, MelanomaDistError
from melanoma_dist.log import complain

_INTERRUPTED = 130
_PARSER = (tyro.conf.OmitArgPrefixes,)
_USAGE = """Train k folds of a backbone and report what the folds predict for the images they did not train on.

    launch.py --backbone inceptionresnetv2 --data DATA --gpus 8   train (this command)
    launch.py --config run.yaml [--lr 3e-4 ...]                   train as a saved configuration says; flags win
    launch.py data prepare --help                                 make DATA from the challenges' files
"""


@dataclass(frozen=True)
class PrepareConfig:
    """Read the challenges' files once, check and clean them, and write the data set that trainings use."""

    raw: Path
    """Folder that holds the folders 2017, 2018 and 2019 with the challenges' own files."""
    out: Path
    """Folder to write the data set into: new, or of the same preparation."""
    years: tuple[Literal[2017, 2018, 2019], ...]
    """Challenge years to read and merge on the image id."""
    size: int = 512
    """Shorter side in pixels that larger images are reduced to, 32 to 4096. Smaller ones keep their size."""
    allow_missing: bool = False
    """Leave out images that have labels but no file, instead of refusing."""

    def __post_init__(self) -> None:
        if not 32 <= self.size <= 4096:
            raise ConfigError.of("size", self.size, "must be 32 to 4096")
        if not self.years:
            raise ConfigError("--years: name at least one of 2017, 2018 and 2019.")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns its exit code: 0 done, 1 failed, 2 a mistake of the user, 130 interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        _command(arguments)
    except MelanomaDistError as error:
        complain(f"error: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        complain("interrupted. Finished epochs are kept: the same command goes on from there.")
        return _INTERRUPTED
    return 0


def _command(arguments: list[str]) -> None:
    if arguments[:1] == ["data"]:
        _data(arguments[1:])
    else:
        _train(arguments)


def _train(arguments: list[str]) -> None:
    if arguments and not arguments[0].startswith("-"):
        raise ConfigError(
            f"{arguments[0]!r} is no command. Commands: data prepare; without a command, launch.py trains."
        )
    config = tyro.cli(RunConfig, args=_with_file(arguments), prog="launch.py", description=_USAGE, config=_PARSER)
    from melanoma_dist.run import train

    train(config)


def _data(arguments: list[str]) -> None:
    if arguments[:1] != ["prepare"]:
        given = " ".join(arguments[:1]) or "nothing"
        raise ConfigError(
            f"data: the command is `data prepare`, and {given} was given. See `launch.py data prepare --help`."
        )
    chosen = tyro.cli(PrepareConfig, args=arguments[1:], prog="launch.py data prepare", config=_PARSER)
    from melanoma_dist.data.prepare import prepare

    prepare(chosen.raw, chosen.out, chosen.years, chosen.size, chosen.allow_missing)


def _with_file(arguments: list[str]) -> list[str]:
    """``--config FILE`` replaced by its flags, put before those that were typed: the later one wins."""
    arguments = [part for argument in arguments for part in _split_config(argument)]
    if "--config" not in arguments:
        return arguments
    at = arguments.index("--config")
    if at + 1 >= len(arguments):
        raise ConfigError("--config: the file's name is missing.")
    rest = arguments[:at] + arguments[at + 2 :]
    return [*as_flags(_read_yaml(Path(arguments[at + 1])), _known_field(RunConfig)), *rest]


def _split_config(argument: str) -> list[str]:
    flag, equals, value = argument.partition("=")
    return [flag, value] if flag == "--config" and equals else [argument]


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError.of("config", path, f"cannot be read ({str(error).splitlines()[0]})") from error
    if not isinstance(tree, dict):
        raise ConfigError.of("config", path, "must hold the fields of a configuration")
    return tree


def _known_field(config: type) -> Callable[[str], bool]:
    names: set[str] = set()
    for item in fields(config):
        section = item.default_factory
        names |= {inner.name for inner in fields(section)} if is_dataclass(section) else {item.name}
    return names.__contains__


def console() -> None:
    """The installed command `melanoma-dist`."""
    sys.exit(main())
