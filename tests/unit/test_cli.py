"""launch.py and the installed melanoma-dist are one program, under the name it was called by."""

from __future__ import annotations

import sys

import pytest

from melanoma_dist.cli import main


@pytest.mark.parametrize(
    ("called", "name"), [("/opt/env/bin/melanoma-dist", "melanoma-dist"), ("launch.py", "python launch.py")]
)
def test_help_and_messages_name_the_program_as_it_was_called(
    called: str, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [called])
    other = "launch.py" if name == "melanoma-dist" else "melanoma-dist"
    for command in ([], ["sweep"], ["evaluate"], ["compare"], ["data", "audit"]):
        with pytest.raises(SystemExit):
            main([*command, "--help"])
        output = capsys.readouterr().out
        assert output.startswith(" ".join(["usage:", name, *command]))
        assert other not in output
    assert main(["data"]) == 2
    assert f"`{name} data prepare --help`" in capsys.readouterr().err
