"""The command line: parses the configuration of a command, runs it, and turns errors into a message and an exit code.

Without a subcommand it trains. Parsing imports nothing heavy, so that --help and the first messages are fast.
"""

from __future__ import annotations

import errno
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import melanoma_dist
from melanoma_dist import console, signals
from melanoma_dist.config.apply import ApplyConfig
from melanoma_dist.config.evaluate import CompareConfig, EvaluateConfig
from melanoma_dist.config.export import ExportConfig, check_format, check_new_folder
from melanoma_dist.config.flags import PARSER, POSITIONAL, parse, parse_with_file
from melanoma_dist.config.model import ModelConfig
from melanoma_dist.config.places import check_inputs, check_runs, check_writable
from melanoma_dist.config.predict import PredictConfig, check_outputs
from melanoma_dist.config.rules import check_together
from melanoma_dist.config.run import RunConfig
from melanoma_dist.config.segment import SegmentConfig
from melanoma_dist.config.serve import ServeConfig, check_files
from melanoma_dist.config.sweep import SegmentSweepConfig, SweepConfig
from melanoma_dist.config.weights import FetchConfig
from melanoma_dist.data.commands import COMMANDS
from melanoma_dist.errors import ConfigError, MelanomaDistError
from melanoma_dist.models.names import check_name

_STORAGE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.ESTALE)
_FORBIDDEN = (errno.EACCES, errno.EPERM)
_USAGE = """Train a backbone over k folds and report its out-of-fold predictions.

    {0} --backbone inceptionresnetv2 --gpus 8     train (this command)
    {0} --config run.yaml [--lr 3e-4 ...]         train with a saved configuration; flags override it
    {0} sweep --space FILE --trials 24            search configurations, with early stopping
    {0} segment --encoder resnet34 --gpus 8       train a U-Net that segments lesions
    {0} segment sweep --space FILE --trials 24    search configurations of a segmenter
    {0} segment apply RUN --out DIR               segment all images of its data set, for --region lesion
    {0} evaluate RUN --holdout 2017-test          evaluate a run on images that no fold has seen
    {0} compare RUN RUN [RUN ...]                 compare finished runs, with confidence intervals
    {0} predict RUN IMAGE [IMAGE ...]             predict images, folders of them, or tables of paths
    {0} serve RUN                                 serve a page and an HTTP API that predict images
    {0} export RUN --format onnx                  write files that predict without this program
    {0} weights fetch BACKBONE ... --out DIR      download weights for machines without a network
    {0} data                                      list the commands that download, prepare and audit images
    {0} --version                                 print the version
"""
_LOADING = "loading libraries"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0 success, 1 failure, 2 mistake of the user, 130 or 143 interrupted, 75 saved and stopped after a signal,
    141 nobody reads the output any more.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    set_up_libraries()
    try:
        try:
            return _exit_code(arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if not console.is_closed():
            raise
        return console.CLOSED_PIPE


def set_up_libraries() -> None:
    """Choose how libraries wait and take memory, before they are loaded, unless the user has. No bit depends on it."""
    # PyTorch's threads must not spin while they wait: they would take the cores from the decoders of images, and more
    # than half of the time of other programs.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Large CPU tensors, and in processes that start later the pixels of photographs, lie in huge pages where the system
    # offers them: forward passes and decoding spend up to a third of their time on page faults otherwise.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")


def _exit_code(arguments: list[str]) -> int:
    signals.reset()
    signals.install_handlers()
    try:
        return _run_command(arguments)
    except MelanomaDistError as error:
        console.error(f"error: {error}")
        return error.exit_code
    except OSError as error:
        if error.errno not in (*_STORAGE_ERRORS, *_FORBIDDEN):
            raise
        place = f"{error.filename}: " if error.filename else ""
        remedy = "Free space or repair the storage" if error.errno in _STORAGE_ERRORS else "Allow this user to do that"
        console.error(f"error: {place}{error.strerror}. {remedy}. {_remains(arguments)}")
        return MelanomaDistError.exit_code
    except KeyboardInterrupt:
        console.error(signals.interrupt_message(_remains(arguments), console.command()))
        return signals.exit_code()


def _run_command(arguments: list[str]) -> int:
    command, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if command == "--version":
        console.info(f"melanoma-dist {melanoma_dist.__version__}")
    elif command == "data":
        return _data(rest)
    elif command in _COMMANDS:
        _COMMANDS[command](rest)
    elif not command or command.startswith("-"):
        _train(arguments)
    else:
        known = ", ".join(f"`{name}`" for name in _COMMANDS)
        raise ConfigError(
            f"{command!r} is not a command. Commands: {known}, {_data_commands()}. "
            "Without a command, the program trains."
        )
    return 0


def _train(arguments: list[str], kind: type[RunConfig] = RunConfig, command: str = "") -> None:
    usage = None if command else _USAGE.format(console.program())
    config = parse_with_file(kind, arguments, command, usage)
    from melanoma_dist.distributed.preflight import check_flags, settle_flags

    config = settle_flags(config)
    check_flags(config)
    with console.phase(_LOADING):
        from melanoma_dist.run import train
    train(config)


def _segment(arguments: list[str]) -> None:
    if arguments[:1] == ["sweep"]:
        return _sweep(arguments[1:], SegmentSweepConfig, "segment sweep")
    if arguments[:1] != ["apply"]:
        return _train(arguments, SegmentConfig, "segment")
    settings = parse(ApplyConfig, arguments[1:], "segment apply", markers=POSITIONAL)
    check_together(lambda: check_runs([settings.run]), lambda: check_writable("out", settings.out))
    with console.phase(_LOADING):
        from melanoma_dist.app.apply import apply
    apply(settings)


def _sweep(arguments: list[str], kind: type[SweepConfig] = SweepConfig, command: str = "sweep") -> None:
    settings = parse_with_file(kind, arguments, command, required="--space FILE")
    from melanoma_dist.config.places import check_data, check_writable
    from melanoma_dist.distributed.preflight import check_gpus_here, settle_flags

    settings.require_complete()
    settings = replace(settings, run=settle_flags(settings.run))
    check_together(
        lambda: check_data(settings.run.data.data or ""),
        lambda: check_writable("runs", settings.run.runs),
        lambda: check_gpus_here(settings.run.hardware),
    )
    with console.phase(_LOADING):
        from melanoma_dist.sweep.command import sweep
    sweep(settings)


def _evaluate(arguments: list[str]) -> None:
    settings = parse(EvaluateConfig, arguments, "evaluate", markers=POSITIONAL)
    check_runs([settings.run])
    with console.phase(_LOADING):
        from melanoma_dist.evaluate.holdout.command import evaluate
    evaluate(settings)


def _compare(arguments: list[str]) -> None:
    settings = parse(CompareConfig, arguments, "compare", markers=POSITIONAL)
    check_runs(settings.runs)
    with console.phase(_LOADING):
        from melanoma_dist.evaluate.comparison.command import compare
    compare(settings)


def _predict(arguments: list[str]) -> None:
    settings = parse(PredictConfig, arguments, "predict", markers=POSITIONAL)
    check_together(
        lambda: check_runs([settings.run]),
        lambda: check_inputs(settings.inputs),
        lambda: check_outputs(settings.out, settings.explain, settings.inputs),
    )
    with console.phase(_LOADING):
        from melanoma_dist.app.predict import predict
    predict(settings)


def _serve(arguments: list[str]) -> None:
    settings = parse(ServeConfig, arguments, "serve", markers=POSITIONAL)
    check_together(lambda: check_runs([settings.run]), lambda: check_files(settings))
    with console.phase(_LOADING):
        from melanoma_dist.app.server.command import serve
    serve(settings)


def _export(arguments: list[str]) -> None:
    settings = parse(ExportConfig, arguments, "export", markers=POSITIONAL)
    check_together(
        lambda: check_runs([settings.run]),
        lambda: check_format(settings.format),
        lambda: check_new_folder(settings.folder),
    )
    with console.phase(_LOADING):
        from melanoma_dist.app.export.command import export
    export(settings)


def _weights(arguments: list[str]) -> None:
    if arguments[:1] != ["fetch"]:
        raise ConfigError(f"weights: type `{console.program()} weights fetch BACKBONE ... --out DIR`.")
    settings = parse(FetchConfig, arguments[1:], "weights fetch", markers=POSITIONAL)
    check_together(
        *(partial(check_name, ModelConfig(name).backbone, "imagenet") for name in settings.backbones),
        lambda: check_writable("out", settings.out),
    )
    with console.phase(_LOADING):
        from melanoma_dist.models.fetch import fetch
    fetch(settings)


_COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "segment": _segment,
    "sweep": _sweep,
    "evaluate": _evaluate,
    "compare": _compare,
    "predict": _predict,
    "serve": _serve,
    "export": _export,
    "weights": _weights,
}


def _data(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        (console.info if arguments else console.error)(_list_data_commands())
        return 0 if arguments else ConfigError.exit_code
    if arguments[0] not in COMMANDS:
        raise ConfigError(f"data: {arguments[0]!r} is not one of its commands: {_data_commands()}.")
    command = COMMANDS[arguments[0]]
    name, markers = f"data {arguments[0]}", POSITIONAL if command.positional else PARSER
    command.run(parse(command.config, arguments[1:], name, markers=markers, required=command.required))
    return 0


def _list_data_commands() -> str:
    program = console.program()
    lines = [
        f"    {program} data {name:10}{(inspect.getdoc(command.config) or '').splitlines()[0]}"
        for name, command in COMMANDS.items()
    ]
    return "\n".join([f"usage: {program} data COMMAND [-h] [OPTIONS]", "", *lines])


def _data_commands() -> str:
    return ", ".join(f"`data {name}`" for name in COMMANDS)


def _remains(arguments: list[str]) -> str:
    """What an interrupted command leaves on the disk, and how to resume."""
    if arguments[:1] == ["data"]:
        return COMMANDS[arguments[1]].remains
    if arguments[:1] == ["evaluate"]:
        return "No metrics were saved. If images were already scored, RUN/evaluations records it."
    if arguments[:1] == ["predict"] and signals.has_started():
        return f"What was predicted is kept beside --out. The same command resumes:\n{console.command()}"
    if arguments[:2] == ["segment", "apply"]:
        return f"Masks that were written are kept in --out. The same command resumes:\n{console.command()}"
    if arguments[:1] == ["weights"]:
        return "Folders that are complete stay. Run the same command again."
    if arguments[:1] in (["compare"], ["predict"], ["serve"], ["export"]):
        return "Nothing was saved. Run the same command again."
    if not signals.has_started():
        return f"Nothing had started yet. The same command starts again:\n{console.command()}"
    return f"Checkpoints are kept. The same command resumes from the last ones:\n{console.command()}"
