"""A source is one file: ids, holdouts and patients of another collection come through preparation, audit and folds."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from melanoma_dist.data.audit.checks import manifest_checks
from melanoma_dist.data.folds import make_folds
from melanoma_dist.data.groups import PATIENT
from melanoma_dist.data.labels import LABEL_COLUMNS, LABEL_SETS
from melanoma_dist.data.manifest import JOINS, fingerprint, load_dataset, read_side_table
from melanoma_dist.data.schema import is_image_id
from melanoma_dist.data.sources.registry import SOURCES, read_collections
from melanoma_dist.data.sources.source import RECORD_COLUMNS, Collection, check_collection
from melanoma_dist.errors import DataError

from ..conftest import Raw

ADDED = Path(__file__).parent / "added"
PROGRAM = """
import sys
import melanoma_dist.data.sources
melanoma_dist.data.sources.__path__.append(sys.argv[1])
from melanoma_dist.cli import main
raw, out, page = sys.argv[2:]
code = main(["data", "prepare", "--raw", raw, "--out", out, "--years", "2019", "clinic"])
sys.exit(code or main(["data", "audit", "--data", out, "--labels", "melanoma", "--folds", "3", "--html", page]))
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty patients with two lesions of two photographs each, one of them also in the test split; and 2019."""
    place = tmp_path_factory.mktemp("clinic")
    raw = Raw(place / "raw")
    for number in range(6):
        raw.image_2019(number, "MEL" if number % 2 else "NV", lesion=f"L{number}")
    for number in range(80):
        lesion, patient = number // 2, number // 4
        name = f"test-é_{number}" if number == 0 else f"p{patient}(l{lesion})#{number}"
        labels = "1.0,0.0" if patient % 2 else "0.0,1.0"
        raw.row("clinic/labels.csv", "photo,melanoma,nevus", f"{name},{labels}")
        raw.row("clinic/patients.csv", "photo,lesion,patient", f"{name},C{lesion},P{patient}")
        raw._image(f"clinic/photos/{name}.jpg", 1000 + number, {})
    command = [sys.executable, "-c", PROGRAM, ADDED, raw.folder, place / "data", place / "audit.html"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "clinic: photographs of one camera." in done.stdout
    assert re.search(r"no patient lies in two groups\W+passed", done.stdout)
    return place / "data"


def test_two_images_of_a_patient_never_lie_in_two_folds(prepared: Path) -> None:
    images = load_dataset(prepared).manifest
    assert images["patient_id"].nunique() == 20
    assert images["patient_id"].isna().sum() == 6  # 2019 does not name patients
    assert images.dropna(subset="patient_id").groupby("patient_id")["group"].nunique().eq(1).all()
    folds = make_folds(images, LABEL_SETS["melanoma"], 3, 0).merge(
        images[["image_id", "patient_id", "lesion_id"]], on="image_id"
    )
    assert folds.groupby("patient_id")["fold"].nunique().eq(1).all()
    assert folds.groupby("patient_id")["lesion_id"].nunique().max() == 2


def test_a_holdout_takes_the_other_images_of_its_patients_out_of_the_folds(prepared: Path) -> None:
    images = load_dataset(prepared).manifest
    splits = images[images["patient_id"] == "P0"].set_index("image_id")["split"]
    assert splits.pop("test-é_0") == "clinic-test"
    assert set(splits) == {"excluded: lesion or copy in clinic-test"}
    assert set(images.loc[images["patient_id"] != "P0", "split"]) == {"train"}


def test_the_audit_refuses_a_patient_in_two_groups(prepared: Path) -> None:
    dataset = load_dataset(prepared)
    joins = read_side_table(dataset, JOINS)
    assert (joins["reason"] == PATIENT).sum() == 60
    images = dataset.manifest.copy()
    assert all(check.passed for check in manifest_checks(images, joins))
    row = images.index[images["patient_id"] == "P1"][0]
    other = images.loc[images["patient_id"] == "P2", "patient_id"].iloc[0]
    images.loc[row, "patient_id"] = other
    failed = [check for check in manifest_checks(images, joins) if not check.passed]
    assert [check.name for check in failed] == ["no patient lies in two groups"]
    assert "1 in two groups: P2 (" in failed[0].failures[0]


def test_patients_are_part_of_the_fingerprint_only_where_they_are_known(prepared: Path, raw: Raw) -> None:
    images = load_dataset(prepared).manifest
    assert fingerprint(images, 512) != fingerprint(images.drop(columns="patient_id"), 512)
    raw.image_2019(1, lesion="L1")
    assert read_collections(raw.folder, ("2019",))[0].records["patient_id"].isna().all()


def collection(**changes: object) -> Collection:
    """A right collection of 2019 with some columns changed."""
    records = pd.DataFrame({"image_id": ["a", "b"], "split": "train"}).reindex(columns=list(RECORD_COLUMNS))
    records[list(LABEL_COLUMNS)] = 0.0
    return Collection("2019", records.assign(**changes), {}, {})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_id": ["a", "b/c"]}, "an image id must be printable text of at most 91 bytes .* such as 'b/c'"),
        ({"image_id": ["a", "a"]}, "an image id must be unique"),
        (
            {"split": ["train", "validation"]},
            "a split must be one of 2019-test, train; 1 are not",
        ),
        ({"MEL": [0.0, 0.5]}, "labels must be 0, 1 or unknown; 1 are not, such as 'b'"),
        ({"MEL": [0.0, 1.0], "NV": 1.0}, "an image must have at most one diagnosis; 1 are not, such as 'b'"),
        ({"SCC": [0.0, 1.0]}, "AKIEC must be 1 where AK or SCC is 1, and 0 where both are 0; 1 are not, such as 'b'"),
        ({"AKIEC": [1.0, 0.0]}, "AKIEC must be .*; 1 are not, such as 'a'"),
        ({"age": "old"}, "an age must be 0 to 120, or blank; 2 are not"),
        ({"age": [-5.0, 40.0]}, "an age must be 0 to 120, or blank; 1 are not, such as 'a'"),
        ({"sex": "F"}, "sex must be female, male, or blank; 2 are not"),
        ({"site": ["arm", None]}, "site must be head/neck, .*, or blank; 1 are not, such as 'a'"),
    ],
)
def test_a_source_that_breaks_the_contract_is_named_with_the_rule(changes: dict[str, object], message: str) -> None:
    check_collection(SOURCES["2019"], collection())
    with pytest.raises(DataError, match=f"collection 2019: {message}"):
        check_collection(SOURCES["2019"], collection(**changes))
    incomplete = replace(collection(), records=collection().records.drop(columns="age"))
    with pytest.raises(DataError, match="its records miss the columns age"):
        check_collection(SOURCES["2019"], incomplete)


@pytest.mark.parametrize("text", ["ISIC_0000001", "PAT_8_15_820", "é-1", "a" * 91, "x(1)#2", "a b", "a.v2"])
def test_an_image_id_is_any_printable_text(text: str) -> None:
    assert is_image_id(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        " a",
        ".a",
        "a.",
        "a." * 40 + "a",
        "a\n",
        "a\u2003b",
        "a/b",
        "a\\b",
        "..",
        "a\0",
        "\x1b[2J",
        "\u202ea",
        "\ud800",
        "a" * 92,
        7,
    ],
)
def test_separators_outer_blanks_control_characters_and_long_texts_are_no_image_id(text: object) -> None:
    assert not is_image_id(text)
