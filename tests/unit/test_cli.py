"""The command line: one program under the name it was called by, quick about mistakes, quiet when nobody reads it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import tyro

import melanoma_dist
from melanoma_dist.cli import main
from melanoma_dist.config.evaluate import EvaluateConfig
from melanoma_dist.config.flags import PARSER, TYPES
from melanoma_dist.config.run import RunConfig

ROOT = Path(melanoma_dist.__file__).parents[1]
HEAVY = ("torch", "ray", "nvidia", "pandas", "timm", "sklearn", "scipy", "PIL", "numpy")


def launch(*words: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own; the last line of stderr lists the heavy libraries that it loaded."""
    program = (
        f"import json, sys\n{before}\nfrom melanoma_dist.cli import main\n"
        f"try:\n    code = main({list(words)!r})\nexcept SystemExit as stop:\n    code = stop.code\n"
        f"print(json.dumps(sorted(set({HEAVY!r}) & set(sys.modules))), file=sys.stderr)\nsys.exit(code)"
    )
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("called", "name"),
    [
        ("/opt/env/bin/melanoma-dist", "melanoma-dist"),
        ("launch.py", "python launch.py"),
        ("/src/launch.py", "python /src/launch.py"),
    ],
)
def test_help_and_messages_name_the_program_as_it_was_called(
    called: str, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [called])
    for command in (
        [],
        ["sweep"],
        ["segment", "sweep"],
        ["evaluate"],
        ["compare"],
        ["predict"],
        ["data"],
        ["data", "audit"],
    ):
        with pytest.raises(SystemExit) as stop:
            sys.exit(main([*command, "--help"]))
        assert stop.value.code == 0
        output = capsys.readouterr().out
        assert output.startswith(" ".join(["usage:", name, *command]))
        assert ("launch.py" in output) == (name != "melanoma-dist")
    assert main(["data"]) == 2
    assert f"{name} data prepare" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "ours", "chosen"),
    [
        ("OMP_WAIT_POLICY", "PASSIVE", "ACTIVE"),
        ("THP_MEM_ALLOC_ENABLE", "1", "0"),
        ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1", "glibc.malloc.hugetlb=0"),
    ],
)
def test_libraries_leave_cores_to_decoders_and_take_huge_pages_unless_the_user_says_otherwise(
    name: str, ours: str, chosen: str
) -> None:
    show = f"import atexit\natexit.register(lambda: print(os.environ['{name}']))"
    assert launch("--version", before=f"import os\nos.environ.pop('{name}', None)\n{show}").stdout.endswith(
        f"\n{ours}\n"
    )
    assert launch("--version", before=f"import os\nos.environ['{name}'] = '{chosen}'\n{show}").stdout.endswith(
        f"\n{chosen}\n"
    )


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"melanoma-dist {melanoma_dist.__version__}\n"


def help_of(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    with pytest.raises(SystemExit):
        main([*command, "--help"])
    return capsys.readouterr().out


@pytest.mark.parametrize(
    "command",
    ["", "sweep", "segment sweep", "evaluate", "compare", "predict", "data download", "data prepare", "data audit"],
)
def test_help_shows_no_type_of_python(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(capsys, *command.split())
    assert "{None}" not in text
    assert not re.search(r"\w+Config\b", text)
    assert ("--config FILE" in text) == (command in ("", "sweep", "segment sweep"))


@pytest.mark.parametrize(
    ("command", "usage"),
    [
        ("sweep", "--space FILE [OPTIONS]"),
        ("segment sweep", "--space FILE [OPTIONS]"),
        ("data prepare", "--years YEAR [YEAR ...] | --source FILE | --table FILE [OPTIONS]"),
        ("data download", "--years YEAR [YEAR ...] [OPTIONS]"),
    ],
)
def test_the_usage_shows_what_is_required(command: str, usage: str, capsys: pytest.CaptureFixture[str]) -> None:
    first = help_of(capsys, *command.split()).splitlines()[0]
    assert first.endswith(f"{command} [-h] {usage}")


def test_short_flags_and_the_names_of_timm() -> None:
    words = ["-b", "16", "-j", "3", "--model", "densenet201", "--opt", "sgd", "--sched", "cosine"]
    config = tyro.cli(RunConfig, args=words, config=PARSER, registry=TYPES)
    assert (config.input.batch_size, config.hardware.decode_threads) == (16, 3)
    assert (config.model.backbone, config.optimizer.optimizer, config.schedule.schedule) == (
        "densenet201", "sgd", "cosine",
    )  # fmt: skip
    words = ["--run", "x", "--holdout", "h", "-b", "8", "-j", "2"]
    evaluation = tyro.cli(EvaluateConfig, args=words, config=PARSER, registry=TYPES)
    assert (evaluation.batch_size, evaluation.decode_threads) == (8, 2)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_the_flags(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--tyro-write-completion", shell, "-"])
    script = capsys.readouterr().out
    assert "--backbone" in script
    assert "--config" in script


def test_the_command_of_the_readme_trains_on_the_prepared_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    configurations: list[RunConfig] = []
    monkeypatch.setitem(sys.modules, "melanoma_dist.run", SimpleNamespace(train=configurations.append))  # type: ignore[arg-type]
    monkeypatch.setattr("melanoma_dist.distributed.preflight.count_gpus", lambda: 8)
    monkeypatch.delenv("MELANOMA_DIST_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    command = ["--backbone", "inceptionresnetv2", "--gpus", "8"]
    assert main(command) == 2
    assert "--data: is missing" in capsys.readouterr().err
    (tmp_path / "data" / "prepared").mkdir(parents=True)
    assert main(command) == 0
    assert main([*command[:2], "--gpus", "9"]) == 2
    assert [config.data.data for config in configurations] == ["data/prepared"]


def test_a_sweep_tells_everything_that_is_missing_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep"]) == 2
    message = capsys.readouterr().err
    assert "error: --space: name a file" in message
    assert "error: --trials: give the number" in message


def test_several_mistakes_are_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", "/nowhere", "--backbone", "resnet18x", "--gpus", "1000", "--runs", "launch.py"]) == 2
    message = capsys.readouterr().err
    for mistake in (
        "error: --data /nowhere: no such folder",
        "error: --backbone resnet18x",
        "error: --gpus 1000",
        "error: --runs",
    ):
        assert mistake in message


@pytest.mark.parametrize(
    "words",
    [
        "--data demo --backbone densnet201",
        "--data demo --backbone resnetv2_152",
        "--data demo --weights nowhere.safetensors",
        "--data demo --gpus 1000",
        "--data nowhere",
        "--data demo --labels isic2020",
        "--data demo --runs launch.py",
        "sweep --data demo --space nowhere.py --trials 2",
        "sweep --data nowhere --space tune_spaces/head.py --trials 2",
        "segment sweep --data nowhere --space tune_spaces/segmentation.py --trials 2",
        "evaluate nowhere --holdout holdout",
        "compare nowhere elsewhere",
        "predict nowhere nothing.jpg",
        "predict tests README.md --out answers.txt",
        "data prepare --years 2017 --raw nowhere",
        "data audit --data nowhere",
    ],
)
def test_a_mistake_is_told_before_anything_heavy_is_loaded(words: str) -> None:
    done = launch(*words.split())
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads(done.stderr.splitlines()[-1]) == []


@pytest.mark.parametrize(
    "words",
    [
        "--data demo --gpus 0",
        "sweep --data demo --gpus 0 --space tune_spaces/head.py --trials 2",
        "evaluate tests --holdout holdout",
        "compare tests docs",
        "predict tests README.md",
        "data prepare --years 2017 --raw tests",
        "data audit --data tests",
    ],
)
def test_a_command_says_what_it_does_before_anything_heavy_is_loaded(words: str) -> None:
    loaded = set(HEAVY) - {"timm", "nvidia"} | {"nvidia.dali"}  # the two are located, and not imported
    stop = (
        "class Stop:\n    def find_spec(self, name, *_):\n"
        f"        if name in {loaded!r}: sys.exit(99)\n"
        "sys.meta_path.insert(0, Stop())"
    )
    done = launch(*words.split(), before=stop)
    assert done.returncode == 99, done.stderr
    assert done.stdout == "loading libraries ...\n"


@pytest.mark.parametrize("words", ["--help", "--version", "data --help", "sweep --help", "--data nowhere"])
def test_a_closed_pipe_ends_quietly(words: str) -> None:
    """The reader is gone before the program writes, on standard output and standard error."""
    program = f"import sys; from melanoma_dist.cli import main; sys.stdin.read(); sys.exit(main({words.split()!r}))"
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        (process.stderr if words == "--data nowhere" else process.stdout).close()
        process.stdin.close()
        rest = (process.stdout if words == "--data nowhere" else process.stderr).read()
        assert process.wait(60) == 141
    assert rest == b""


def test_a_broken_pipe_of_something_else_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("melanoma_dist.cli._run_command", fail)
    with pytest.raises(BrokenPipeError):
        main([])
