"""The command line: which command, its configuration, its errors as one message and an exit code.

With no subcommand it trains. Nothing heavy is imported to parse.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence

import tyro

from melanoma_dist import console, signals
from melanoma_dist.config.evaluate import CompareConfig, EvaluateConfig
from melanoma_dist.config.run import RunConfig
from melanoma_dist.config.saved import with_file
from melanoma_dist.config.sweep import SweepConfig
from melanoma_dist.data.commands import COMMANDS
from melanoma_dist.errors import ConfigError, MelanomaDistError

_PARSER = (tyro.conf.OmitArgPrefixes,)
_OF_RUNS = (*_PARSER, tyro.conf.PositionalRequiredArgs)
_OF_STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ESTALE)
_USAGE = """Train k folds of a backbone and report what the folds predict for the images they did not train on.

    launch.py --backbone inceptionresnetv2 --data DATA --gpus 8   train (this command)
    launch.py --config run.yaml [--lr 3e-4 ...]                   train as a saved configuration says; flags win
    launch.py sweep --space tune_spaces/head.py --trials 24 --data DATA    search configurations, stopped early
    launch.py evaluate runs/NAME --holdout 2017-test              judge a run by images that no fold has seen
    launch.py compare RUN RUN [RUN ...]                           finished runs side by side, with intervals
    launch.py data download --help                                fetch the challenges' files
    launch.py data prepare --help                                 make DATA from them
    launch.py data audit --help                                   prove that DATA does not leak, and look at it
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns its exit code.

    0 done, 1 failed, 2 a mistake of the user, 130 or 143 interrupted, 75 saved and ended as a signal asked.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    signals.reset()
    signals.install_handlers()
    try:
        _command(arguments)
    except MelanomaDistError as error:
        console.error(f"error: {error}")
        return error.exit_code
    except OSError as error:
        if error.errno not in _OF_STORAGE:
            raise
        place = error.filename or "a file"
        console.error(f"error: {place}: {error.strerror}. Make room or mend the storage. {_remains(arguments)}")
        return MelanomaDistError.exit_code
    except KeyboardInterrupt:
        console.error(signals.interrupt_message(_remains(arguments)))
        return signals.exit_code()
    return 0


def _command(arguments: list[str]) -> None:
    if arguments[:1] == ["data"]:
        _data(arguments[1:])
    elif arguments[:1] == ["sweep"]:
        _sweep(arguments[1:])
    elif arguments[:1] == ["evaluate"]:
        _evaluate(arguments[1:])
    elif arguments[:1] == ["compare"]:
        _compare(arguments[1:])
    else:
        _train(arguments)


def _train(arguments: list[str]) -> None:
    if arguments and not arguments[0].startswith("-"):
        raise ConfigError(
            f"{arguments[0]!r} is no command. Commands: `sweep`, `evaluate`, `compare`, {_data_commands()}; "
            "without one, launch.py trains."
        )
    config = tyro.cli(RunConfig, args=with_file(arguments), prog="launch.py", description=_USAGE, config=_PARSER)
    from melanoma_dist.run import train

    train(config)


def _sweep(arguments: list[str]) -> None:
    settings = tyro.cli(SweepConfig, args=with_file(arguments), prog="launch.py sweep", config=_PARSER)
    from melanoma_dist.sweep.command import sweep

    sweep(settings)


def _evaluate(arguments: list[str]) -> None:
    settings = tyro.cli(EvaluateConfig, args=arguments, prog="launch.py evaluate", config=_OF_RUNS)
    from melanoma_dist.evaluate.holdout.command import evaluate

    evaluate(settings)


def _compare(arguments: list[str]) -> None:
    settings = tyro.cli(CompareConfig, args=arguments, prog="launch.py compare", config=_OF_RUNS)
    from melanoma_dist.evaluate.comparison.command import compare

    compare(settings)


def _data(arguments: list[str]) -> None:
    name = arguments[0] if arguments else "nothing"
    if name not in COMMANDS:
        raise ConfigError(
            f"data: the commands are {_data_commands()}, and {name} was given. See `launch.py data prepare --help`."
        )
    command = COMMANDS[name]
    command.run(tyro.cli(command.config, args=arguments[1:], prog=f"launch.py data {name}", config=_PARSER))


def _data_commands() -> str:
    return ", ".join(f"`data {name}`" for name in COMMANDS)


def _remains(arguments: list[str]) -> str:
    """What an interrupted command leaves."""
    if arguments[:1] == ["data"]:
        return COMMANDS[arguments[1]].remains
    if arguments[:1] == ["evaluate"]:
        return "Nothing was judged; if the images were already looked at, that is recorded in RUN/evaluations."
    if arguments[:1] == ["compare"]:
        return "Nothing was kept: the same command begins again."
    return "Checkpoints, if there are any yet, are kept: the same command goes on from the last ones."
