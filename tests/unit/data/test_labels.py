from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest

from melanoma_dist.config.label_sets import label_name, label_set
from melanoma_dist.data.labels import (
    LABEL_COLUMNS,
    LABEL_SETS,
    check_label_set,
    has_two_diagnoses,
    label_columns,
    label_counts,
    supported_label_sets,
    targets,
)
from melanoma_dist.errors import ConfigError, DataError


def table(**columns: list[float]) -> pd.DataFrame:
    rows = len(next(iter(columns.values())))
    return pd.DataFrame({name: columns.get(name, [0.0] * rows) for name in LABEL_COLUMNS}, dtype="float32")


def test_targets_are_ones_zeros_and_nan_in_the_order_of_the_labels() -> None:
    values = targets(table(MEL=[1, 0], AK=[np.nan, 0]), ("AK", "MEL"))
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, [[np.nan, 1], [0, 0]])


def test_counts_distinguish_unknown_and_negative() -> None:
    counts = label_counts(table(AK=[np.nan, 0, 1]))
    assert counts.loc["AK"].to_dict() == {"positive": 1, "negative": 1, "unknown": 1}


def test_an_unlearnable_set_names_the_missing_labels_and_the_supported_sets() -> None:
    manifest = table(MEL=[1, 0, 0], BKL=[0, 1, 0], NV=[0, 0, 1])
    supported = [name for name, labels in LABEL_SETS.items() if set(labels) <= {"MEL", "BKL", "NV"}]
    assert supported_label_sets(manifest) == supported
    check_label_set(manifest, "isic2017")
    with pytest.raises(DataError) as caught:
        check_label_set(manifest, "isic2018")
    assert "BCC 0 yes / 3 no; AKIEC 0 yes / 3 no" in str(caught.value)
    assert f"supports: {', '.join(supported)}, MEL,NV,BKL. Choose" in str(caught.value)  # no named set has all three


def test_a_label_without_negatives_is_refused() -> None:
    with pytest.raises(DataError, match=r"MEL 2 yes / 0 no.*supports: none"):
        check_label_set(table(MEL=[1, 1, np.nan]), "melanoma")


def test_a_set_without_melanoma_needs_a_headline() -> None:
    manifest = table(AK=[1, 0], SCC=[0, 1])
    message = r"--headline: the labels AK, SCC have no MEL.* Type --headline AK or --headline SCC"
    with pytest.raises(ConfigError, match=message):
        check_label_set(manifest, "AK,SCC")
    check_label_set(manifest, "AK,SCC", "SCC")


@pytest.mark.parametrize(
    ("name", "headline", "expected"),
    [("isic2019", None, "MEL"), ("NV,MEL", None, "MEL"), ("SCC", None, "SCC"), ("isic2018", "BCC", "BCC")],
)
def test_melanoma_or_the_only_label_leads_unless_another_is_named(
    name: str, headline: str | None, expected: str
) -> None:
    labels = label_set(name, headline)
    assert labels.headline == expected
    assert labels[labels.headline_column] == expected
    copy = pickle.loads(pickle.dumps(labels))  # noqa: S301  # as ranks receive it
    assert (copy, copy.headline) == (labels, expected)


def test_a_headline_is_one_of_the_labels() -> None:
    message = r"--headline SC: must be one of the labels BCC, SCC, OTHER\. Nearest: SCC"
    with pytest.raises(ConfigError, match=message):
        label_set("BCC,SCC,OTHER", "SC")
    with pytest.raises(ConfigError, match=r"--headline NV: must be one of the labels MEL\. Choose one"):
        label_set("MEL", "NV")


def test_labels_within_a_sentence_are_words() -> None:
    assert [label_name(label) for label in ("MEL", "NV", "ECZEMA")] == ["melanoma", "melanocytic nevus", "ECZEMA"]


def test_an_unknown_set_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"--labels isic2091.*isic2019"):
        check_label_set(table(MEL=[1, 0]), "isic2091")


def test_every_set_consists_of_label_columns() -> None:
    assert {label for labels in LABEL_SETS.values() for label in labels} <= set(LABEL_COLUMNS)


def test_a_list_of_labels_is_a_set_in_its_order() -> None:
    assert label_set("NV,MEL,OTHER_2") == ("NV", "MEL", "OTHER_2")
    assert label_set("isic2017") == LABEL_SETS["isic2017"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("MEL,MEL", "names a label twice. Remove one"),
        ("MEL,nevus", "must be one of isic2019, .* or labels in capitals such as MEL,NV"),
        ("", "must be one of isic2019"),
    ],
)
def test_a_wrong_list_of_labels_is_refused(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"--labels {name}: {message}"):
        label_set(name)


def test_a_further_label_counts_where_a_data_set_has_it() -> None:
    manifest = table(MEL=[1, 0, 0]).assign(OTHER=[0.0, 1.0, np.nan])
    assert label_columns(manifest) == (*LABEL_COLUMNS, "OTHER")
    assert label_counts(manifest).loc["OTHER"].to_dict() == {"positive": 1, "negative": 1, "unknown": 1}
    check_label_set(manifest, "MEL,OTHER")
    assert np.isnan(targets(manifest.drop(columns="OTHER"), ("OTHER",))).all()
    with pytest.raises(DataError, match=r"--labels MEL,SCAR: SCAR: this data set has no such label\. Its labels: MEL"):
        check_label_set(manifest, "MEL,SCAR")
    assert has_two_diagnoses(manifest.assign(OTHER=1.0)).tolist() == [True, False, False]
