from __future__ import annotations

import numpy as np
import pandas as pd

from melanoma_dist.artifacts.predictions import predictions_table
from melanoma_dist.metrics.lesions import by_lesion, lesions_of

LABELS = ("MEL", "BKL")
nan = np.nan
IMAGES = pd.DataFrame({"image_id": ["e", "a", "b", "c", "d"], "group": ["two", "one", "one", "one", "two"]})
PROBABILITY = np.array([[0.1, 0.3], [0.2, 0.1], [0.4, 0.1], [0.9, 0.1], [0.1, 0.5]], dtype=np.float32)
TRUTH = np.array([[0, 1], [1, nan], [nan, nan], [1, nan], [0, 0]], dtype=np.float32)


def test_a_lesion_has_the_mean_of_its_images_and_what_they_agree_on() -> None:
    table = predictions_table(IMAGES, 2, LABELS, PROBABILITY, TRUTH)
    lesions, contradictory = by_lesion(table, LABELS)
    assert lesions["group"].tolist() == ["one", "two"]
    assert lesions["image_id"].tolist() == ["a", "d"]
    assert lesions["fold"].tolist() == [2, 2]
    np.testing.assert_allclose(lesions[["MEL", "BKL"]], [[0.5, 0.1], [0.1, 0.4]], rtol=1e-6)
    np.testing.assert_array_equal(lesions[["MEL_true", "BKL_true"]], [[1, nan], [0, nan]])
    assert contradictory == 1


def test_lesions_of_one_image_are_their_images() -> None:
    images = IMAGES.assign(group=IMAGES["image_id"])
    table = predictions_table(images, 0, LABELS, PROBABILITY, TRUTH)
    lesions, contradictory = by_lesion(table, LABELS)
    expected = table.sort_values("group", ignore_index=True)
    pd.testing.assert_frame_equal(lesions[expected.columns], expected)
    assert contradictory == 0


def test_a_patient_of_two_lesions_is_two_rows_of_one_group() -> None:
    about = IMAGES.assign(patient_id=IMAGES["group"], lesion_id=["x", "y", "y", None, "x"])
    lesions = lesions_of(about).set_axis(about["image_id"])
    table = predictions_table(IMAGES, 2, LABELS, PROBABILITY, TRUTH)
    rows, contradictory = by_lesion(table, LABELS, lesions)
    assert rows["image_id"].tolist() == ["c", "a", "d"]
    assert rows["group"].tolist() == ["one", "one", "two"]
    np.testing.assert_allclose(rows["MEL"], [0.9, 0.3, 0.1], rtol=1e-6)
    assert contradictory == 1
    assert lesions_of(IMAGES).tolist() == IMAGES["group"].tolist()
