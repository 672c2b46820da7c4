"""The licence of exported weights follows from the training images and the weights at the start."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import melanoma_dist
from melanoma_dist.app.export.licence import model_licence


@pytest.mark.parametrize(
    ("years", "weights", "identifier", "sentence"),
    [
        (("2017",), "none", "cc0-1.0", "- 2017: CC0 1.0 Universal"),
        (("2017",), "imagenet", "other", "They began with published ImageNet weights of timm"),
        ((), "none", "cc0-1.0", "images that melanoma-dist drew: free to use"),
        ((), "lite0.pt", "other", "They began with weights from a file"),
        (("2017", "2019"), "imagenet", "cc-by-nc-4.0", "They began with published ImageNet weights of timm"),
        (("2019", "clinic"), "lite0.pt", "other", "- clinic: licence unknown: ask its owner"),
        (("2019", "hospital"), "none", "other", "- hospital: licence CC BY 4.0; cite Doe 2025"),
    ],
)
def test_the_licence_is_that_of_the_strictest_images(
    years: tuple[str, ...], weights: str, identifier: str, sentence: str, finished: Path
) -> None:
    trained = melanoma_dist.load_run(finished)
    data = replace(trained.summary.data, years=years, terms={"hospital": "licence CC BY 4.0; cite Doe 2025"})
    summary = replace(trained.summary, synthetic=not years, data=data)
    config = replace(trained.config, model=replace(trained.config.model, weights=weights))
    licence = model_licence(replace(trained, summary=summary, config=config))
    assert licence.identifier == identifier
    assert (licence.short == "unknown") == ("clinic" in years)
    assert sentence in licence.text
    assert "Not a medical device" in licence.text
    assert "lite0.pt" not in licence.text  # a name of the machine's
