"""The examples of the documentation run: Python blocks, the script for one's own images, and everything on the demo."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from melanoma_dist.data.lesion import draw_lesion, photograph
from melanoma_dist.data.manifest import load_dataset

from .pages import PAGES, ROOT, Block, Command, blocks, commands

Launch = Callable[..., subprocess.CompletedProcess[str]]
PYTHON = [block for page in PAGES for block in blocks(page) if block.language == "python"]


def block_with(page: str, words: str) -> str:
    [text] = [block.text for block in PYTHON if block.page == page and words in block.text]
    return text


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: f"{block.page}: {block.text.splitlines()[0]}")
def test_a_documented_python_block_is_valid(block: Block) -> None:
    compile(block.text, block.page, "exec")


def test_the_script_for_ones_own_images_makes_a_folder_that_is_prepared(
    tmp_path: Path, launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rng, kinds = np.random.default_rng(0), ["MEL", "NV", "BKL", "scar"]
    with open("mine.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "diagnosis", "patient", "age", "sex", "site"])
        for number, kind in enumerate(kinds * 3):
            picture = draw_lesion(rng, kind if kind != "scar" else "DF")
            Image.fromarray(photograph(rng, picture)).save(f"{number}.JPG", format="JPEG")
            table.writerow([f"{number}.JPG", kind, f"patient-{number // 2}", 50, "female", "head/neck"])
    exec(block_with("docs/own-data.md", "mine.csv"), {})  # noqa: S102  # the documented script
    done = launch("data", "prepare", "--raw", "RAW", "--out", tmp_path / "DATA", "--years", "2019")
    assert done.returncode == 0, done.stdout + done.stderr
    manifest = load_dataset(tmp_path / "DATA").manifest
    assert manifest["MEL"].sum() == manifest["NV"].sum() == manifest["BKL"].sum() == 3
    assert len(manifest) == 12
    assert manifest.groupby("lesion_id")["group"].nunique().max() == 1
    assert manifest["lesion_id"].nunique() == 6


def test_the_documented_data_source_is_found_and_prepared(tmp_path: Path) -> None:
    (tmp_path / "added").mkdir()
    (tmp_path / "added" / "clinic.py").write_text(block_with("docs/extending.md", "SOURCE"))
    photographs = tmp_path / "RAW" / "clinic" / "photos"
    photographs.mkdir(parents=True)
    rng, rows = np.random.default_rng(0), ["photo,diagnosis,lesion,patient,age,sex,site"]
    for number in range(8):
        kind = "MEL" if number % 2 else "NV"
        Image.fromarray(photograph(rng, draw_lesion(rng, kind))).save(photographs / f"photo-{number}.png")
        rows.append(f"photo-{number},{kind},L{number},P{number // 4},,female,")
    (photographs.parent / "lesions.csv").write_text("\n".join(rows) + "\n")
    program = (
        "import sys, melanoma_dist.data.sources as sources; sources.__path__.append('added');"
        "from melanoma_dist.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    prepare = ["data", "prepare", "--raw", "RAW", "--out", "DATA", "--years", "clinic"]
    done = subprocess.run(
        [sys.executable, "-c", program, *prepare], cwd=tmp_path, capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    manifest = load_dataset(tmp_path / "DATA").manifest
    assert list(manifest["image_id"]) == [f"photo-{number}" for number in range(8)]
    assert manifest["MEL"].sum() == manifest["NV"].sum() == 4
    assert manifest.groupby("patient_id")["group"].nunique().max() == 1


def runs_on_the_demo(command: Command) -> bool:
    """Whether a command needs nothing but the demo data, or the demo runs of the commands before it."""
    words = command.words
    return (
        "--help" not in words
        and bool({"demo", "runs/second", "2019-test", "photograph.jpg"} & set(words))
        and "make" not in words
    )


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_every_documented_command_on_the_demo_succeeds(tmp_path: Path, environment: dict[str, str]) -> None:
    for name in ("launch.py", "melanoma_dist", "examples", "tune_spaces"):
        (tmp_path / name).symlink_to(ROOT / name)
    Image.fromarray(photograph(np.random.default_rng(0), draw_lesion(np.random.default_rng(1), "NV"))).save(
        tmp_path / "photograph.jpg"
    )

    def run(*words: str) -> None:
        path = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
        done = subprocess.run(
            words, cwd=tmp_path, env={**environment, "PATH": path}, capture_output=True, text=True, timeout=1800
        )
        assert done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}"

    documented = [command for command in commands() if runs_on_the_demo(command)]
    assert {command.page for command in documented} >= {
        "docs/getting-started.md",
        "docs/sweeps.md",
        "docs/comparison.md",
    }
    for words in dict.fromkeys(command.words for command in documented):
        run(*words)
    for page in ("docs/getting-started.md", "docs/application.md"):
        run("python", "-c", block_with(page, "load_run"))
    run("python", "-c", "\n".join(block.text for block in PYTHON if block.page == "docs/api.md"))
    run("bash", "-c", "test -f runs/first/report.html -a -f runs/heads/leaderboard.csv -a -f demo-audit.html")
