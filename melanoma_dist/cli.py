"""The command line: parses the configuration of a command, runs it, and turns errors into a message and an exit code.

Without a subcommand it trains. Parsing imports nothing heavy, so that --help is fast.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
from typing import Any, TypeVar

import tyro

from melanoma_dist import console, signals
from melanoma_dist.config.evaluate import CompareConfig, EvaluateConfig
from melanoma_dist.config.run import RunConfig
from melanoma_dist.config.saved import with_file
from melanoma_dist.config.sweep import SweepConfig
from melanoma_dist.data.commands import COMMANDS
from melanoma_dist.errors import ConfigError, MelanomaDistError

Config = TypeVar("Config")

_PARSER = (tyro.conf.OmitArgPrefixes,)
_POSITIONAL = (*_PARSER, tyro.conf.PositionalRequiredArgs)
_STORAGE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ESTALE)
_USAGE = """Train a backbone over k folds and report its out-of-fold predictions.

    {0} --backbone inceptionresnetv2 --data DATA --gpus 8   train (this command)
    {0} --config run.yaml [--lr 3e-4 ...]                   train with a saved configuration; flags override it
    {0} sweep --space tune_spaces/head.py --trials 24 --data DATA    search configurations, with early stopping
    {0} evaluate runs/NAME --holdout 2017-test              evaluate a run on images that no fold has seen
    {0} compare RUN RUN [RUN ...]                           compare finished runs, with confidence intervals
    {0} data download --help                                download the challenges' files
    {0} data prepare --help                                 build the data set DATA from them
    {0} data audit --help                                   check DATA for leaks, and write a page with the evidence
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0 success, 1 failure, 2 mistake of the user, 130 or 143 interrupted, 75 saved and stopped after a signal.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    signals.reset()
    signals.install_handlers()
    try:
        _run_command(arguments)
    except MelanomaDistError as error:
        console.error(f"error: {error}")
        return error.exit_code
    except OSError as error:
        if error.errno not in _STORAGE_ERRORS:
            raise
        place = error.filename or "a file"
        console.error(f"error: {place}: {error.strerror}. Free space or repair the storage. {_remains(arguments)}")
        return MelanomaDistError.exit_code
    except KeyboardInterrupt:
        console.error(signals.interrupt_message(_remains(arguments), console.command()))
        return signals.exit_code()
    return 0


def _run_command(arguments: list[str]) -> None:
    command, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if command == "data":
        _data(rest)
    elif command == "sweep":
        settings = _parse(SweepConfig, with_file(rest), "sweep")
        from melanoma_dist.sweep.command import sweep

        sweep(settings)
    elif command == "evaluate":
        evaluation = _parse(EvaluateConfig, rest, "evaluate", markers=_POSITIONAL)
        from melanoma_dist.evaluate.holdout.command import evaluate

        evaluate(evaluation)
    elif command == "compare":
        comparison = _parse(CompareConfig, rest, "compare", markers=_POSITIONAL)
        from melanoma_dist.evaluate.comparison.command import compare

        compare(comparison)
    elif not command or command.startswith("-"):
        config = _parse(RunConfig, with_file(arguments), description=_USAGE.format(console.program()))
        from melanoma_dist.run import train

        train(config)
    else:
        raise ConfigError(
            f"{command!r} is not a command. Commands: `sweep`, `evaluate`, `compare`, {_data_commands()}. "
            "Without a command, the program trains."
        )


def _parse(
    config: type[Config],
    arguments: list[str],
    command: str = "",
    description: str | None = None,
    markers: tuple[Any, ...] = _PARSER,
) -> Config:
    prog = f"{console.program()} {command}".rstrip()
    return tyro.cli(config, args=arguments, prog=prog, description=description, config=markers)


def _data(arguments: list[str]) -> None:
    if not arguments or arguments[0] not in COMMANDS:
        unknown = f"{arguments[0]!r} is not one of them" if arguments else "name one of them"
        raise ConfigError(
            f"data: the commands are {_data_commands()}; {unknown}. See `{console.program()} data prepare --help`."
        )
    command = COMMANDS[arguments[0]]
    command.run(_parse(command.config, arguments[1:], f"data {arguments[0]}"))


def _data_commands() -> str:
    return ", ".join(f"`data {name}`" for name in COMMANDS)


def _remains(arguments: list[str]) -> str:
    """What an interrupted command leaves on the disk, and how to resume."""
    if arguments[:1] == ["data"]:
        return COMMANDS[arguments[1]].remains
    if arguments[:1] == ["evaluate"]:
        return "No metrics were saved. If images were already scored, RUN/evaluations records it."
    if arguments[:1] == ["compare"]:
        return "Nothing was saved. Run the same command again."
    return f"Checkpoints are kept. The same command resumes from the last ones:\n{console.command()}"
