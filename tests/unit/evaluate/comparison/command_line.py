"""Run the command as a user does, and return its output."""

from __future__ import annotations

import re

import pytest

from melanoma_dist.cli import main


def run_compare(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    try:
        code = main(["compare", *map(str, arguments)])
    except SystemExit as stop:  # from the parser
        code = int(str(stop.code))
    captured = capfd.readouterr()
    return code, re.sub(r"[│\s]+", " ", captured.out + captured.err)


def refused(capfd: pytest.CaptureFixture[str], *arguments: object) -> str:
    code, text = run_compare(capfd, *arguments)
    assert code == 2, text
    assert "Traceback" not in text
    return text
