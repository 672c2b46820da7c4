"""Age, sex and site as numbers: one table for all collections, one meaning of unknown, and nothing out of range."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from melanoma_dist.data.metadata import metadata_codes, parse_code, require_known
from melanoma_dist.data.tables import VOCABULARY
from melanoma_dist.errors import ConfigError, DataError

FIELDS = ("age", "sex", "site")


def manifest(**columns: object) -> pd.DataFrame:
    known = {"age": [55.0, np.nan], "sex": ["female", None], "site": ["palms/soles", None], **columns}
    return pd.DataFrame({"image_id": ["ISIC_0000001", "ISIC_0000002"], **known})


def test_codes_are_years_and_positions_in_the_one_table_of_words() -> None:
    codes = metadata_codes(manifest(), FIELDS)
    assert codes.dtype == np.float32
    assert codes[0].tolist() == [55.0, 0.0, VOCABULARY["site"].index("palms/soles")]
    assert np.isnan(codes[1]).all()
    assert metadata_codes(manifest(), ("site",)).shape == (2, 1)


@pytest.mark.parametrize(("column", "value"), [("age", 121.0), ("age", -1.0), ("sex", "f"), ("site", "elbow")], ids=str)
def test_a_value_that_no_field_has_is_refused_with_its_image(column: str, value: object) -> None:
    rows = manifest()
    rows[column] = [rows[column][0], value]
    with pytest.raises(DataError, match=f"{column} of ISIC_0000002 is {value}: it must be"):
        metadata_codes(rows, FIELDS)


@pytest.mark.parametrize("text", ["", " ", "unknown", "Unknown", "NA", "nan"])
@pytest.mark.parametrize("field", FIELDS)
def test_unknown_means_the_same_in_every_field(field: str, text: str) -> None:
    assert math.isnan(parse_code(field, text))


def test_typed_values_have_the_codes_of_the_manifest() -> None:
    typed = [parse_code("age", "55"), parse_code("sex", "Female"), parse_code("site", " palms/soles")]
    assert typed == metadata_codes(manifest(), FIELDS)[0].tolist()
    assert parse_code("age", "0") == 0.0


@pytest.mark.parametrize(
    ("field", "text", "rule"),
    [
        ("age", "121", "must be an age of 0 to 120 years, or unknown"),
        ("age", "-1", "must be an age of 0 to 120 years, or unknown"),
        ("age", "inf", "must be an age of 0 to 120 years, or unknown"),
        ("age", "fifty", "must be an age of 0 to 120 years, or unknown"),
        ("sex", "f", "must be one of female, male, or unknown"),
        ("site", "torso", "must be one of head/neck, anterior torso"),
    ],
)
def test_typed_values_out_of_range_are_refused(field: str, text: str, rule: str) -> None:
    with pytest.raises(ConfigError, match=rule):
        parse_code(field, text)


def test_a_field_that_is_unknown_for_every_image_is_refused() -> None:
    require_known(manifest(), FIELDS)
    with pytest.raises(ConfigError, match="knows the site of none of its images"):
        require_known(manifest(site=[None, None]), FIELDS)
