"""Facts that predict the diagnosis without an image: found for a model of the image alone, and told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from melanoma_dist.evaluate.metadata import shortcuts_in_images
from melanoma_dist.evaluate.report.metadata import metadata_notes, metadata_part
from melanoma_dist.metrics.intervals import Interval

IMAGES = 600


def images(shares: tuple[float, float]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Out-of-fold truth and the manifest of two clinics, of whose images these shares show a melanoma."""
    rng = np.random.default_rng(0)
    second = np.arange(IMAGES) % 2
    ids = [f"image-{number}" for number in range(IMAGES)]
    truth = (rng.random(IMAGES) < np.array(shares)[second]).astype(np.float32)
    table = pd.DataFrame({"image_id": ids, "group": ids, "fold": np.arange(IMAGES) // 2 % 3, "MEL_true": truth})
    about = pd.DataFrame(
        {
            "lesion_id": pd.Series([None] * IMAGES, dtype="str").to_numpy(),
            "years": np.where(second, "north", "south"),
            "site": np.where(np.arange(IMAGES) % 3 == 0, None, "lower extremity"),
        },
        index=pd.Index(ids, name="image_id"),
    )
    return table, about


def test_a_source_with_more_melanomas_is_told() -> None:
    table, about = images((0.5, 0.1))
    use = shortcuts_in_images(table, about, "MEL")
    assert use is not None
    by_facts = {each.facts: each for each in use.shortcuts}
    assert list(by_facts) == ["site", "source"]
    auc = by_facts["source"].auc
    assert isinstance(auc, Interval)
    assert auc.estimate == pytest.approx(roc_auc_score(table["MEL_true"], about["years"] == "south"), abs=0.01)
    assert by_facts["source"].warns
    assert not by_facts["site"].warns
    [note] = metadata_notes(use)
    assert note.startswith(f"Facts predict melanoma without any image, AUC: source ({auc.estimate:.3f}). A model may")
    part = metadata_part(use)
    assert part is not None
    assert (part.title, part.warning, len(part.tables)) == ("Shortcuts", note, 1)


def test_sources_of_one_mix_are_not_told_and_one_source_is_no_fact() -> None:
    table, about = images((0.2, 0.2))
    use = shortcuts_in_images(table, about, "MEL")
    assert use is not None
    assert metadata_notes(use) == []
    assert metadata_notes(replace(use, shortcuts=())) == []
    assert shortcuts_in_images(table, about.assign(years="south", site=None), "MEL") is None
