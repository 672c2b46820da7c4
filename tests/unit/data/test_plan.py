"""``data prepare --manifest-only`` on the challenges' real tables."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from melanoma_dist.cli import main
from melanoma_dist.data.groups import TRAIN
from melanoma_dist.data.manifest import load_dataset
from melanoma_dist.data.prepare import Request, plan, prepare
from melanoma_dist.errors import DataError

from .conftest import Raw, write_table

TEST_2017 = "2017/ISIC-2017_Test_v2_Part3_GroundTruth.csv"


@pytest.fixture
def tables(isic: Path, tmp_path: Path) -> Path:
    """The real tables of the three years, without images."""
    raw = tmp_path / "raw"
    for table in isic.rglob("*.csv"):
        target = raw / table.relative_to(isic)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(table)
    return raw


@pytest.fixture(scope="module")
def whole(isic: Path, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The plan of 2019, with training and validation sets of 2017 and 2018 on the disk."""
    folder = tmp_path_factory.mktemp("whole")
    return plan(Request(isic, ("2019",)), folder)


def counts(table: pd.DataFrame, years: str) -> int:
    return int(table["years"].eq(years).sum())


def test_the_plan_of_2019_has_the_published_counts(whole: pd.DataFrame) -> None:
    assert len(whole) == 25331
    classes = {"MEL": 4522, "NV": 12875, "BCC": 3323, "AK": 867, "BKL": 2624, "DF": 239, "VASC": 253, "SCC": 628}
    assert whole[list(classes)].sum().astype(int).to_dict() == classes
    named = whole["lesion_id"].dropna()
    assert (named.nunique(), len(named)) == (11847, 23247)
    assert whole["group"].nunique() == 11847 + 25331 - 23247
    assert whole.groupby("lesion_id")["group"].nunique().max() == 1


def test_the_earlier_years_add_no_image(tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = plan(Request(tables, ("2017", "2018", "2019")), tmp_path / "plan")
    output = capsys.readouterr().out
    assert "2074 ids carry the suffix _downsampled" in output
    assert "595 of the 600 test images of 2017" in output
    assert not table["on_disk"].any()
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "plan/plan.parquet"), table, check_dtype=False)
    assert len(table) == 25331
    excerpt = len(pd.read_csv(next(tables.glob("2018/**/*Training_GroundTruth.csv"))))
    assert (counts(table, "2017+2019"), counts(table, "2018+2019")) == (2150, excerpt)
    assert table["split"].eq("2017-validation").sum() == 150
    reached = table.loc[table["split"].str.startswith("excluded"), "group"]
    # Two lesions of 2017's training set are in its validation set too, by the lesion ids of 2019.
    assert reached.nunique() == 2


def test_the_test_set_of_2017_takes_its_595_images_and_their_lesions_out_of_2019(
    whole: pd.DataFrame, tables: Path, tmp_path: Path
) -> None:
    """The real table is missing here: 595 images of the same origin stand for it, and five that are not in 2019."""
    whole = whole.set_index("image_id")
    msk = whole[(whole.index < "ISIC_0024306") & (whole["years"] == "2019") & (whole["listed"] == "2019-train")]
    chosen = [*msk.index[:595], *(f"ISIC_{number:07d}" for number in (15979, 15982, 16001, 16002, 16018))]
    header = "image_id,melanoma,seborrheic_keratosis"
    truth = [f"{name},{whole['MEL'].get(name, 0.0)},0.0" for name in chosen]
    write_table(tables / TEST_2017, header, *truth)
    table = plan(Request(tables, ("2019",)), tmp_path / "plan").set_index("image_id")
    assert len(table) == 25331
    assert set(table.index[table["split"] == "2017-test"]) == set(chosen[:595])
    lesions = whole.loc[chosen[:595], "lesion_id"].dropna()
    pool = table[table["split"] == TRAIN]
    assert not pool["lesion_id"].isin(lesions).any()
    others = whole["lesion_id"].isin(lesions) & ~whole.index.isin(chosen) & (whole["split"] == TRAIN)
    assert (table.loc[others[others].index, "split"] == "excluded: lesion or copy in 2017-test").all()
    assert len(pool) == whole["split"].eq(TRAIN).sum() - 595 - others.sum()


def test_a_plan_is_not_a_data_set_and_is_replaced_by_one(raw: Raw, tmp_path: Path) -> None:
    raw.image_2019(1)
    out = tmp_path / "out"
    plan(Request(raw.folder, ("2019",)), out)
    with pytest.raises(DataError, match=r"holds a plan.*without --manifest-only"):
        load_dataset(out)
    assert len(prepare(Request(raw.folder, ("2019",)), out).manifest) == 1
    assert not (out / "plan.parquet").exists()
    with pytest.raises(DataError, match="holds a prepared data set"):
        plan(Request(raw.folder, ("2019",)), out)


def test_the_command_applies_its_flags(raw: Raw, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(40):
        raw.image_2019(number, "MEL" if number % 2 else "NV", lesion=f"L{number}")
    raw.image_2017(0, "MEL")
    command = ["data", "prepare", "--raw", str(raw.folder), "--years", "2017", "2019", "--manifest-only"]
    assert main([*command, "--out", str(tmp_path / "a")]) == 2
    assert "ISIC_0000000: 2017 says MEL, 2019 says NV" in capsys.readouterr().err
    more = ["--conflicts", "newest", "--holdout", "0.2", "--seed", "3"]
    assert main([*command, "--out", str(tmp_path / "a"), *more]) == 0
    table = pd.read_parquet(tmp_path / "a/plan.parquet")
    assert table["split"].value_counts().to_dict() == {"train": 32, "holdout": 8}
    assert table.loc[0, "NV"] == 1
