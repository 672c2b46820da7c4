"""Ranks that train one fold together: their number changes in the middle of an epoch, and one of them dies or hangs."""

from __future__ import annotations

import pandas as pd
import pytest

from .conftest import Command
from .outcome import leftovers, repeated_steps

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]
# No batch statistics, which ranks compute on their own shares, and nothing random in a step.
ALIKE = ["--backbone", "test_vit", "--head-norm", "none", "--dropout", "0", "--optimizer", "sgd", "--lr", "1e-2"]


def test_a_fold_resumes_on_other_ranks_and_survives_a_dead_and_a_hanging_one(
    command: Command, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Promises b, c: one rank, two, one again; predictions differ by 1e-4 at most."""
    whole = Command(tmp_path_factory.mktemp("alike"), command.environment)
    assert whole.give(*ALIKE).returncode == 0
    command.plan("train.step:TrainStep.step", 2, do="signal command 15", fold=0)
    assert command.give(*ALIKE).returncode == 75

    two = [*ALIKE, "--ranks-per-unit", "2", "--collective-timeout-s", "15"]
    refused = command.give(*two)
    assert refused.returncode == 2
    assert "cannot be resumed identically on another number of ranks: 1 then, 2 now" in refused.stderr

    command.plan("train.step:TrainStep.step", 2, fold=0, rank=1)
    command.plan("train.step:TrainStep.step", 3, do="hang", fold=0, rank=1)
    command.plan("train.step:TrainStep.step", 4, do="signal command 15", fold=0, rank=0)
    second = command.give(*two, "--allow-resize")
    assert second.returncode == 75, second.stdout + second.stderr
    assert "resumes on another number of ranks: 1 then, 2 now (--allow-resize)" in second.stdout
    assert "of 2 ranks, lost or hanging: 1; no answer within 15 s (--collective-timeout-s)" in second.stdout
    assert "restart 2 of 3 from its last checkpoint" in second.stdout

    done = command.give(*ALIKE, "--allow-resize")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "resumes on another number of ranks: 2 then, 1 now (--allow-resize)" in done.stdout
    tables = [pd.read_parquet(each.run / "predictions.parquet") for each in (command, whole)]
    pd.testing.assert_frame_equal(*tables, check_exact=False, rtol=0, atol=1e-4)
    assert leftovers(command.run) == []
    assert max(repeated_steps(command.trace / "run")) <= 4  # an interval, and the step in which two ranks agree to save
