"""The commands in the files of cluster/ are valid."""

from __future__ import annotations

import re
import shlex

import pytest
import tyro

from melanoma_dist.config import flags
from melanoma_dist.config.run import RunConfig
from melanoma_dist.config.sweep import SweepConfig
from melanoma_dist.data.commands import COMMANDS

from .files import CLUSTER, ROOT, ray_document, read_text

SUBMISSION = r"^(?:#   )?DATA=\S+ RUNS=\S+ sbatch (?:--nodes[= ]1 )?(cluster/slurm\.sbatch .*)$"
COMMAND_LINES = [
    *re.findall(r"^python (launch\.py .*)$", read_text("README.md"), re.MULTILINE),
    *re.findall(SUBMISSION, read_text("README.md") + read_text("slurm.sbatch"), re.MULTILINE),
    ray_document("kuberay/rayjob.yaml")["spec"]["entrypoint"].removeprefix("python "),
]


def parse(words: list[str]) -> object:
    if words[0] == "data":
        return tyro.cli(COMMANDS[words[1]].config, args=words[2:], config=flags.PARSER)
    return tyro.cli(RunConfig, args=words, config=flags.PARSER)


def test_there_are_commands_of_every_kind() -> None:
    kinds = {shlex.split(command)[1] for command in COMMAND_LINES}
    assert {"data", "sweep", "--backbone"} <= kinds
    assert sum(command.startswith("cluster/slurm.sbatch") for command in COMMAND_LINES) == 4


@pytest.mark.parametrize("command", [command for command in COMMAND_LINES if " sweep " not in command])
def test_a_command_is_valid(command: str) -> None:
    parse(shlex.split(command)[1:])


@pytest.mark.parametrize("command", [command for command in COMMAND_LINES if " sweep " in command])
def test_a_sweep_is_valid_and_ends(command: str) -> None:
    settings = tyro.cli(SweepConfig, args=shlex.split(command)[2:], config=flags.PARSER)
    assert settings.space is not None
    assert (ROOT / settings.space).is_file()
    assert settings.searcher == "grid" or settings.trials or settings.time_budget  # something ends it


def test_the_readme_names_every_file() -> None:
    files = {path.relative_to(CLUSTER).as_posix() for path in CLUSTER.rglob("*") if path.is_file()}
    expected = {
        "README.md", "Dockerfile", "Dockerfile.dockerignore", "aws.yaml", "gcp.yaml", "ssh.yaml", "slurm.sbatch",
        "kuberay/raycluster.yaml", "kuberay/rayjob.yaml", "kuberay/rayservice.yaml",
    }  # fmt: skip
    assert files == expected
    named = read_text("README.md")
    assert [
        name for name in expected - {"README.md", "Dockerfile.dockerignore"} if name.split("/")[-1] not in named
    ] == []
    assert "cluster/README.md" in (ROOT / "README.md").read_text()
