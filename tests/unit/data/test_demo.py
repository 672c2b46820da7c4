from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from melanoma_dist.data import demo
from melanoma_dist.data.demo import demo_dataset
from melanoma_dist.data.labels import DIAGNOSES, check_label_set
from melanoma_dist.data.manifest import load_dataset
from melanoma_dist.errors import DataError

TRAINING_SETS = {  # NumPy's cosine and exponential differ in the last bits, and with them a few pixels
    "b74408b114e6ee6bc2409e05f3b74a0d6a7c446f92b697fb257e050995af1ee4": "processors with AVX-512",
    "f78cc97502a16c2abe4acd6874f6547536bf4d9be157526f3eb96f1d562852ec": "those with AVX2 alone",
}
"""The training set did not change when the holdout came: neither its bytes nor its groups."""


def content(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "_LESIONS", dict.fromkeys(DIAGNOSES, 3))
    monkeypatch.setattr(demo, "_TEST_LESIONS", dict.fromkeys(DIAGNOSES, 1))


def test_the_demo_is_a_complete_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = load_dataset(demo_dataset(tmp_path))
    assert len(capsys.readouterr().out.strip().splitlines()) == 1
    assert dataset.synthetic
    check_label_set(dataset.manifest, "isic2019")
    test = dataset.manifest[dataset.manifest["split"] == "2019-test"]
    assert (len(test), test["group"].nunique()) == (120, 120)
    assert test[list(DIAGNOSES)].sum().min() >= 4
    manifest = dataset.manifest[dataset.manifest["split"] == "train"]
    assert len(manifest) == 594 == len(dataset.manifest) - len(test)
    assert manifest["group"].nunique() == 400
    content = manifest[["image_id", "group", "crc32", "MEL", "age"]].to_csv(index=False)
    assert hashlib.sha256(content.encode()).hexdigest() in TRAINING_SETS
    lesions = manifest.drop_duplicates("group")[list(DIAGNOSES)].sum()
    assert lesions.min() >= 10
    assert 0.17 < manifest["MEL"].mean() < 0.25
    assert manifest.groupby("group")["MEL"].nunique().max() == 1
    assert manifest["width"].between(160, 200).all()
    assert manifest["height"].between(120, 150).all()
    assert manifest[["age", "sex", "site"]].isna().any().all()


@pytest.mark.usefixtures("few")
def test_two_generations_have_equal_bytes(tmp_path: Path) -> None:
    assert content(demo_dataset(tmp_path / "a").parent) == content(demo_dataset(tmp_path / "b").parent)


@pytest.mark.usefixtures("few")
def test_the_second_of_two_processes_uses_the_first_ones_data(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(demo_dataset, [tmp_path, tmp_path])
    assert first == second
    assert load_dataset(first).synthetic
    assert [path.name for path in tmp_path.iterdir()] == ["demo-v4"]


@pytest.mark.usefixtures("few")
def test_it_is_generated_once_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert demo_dataset() == tmp_path / "melanoma-dist/demo-v4/prepared"
    capsys.readouterr()
    demo_dataset()
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("few")
def test_an_unusable_cache_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="MELANOMA_DIST_CACHE"):
        demo_dataset(tmp_path / "file")
    (tmp_path / "demo-v4").mkdir()
    (tmp_path / "demo-v4/mine.txt").touch()
    with pytest.raises(DataError, match="is not the demo data"):
        demo_dataset(tmp_path)
