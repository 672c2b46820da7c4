"""The two short ways to a description: flags of `data prepare`, and the proposal of `data describe`."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import reduce
from pathlib import Path

import pytest
import yaml

from melanoma_dist.cli import main
from melanoma_dist.data.manifest import load_dataset
from melanoma_dist.data.sources.described import DescribedSource
from melanoma_dist.data.sources.description import read_description
from melanoma_dist.data.sources.proposal import propose
from melanoma_dist.errors import DataError

from ..conftest import write_table
from .clinic import CLINIC, COLUMNS, clinic, prepared


def test_the_flags_prepare_as_the_file_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clinic(tmp_path)
    words = {key: value for key, value in CLINIC.items() if key not in ("holdouts", "name")} | {"name": "own"}
    words["columns"] = {key: value for key, value in COLUMNS.items() if key != "split"}
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(words, allow_unicode=True))
    table = [
        "--images",
        str(tmp_path / "photos"),
        "--table",
        str(tmp_path / "lesions.csv"),
        "--id",
        "file",
        "--label",
        "dx",
    ]
    labels = ["--map", "mel=MEL", "naevus=NV", "eczema=none", "=unknown", "--lesion", "lesion", "--patient", "patient"]
    assert main(["data", "prepare", *table, *labels, "--out", str(tmp_path / "one")]) == 0
    file = ["--source", str(tmp_path / "my.yaml"), "--raw", str(tmp_path), "--out", str(tmp_path / "two")]
    assert main(["data", "prepare", *file]) == 0
    one, two = (load_dataset(tmp_path / name) for name in ("one", "two"))
    assert one.fingerprint == two.fingerprint
    assert main(["data", "prepare", *file]) == 0
    assert "Nothing to do" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--out x", "name at least one collection: --years 2019, --source my.yaml, or a table"),
        ("--table t.csv", "--table t.csv: needs --images DIR, and --map WORD=LABEL .*`data describe t.csv`"),
        ("--years 2019 --patient p", "--patient: describe a table of your own"),
        ("--table t.csv --images . --map mel", "--map mel: must be WORD=LABEL"),
        ("--source no.yaml --raw .", "--source no.yaml: cannot be read"),
        ("--table t.csv --images . --map a=b", "the flags: labels.a 'b': must be one of MEL"),
    ],
)
def test_a_mistake_in_the_flags_is_told(words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "prepare", *words.split()]) == 2
    assert re.search(message, capsys.readouterr().err.replace("\n", " "))


def describe(path: Path, change: Callable[[str], str]) -> DescribedSource:
    file = path.with_suffix(".yaml")
    file.write_text(change(propose(path)))
    return DescribedSource(read_description(file))


def test_a_proposal_is_accepted_when_its_open_words_are_chosen(tmp_path: Path, out: Path) -> None:
    clinic(tmp_path)
    header = "photo,benign_malignant,diagnosis,lesion,patient_nr,alter,gender,location,split"
    write_table(
        tmp_path / "lesions.csv",
        header,
        "scan 1.JPG,malignant,malignant melanoma,1,A,50,w,back,test",
        "scan 2.v2.png,benign,Spitz naevus,2,A,51,m,head/neck,train",
        "ü-3.jpg,benign,eczema: chronic,3,B,,f,back,train",
        "ü-4.jpeg,,,4,C,,,,train",
    )
    with pytest.raises(DataError, match=r"labels.eczema: chronic 'CHOOSE': must be one of"):
        describe(tmp_path / "lesions.csv", lambda text: text)
    with pytest.raises(DataError, match=r"words.site.back 'CHOOSE': must be one of head/neck, .*Choose what the word"):
        describe(tmp_path / "lesions.csv", lambda text: text.replace('chronic": CHOOSE', 'chronic": none'))
    chosen = {"back: CHOOSE": "back: posterior torso", "CHOOSE": "none"}
    source = describe(
        tmp_path / "lesions.csv", lambda text: reduce(lambda done, each: done.replace(*each), chosen.items(), text)
    )
    assert dict(source.description.columns) == {
        "id": "photo", "label": "diagnosis", "lesion": "lesion", "patient": "patient_nr", "age": "alter",
        "sex": "gender", "site": "location", "split": "split",
    }  # fmt: skip
    images = prepared(tmp_path, out, source).manifest
    assert images["sex"].to_list()[:3] == ["female", "male", "female"]
    assert images["MEL"].sum() == images["NV"].sum() == 1
    assert images["split"].to_list() == ["lesions-test", "excluded: lesion or copy in lesions-test", "train", "train"]


def test_a_proposal_for_columns_of_0_and_1(tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", "image,melanoma,scar,patient", "a,1.0,0.0,p", "b,0.0,1.0,q", "c,0.0,0.0,r")
    source = describe(tmp_path / "t.csv", lambda text: text.replace("CHOOSE", "none"))
    assert source.description.labels == {"melanoma": "MEL", "scar": "none"}
