"""Where a report says that images come from."""

from __future__ import annotations

from dataclasses import replace

from melanoma_dist.artifacts.summary import RunSummary
from melanoma_dist.evaluate.report import provenance

from .conftest import ReportedRun


def of(summary: RunSummary, *names: str, **terms: str) -> RunSummary:
    return replace(summary, data=replace(summary.data, years=names, terms=terms))


def test_images_of_a_clinic_are_not_called_those_of_a_challenge(reported: ReportedRun) -> None:
    own = of(reported.summary, "clinic")
    assert provenance.sources(own) == "clinic (licence not stated)"
    statements = [provenance.sources(own), provenance.ground_truth(own), provenance.deidentified(own)]
    assert not any("challenge" in text or "ISIC" in text for text in [*statements, *provenance.limits(own)])
    mixed = of(reported.summary, "2019", "clinic", clinic="licence CC BY 4.0; cite Doe 2024")
    assert provenance.sources(mixed) == "the ISIC challenges of 2019; clinic (licence CC BY 4.0; cite Doe 2024)"
    assert len([*provenance.limits(mixed)]) == 2


def test_drawn_images_are_told_as_such(reported: ReportedRun) -> None:
    drawn = replace(of(reported.summary, "demo"), synthetic=True)
    assert provenance.sources(drawn) == "synthetic images drawn by the program"
    assert [*provenance.limits(drawn)] == []
