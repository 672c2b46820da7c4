"""A table of lesions that was cut, exchanged or emptied is refused: images of one lesion would lie in two folds."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from melanoma_dist.cli import main
from melanoma_dist.data.manifest import load_dataset
from melanoma_dist.data.prepare import Request, plan
from melanoma_dist.data.sources.registry import read_collections
from melanoma_dist.errors import DataError

from ..conftest import Raw

GROUPINGS = "2018/ISIC2018_Task3_Training_LesionGroupings.csv"
METADATA = "2019/ISIC_2019_Training_Metadata.csv"
TRUTH_2017 = "2017/ISIC-2017_Test_v2_Part3_GroundTruth.csv"

Change = Callable[[pd.DataFrame], pd.DataFrame]
CUT: Change = lambda table: table.head(len(table) // 2)  # noqa: E731
CHANGES: dict[str, Change] = {
    "cut in half": CUT,
    "of other images": lambda table: table.assign(image="ISIC_09" + table["image"].str[-5:]),
    "blank lesions": lambda table: table.assign(lesion_id=""),
    "one blank lesion": lambda table: table.assign(lesion_id=table["lesion_id"].mask(table.index == 0)),
    "a row with an empty field dropped": lambda table: table.drop(index=1),
}


def change(path: Path, how: Change) -> None:
    how(pd.read_csv(path)).to_csv(path, index=False)


def twins(raw: Raw, year: int) -> None:
    """Eight HAM10000 images of four lesions."""
    for number in range(8):
        add = raw.image_2018 if year == 2018 else raw.image_2019
        add(24306 + number, "MEL" if number < 4 else "NV", lesion=f"HAM_{number // 2}", seed=number)


@pytest.mark.parametrize("how", CHANGES)
@pytest.mark.parametrize(("year", "table"), [(2018, GROUPINGS), (2019, METADATA)])
def test_a_partial_table_of_lesions_is_refused(year: int, table: str, how: str, raw: Raw) -> None:
    twins(raw, year)
    assert read_collections(raw.folder, (str(year),))[0].gaps == ()
    change(raw.folder / table, CHANGES[how])
    with pytest.raises(
        DataError, match=rf"(?s)raw: the tables leave out .*{re.escape(table)}: .* --allow-incomplete-tables"
    ):
        read_collections(raw.folder, (str(year),))


def test_more_labels_than_the_challenge_published_are_refused_by_their_table(raw: Raw) -> None:
    for number in range(151):
        raw.row("2017/ISIC-2017_Validation_Part3_GroundTruth.csv", "image_id,melanoma,seborrheic_keratosis",
                f"ISIC_{number:07d},0.0,0.0")  # fmt: skip
    table = r"2017/ISIC-2017_Validation_Part3_GroundTruth\.csv"
    with pytest.raises(DataError, match=rf"2017: {table}: 151 images, .* the challenge published 150 images"):
        read_collections(raw.folder, ("2017",))


def test_ages_of_half_the_images_are_refused(raw: Raw) -> None:
    for number in range(4):
        raw.image_2017(number)
        raw.row(
            "2017/ISIC-2017_Training_Data_metadata.csv", "image_id,age_approximate,sex", f"ISIC_{number:07d},50,male"
        )
    change(raw.folder / "2017/ISIC-2017_Training_Data_metadata.csv", CUT)
    with pytest.raises(DataError, match=r"says nothing about 2 of the 4 labelled images \(ISIC_0000002, ISIC_0000003"):
        read_collections(raw.folder, ("2017",))


def test_a_partial_table_of_a_year_that_is_not_selected_is_refused_too(raw: Raw) -> None:
    raw.image_2017(1)
    twins(raw, 2019)
    change(raw.folder / METADATA, CUT)
    with pytest.raises(DataError, match=r"2019: .*Metadata.csv: says nothing about 4 of the 8"):
        read_collections(raw.folder, ("2017",))


def test_an_accepted_table_is_repeated_by_the_record_and_the_audit(
    raw: Raw, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    twins(raw, 2018)
    change(raw.folder / GROUPINGS, CUT)
    command = ["data", "prepare", "--raw", str(raw.folder), "--out", str(out), "--years", "2018"]
    assert main(command) == 2
    assert "--allow-incomplete-tables" in capsys.readouterr().err
    assert main([*command, "--allow-incomplete-tables"]) == 0
    gap, unknown = load_dataset(out).incomplete_tables
    assert gap.endswith(f"{GROUPINGS}: says nothing about 4 of the 8 labelled images "
                        "(ISIC_0024310, ISIC_0024311, ISIC_0024312, ...).")  # fmt: skip
    assert unknown.startswith("The lesion of 4 of 8 images is unknown")
    assert json.loads((out / "dataset.json").read_text())["counts"]["lesion_unknown"] == 4
    page = out.parent / "audit.html"
    main(["data", "audit", "--data", str(out), "--labels", "melanoma", "--folds", "2", "--html", str(page)])
    text = " ".join(capsys.readouterr().out.split())
    assert "says nothing about 4 of the 8" in text
    assert unknown in text
    assert unknown in page.read_text()


def test_the_lesion_of_an_image_of_your_own_may_be_unknown(raw: Raw) -> None:
    for number in range(3000):
        raw.tables.setdefault(raw.folder / METADATA, ["image,age_approx,anatom_site_general,lesion_id,sex"]).append(
            f"ISIC_9{number:06d},,,,"
        )
        raw.tables.setdefault(
            raw.folder / "2019/ISIC_2019_Training_GroundTruth.csv", ["image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK"]
        ).append(f"ISIC_9{number:06d},1,0,0,0,0,0,0,0,0")
    raw.image_2019(1)
    assert read_collections(raw.folder, ("2019",))[0].gaps == ()


@pytest.fixture
def real(isic: Path, tmp_path: Path) -> Path:
    """Copies of the real tables, without images."""
    for table in isic.rglob("*.csv"):
        target = tmp_path / "real" / table.relative_to(isic)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(table.read_bytes())
    return tmp_path / "real"


def test_the_real_years_with_the_test_truth_of_2017_have_the_known_counts(real: Path, tmp_path: Path) -> None:
    known = set(pd.read_csv(real / METADATA)["image"].str[:12])
    absent = [f"ISIC_{number:07d}" for number in (15979, 15982, 16001, 16002, 16018)]
    earlier = {name for each in real.glob("2017/*Part3*.csv") for name in pd.read_csv(each)["image_id"]}
    test = [*sorted(name for name in known - earlier if name < "ISIC_0024306")[:595], *absent]
    labels = pd.read_csv(real / "2019/ISIC_2019_Training_GroundTruth.csv").assign(image=lambda t: t["image"].str[:12])
    labels = labels.set_index("image")
    truth = pd.DataFrame({"image_id": test})
    truth["melanoma"] = truth["image_id"].map(labels["MEL"]).fillna(0.0)
    truth["seborrheic_keratosis"] = truth["image_id"].map(labels["BKL"]).fillna(0.0)
    truth.to_csv(real / TRUTH_2017, index=False)
    table = plan(Request(real, ("2017", "2018", "2019"), conflicts="newest"), tmp_path / "plan")
    assert (len(table), table["group"].nunique()) == (25_336, 13_936)
    assert table["split"].eq("2017-test").sum() == 600


@pytest.mark.parametrize(
    ("table", "how"),
    [
        (GROUPINGS, lambda table: table.head(4000)),
        (GROUPINGS, CHANGES["blank lesions"]),
        (METADATA, CUT),
        (METADATA, lambda table: table.dropna()),
        (METADATA, lambda table: table.assign(lesion_id=table["lesion_id"].mask(table["lesion_id"].str[0] == "M"))),
    ],
)
def test_real_tables_that_were_cut_are_refused(table: str, how: Change, real: Path) -> None:
    change(real / table, how)
    with pytest.raises(DataError, match=Path(table).name):
        read_collections(real, (table[:4],))
