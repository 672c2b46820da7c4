"""The commands that cluster/ tells exist."""

from __future__ import annotations

import re
import shlex

import pytest
import tyro

from melanoma_dist import cli
from melanoma_dist.config.run import RunConfig
from melanoma_dist.config.sweep import SweepConfig
from melanoma_dist.data.commands import COMMANDS

from .files import CLUSTER, ROOT, custom, text

TOLD = [
    *re.findall(r"^python (launch\.py .*)$", text("README.md"), re.MULTILINE),
    custom("kuberay/rayjob.yaml")["spec"]["entrypoint"].removeprefix("python "),
]


def parse(words: list[str]) -> object:
    if words[0] == "data":
        return tyro.cli(COMMANDS[words[1]].config, args=words[2:], config=cli._PARSER)
    return tyro.cli(RunConfig, args=words, config=cli._PARSER)


def test_there_are_commands_of_every_kind() -> None:
    kinds = {shlex.split(command)[1] for command in TOLD}
    assert {"data", "sweep", "--backbone"} <= kinds


@pytest.mark.parametrize("command", [command for command in TOLD if " sweep " not in command])
def test_a_told_command_is_understood(command: str) -> None:
    parse(shlex.split(command)[1:])


@pytest.mark.parametrize("command", [command for command in TOLD if " sweep " in command])
def test_a_told_sweep_is_understood(command: str) -> None:
    settings = tyro.cli(SweepConfig, args=shlex.split(command)[2:], config=cli._PARSER)
    assert settings.space is not None
    assert (ROOT / settings.space).is_file()
    assert settings.searcher == "grid" or settings.trials or settings.time_budget  # something ends it


def test_every_file_is_told_of() -> None:
    files = {path.relative_to(CLUSTER).as_posix() for path in CLUSTER.rglob("*") if path.is_file()}
    expected = {
        "README.md", "Dockerfile", "Dockerfile.dockerignore", "aws.yaml", "gcp.yaml", "ssh.yaml", "slurm.sbatch",
        "kuberay/raycluster.yaml", "kuberay/rayjob.yaml",
    }  # fmt: skip
    assert files == expected
    named = text("README.md")
    assert [
        name for name in expected - {"README.md", "Dockerfile.dockerignore"} if name.split("/")[-1] not in named
    ] == []
    assert "cluster/README.md" in (ROOT / "README.md").read_text()
