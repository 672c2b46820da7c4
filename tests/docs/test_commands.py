"""Every documented command is one that the real parsers accept, and every documented flag exists."""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from tensorboard.plugins.core.core_plugin import CorePluginLoader

from melanoma_dist import cli
from melanoma_dist.config.apply import ApplyConfig
from melanoma_dist.config.evaluate import CompareConfig, EvaluateConfig
from melanoma_dist.config.export import ExportConfig
from melanoma_dist.config.predict import PredictConfig
from melanoma_dist.config.run import RunConfig
from melanoma_dist.config.segment import SegmentConfig
from melanoma_dist.config.serve import ServeConfig
from melanoma_dist.config.sweep import SweepConfig
from melanoma_dist.config.weights import FetchConfig
from melanoma_dist.data.commands import COMMANDS

from .pages import PAGES, ROOT, Command, commands, inline_code, name

# What the command line starts once it has parsed: nothing of it runs here.
WORKERS = (
    "melanoma_dist.run", "melanoma_dist.sweep.command", "melanoma_dist.evaluate.holdout.command",
    "melanoma_dist.evaluate.comparison.command", "melanoma_dist.app.predict", "melanoma_dist.app.server.command",
    "melanoma_dist.app.export.command", "melanoma_dist.app.apply", "melanoma_dist.models.fetch",
)  # fmt: skip
FOREIGN_FLAGS = {"--shm-size", "--signal", "--logdir", "--help", "--version", "--tyro-write-completion"} | {
    "--sections", "--minutes",  # of benchmarks/gpu.py
}  # fmt: skip
ALIASES = {"--model", "--opt", "--sched", "--encoder"}  # tests/unit/test_cli.py parses with them
SHELL = {"cp", "docker", "pip", "source", "touch"}

Started = list[Any]


class Worker(types.ModuleType):
    """Stands for a module that does the work of a command: records the configuration that it is given."""

    def __init__(self, module: str, started: Started) -> None:
        super().__init__(module)
        self._started = started

    def __getattr__(self, attribute: str) -> Any:
        return self._started.append


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    configurations: Started = []
    for module in WORKERS:
        monkeypatch.setitem(sys.modules, module, Worker(module, configurations))
    for key, command in COMMANDS.items():
        monkeypatch.setitem(COMMANDS, key, dataclasses.replace(command, run=configurations.append))
    for check in (
        "distributed.preflight.check_flags",
        "distributed.preflight.check_gpus_here",
        "config.places.check_data",  # last: a module that is imported now would keep the replacement
    ):
        monkeypatch.setattr(
            f"melanoma_dist.{check}", lambda _: None
        )  # of a machine, which the documentation is not about
    monkeypatch.setattr("melanoma_dist.distributed.preflight.settle_flags", lambda config: config)
    monkeypatch.setattr("melanoma_dist.cli.check_runs", lambda _: None)
    monkeypatch.setattr("melanoma_dist.cli.check_inputs", lambda _: None)
    monkeypatch.setattr("melanoma_dist.cli.check_files", lambda _: None)
    monkeypatch.setattr("signal.signal", lambda *_: None)  # pytest keeps its own
    monkeypatch.chdir(ROOT)
    return configurations


def parse(words: list[str], started: Started) -> None:
    """Parse with the real command line, up to where the work would start."""
    try:
        code = cli.main(words)
    except SystemExit as stop:
        code = int(stop.code or 0)
    assert code == 0, words
    assert started or {"--help", "--version"} & {*words}
    for configuration in started:
        if isinstance(configuration, SweepConfig):
            assert configuration.space is not None
            assert (ROOT / configuration.space).is_file()
            assert configuration.searcher == "grid" or configuration.trials or configuration.time_budget


def check(command: Command, started: Started) -> None:
    program, *rest = command.words
    if program == "melanoma-dist":
        parse(rest, started)
    elif Path(program).name in ("python", "python3"):
        check_python(rest, started)
    elif program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(rest) <= set(targets)
    elif program == "tensorboard":
        parser = argparse.ArgumentParser()
        CorePluginLoader().define_flags(parser)
        assert parser.parse_args(rest).logdir
    else:
        assert program in SHELL, f"{command}: an unknown program: check it, then add it to SHELL"


def check_python(words: list[str], started: Started) -> None:
    first, *rest = words
    if first == "launch.py":
        parse(rest, started)
    elif first == "-c":
        compile(rest[0], "<documented>", "exec")
    elif first == "-m":
        assert rest[0] in ("pip", "venv", "pytest")
    else:
        text = (ROOT / first).read_text()  # a benchmark
        flags = [word for word in rest if word.startswith("--")]  # of an argparse parser, or fields of a dataclass
        assert [flag for flag in flags if f'"{flag}"' not in text and f"    {flag[2:]}: " not in text] == []


@pytest.mark.parametrize("command", commands(), ids=str)
def test_a_documented_command_is_accepted(command: Command, started: Started) -> None:
    check(command, started)


def test_commands_of_every_kind_are_documented() -> None:
    kinds = {command.words[2] for command in commands() if command.words[:2] == ("python", "launch.py")}
    assert {"data", "sweep", "evaluate", "compare", "predict", "serve", "export", "weights", "--backbone"} <= kinds


@pytest.mark.parametrize(
    "words", [("python", "launch.py", "--no-such-flag", "1"), ("make", "nonsense"), ("python", "launch.py", "judge")]
)
def test_a_command_that_does_not_exist_is_noticed(words: tuple[str, ...], started: Started) -> None:
    with pytest.raises(AssertionError):
        check(Command("nowhere", words), started)


def flags(configuration: type) -> Iterator[str]:
    """Every flag of a configuration and of its sections, with the ``--no-`` forms of yes-or-no fields."""
    for field, kind in get_type_hints(configuration).items():
        if dataclasses.is_dataclass(kind):
            yield from flags(kind)  # type: ignore[arg-type]
        else:
            flag = field.replace("_", "-")
            yield from (f"--{flag}", f"--no-{flag}") if kind is bool else (f"--{flag}",)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_flag_in_a_text_exists(page: Path) -> None:
    classes = [
        RunConfig,
        SweepConfig,
        EvaluateConfig,
        CompareConfig,
        PredictConfig,
        ServeConfig,
        ExportConfig,
        FetchConfig,
        SegmentConfig,
        ApplyConfig,
        *(c.config for c in COMMANDS.values()),
    ]
    known = (
        {flag for configuration in classes for flag in flags(configuration)} | {"--config"} | ALIASES | FOREIGN_FLAGS
    )
    named = {flag for code in inline_code(page) for flag in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", code)}
    assert named - known - {"--no-"} == set()
