"""The wheel: built from this checkout, installed into an environment of its own, used outside the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OFFLINE = "--no-index --no-deps --no-build-isolation"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built with the installed hatchling: no network, no isolated environment."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    [path] = out.glob("*.whl")
    return path


def environment_with(home: Path, *package: str) -> Path:
    """A fresh environment with a package that sees the dependencies of the running one, but not its checkout."""
    venv.create(home, with_pip=False)
    [packages] = home.glob("lib/python*/site-packages")
    # A path in a .pth file is searched for modules, but its own .pth files, such as the editable checkout's, are not.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", str(home / "bin" / "python"), "install", "--quiet"]
    done = subprocess.run(
        [*pip, "--ignore-installed", *OFFLINE.split(), *package], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return home


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that holds the wheel."""
    return environment_with(tmp_path_factory.mktemp("installed") / "venv", str(wheel))


def run(home: Path, *command: str) -> str:
    """Run a program of the environment in an empty folder, and return what it prints."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    environment["PATH"] = f"{home / 'bin'}{os.pathsep}{environment['PATH']}"
    elsewhere = home.parent / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    done = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel: Path) -> None:
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "melanoma_dist"],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=60,
    ).stdout.split()  # fmt: skip
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name and ".data/" not in name}
    assert packed == {name for name in names if (ROOT / name).is_file()}
    assert "melanoma_dist/py.typed" in packed


def test_the_installed_command_works_outside_the_checkout_and_uses_its_own_name(installed: Path) -> None:
    text = run(installed, "melanoma-dist", "--help")
    assert "usage: melanoma-dist" in text
    assert "launch.py" not in text


def test_the_installed_package_is_the_wheel_and_offers_load_run(installed: Path) -> None:
    program = "import melanoma_dist; print(melanoma_dist.__file__, callable(melanoma_dist.load_run))"
    file, offers = run(installed, "python", "-c", program).split()
    assert Path(file).is_relative_to(installed)
    assert offers == "True"
    assert (Path(file).parent / "py.typed").is_file()


@pytest.mark.parametrize("folder", ["tune_spaces", "examples"])
def test_search_spaces_and_examples_are_installed_where_the_docs_say(installed: Path, folder: str) -> None:
    locate = 'echo "$(python -c \'import sysconfig; print(sysconfig.get_path("data"))\')/share/melanoma-dist"'
    assert locate.removeprefix("echo ") in (ROOT / "docs" / "getting-started.md").read_text()
    shared = Path(run(installed, "bash", "-c", locate).strip())
    expected = {path.name: path.read_bytes() for path in (ROOT / folder).iterdir() if path.is_file()}
    assert {path.name: path.read_bytes() for path in (shared / folder).iterdir() if path.is_file()} == expected


def test_a_checkout_is_installed_without_a_network_as_the_docs_say(tmp_path: Path) -> None:
    assert f"install {OFFLINE} --editable ." in (ROOT / "docs" / "air-gapped.md").read_text()
    home = environment_with(tmp_path / "venv", "--editable", ".")
    assert run(home, "python", "-c", "import melanoma_dist; print(melanoma_dist.__file__)").startswith(str(ROOT))
