"""The command as a user gives it, and what it says."""

from __future__ import annotations

import re

import pytest

from melanoma_dist.cli import main


def told(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    try:
        code = main(["compare", *map(str, arguments)])
    except SystemExit as stop:  # the parser's way
        code = int(str(stop.code))
    captured = capfd.readouterr()
    return code, re.sub(r"[│\s]+", " ", captured.out + captured.err)


def refused(capfd: pytest.CaptureFixture[str], *arguments: object) -> str:
    code, text = told(capfd, *arguments)
    assert code == 2, text
    assert "Traceback" not in text
    return text
