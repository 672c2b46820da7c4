"""Paths and folders: ``~`` is expanded wherever a path enters; commands share their default folders."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args

import pytest
import tyro

from melanoma_dist.cli import main
from melanoma_dist.config.data import AuditConfig, DownloadConfig, PrepareConfig
from melanoma_dist.config.evaluate import CompareConfig, EvaluateConfig
from melanoma_dist.config.flags import PARSER, TYPES
from melanoma_dist.config.model import ModelConfig
from melanoma_dist.config.places import check_data, check_runs, check_writable, find_data
from melanoma_dist.config.rules import field_type
from melanoma_dist.config.run import DataConfig, RunConfig
from melanoma_dist.config.saved import saved_config, with_file
from melanoma_dist.config.sweep import SweepConfig
from melanoma_dist.config.weights import FetchConfig
from melanoma_dist.data.node_copies import cache_folder
from melanoma_dist.errors import ConfigError, DataError

SECTIONS: dict[type, dict[str, Any]] = {
    RunConfig: {},
    DataConfig: {},
    ModelConfig: {},
    SweepConfig: {},
    DownloadConfig: {"years": (2017,)},
    PrepareConfig: {"table": Path("table.csv"), "images": Path("images"), "map": ("word=MEL",)},
    AuditConfig: {"data": "demo"},
    EvaluateConfig: {"run": Path("run"), "holdout": "holdout"},
    CompareConfig: {"runs": (Path("one"), Path("two"))},
    FetchConfig: {"backbones": ("resnet18",)},
}
TEXTS = {"data", "weights", "dataset"}  # a path, or a name, or a URL


def paths_of(section: type) -> dict[str, object]:
    """The fields of a section that may hold a path, each with one below the home folder."""
    values: dict[str, object] = {}
    instance = section(**SECTIONS[section])
    for item in fields(section):
        kind = field_type(instance, item.name)
        if is_dataclass(kind):
            continue
        if item.name in TEXTS:
            values[item.name] = "~/place"
        elif kind is Path or Path in get_args(kind):
            place = Path("~/page.html") if item.name == "html" else Path("~/place")
            values[item.name] = (place, Path("~/other")) if isinstance(getattr(instance, item.name), tuple) else place
    return values


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_every_path_of_every_configuration_is_expanded(
    section: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    values = paths_of(section)
    assert values
    if section is EvaluateConfig:
        SECTIONS[section] = {"run": Path("run")}
    built = section(**{**SECTIONS[section], **values})
    for name in values:
        value = getattr(built, name)
        for each in value if isinstance(value, tuple) else (value,):
            assert Path(each).is_relative_to(tmp_path), f"{name}: {value}"
            assert type(each) is (str if name in TEXTS else type(tmp_path))


def test_flags_and_files_with_a_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "run.yaml").write_text("runs: ~/runs\nmodel: {weights: ~/w.safetensors}\ndata: {data: ~/isic}\n")
    flags = with_file(["--config=~/run.yaml"])
    parsed = tyro.cli(RunConfig, args=[*flags, "--runs=~/elsewhere"], config=PARSER, registry=TYPES)
    assert parsed.runs == tmp_path / "elsewhere"
    saved = saved_config(tmp_path / "run.yaml")
    assert (saved.runs, saved.data.data) == (tmp_path / "runs", str(tmp_path / "isic"))
    assert parsed.model.weights == saved.model.weights == str(tmp_path / "w.safetensors")


def test_names_and_urls_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("demo", "s3://bucket/~x/isic", "./~/isic", "a~b"):
        assert DataConfig(data=name).data == name


def test_a_home_folder_of_an_unknown_user_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "prepare", "--years", "2017", "--out=~no-such-user/x"]) == 2
    assert "--out ~no-such-user/x: the home folder is not known" in capsys.readouterr().err


def test_a_cache_below_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MELANOMA_DIST_CACHE", "~/cache")
    assert cache_folder() == tmp_path / "cache"


def test_the_data_set_of_a_command_without_the_flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MELANOMA_DIST_DATA", raising=False)
    with pytest.raises(ConfigError, match="--data: is missing, and there is no data/prepared here"):
        find_data()
    (tmp_path / "data" / "prepared").mkdir(parents=True)
    assert find_data() == "data/prepared"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MELANOMA_DIST_DATA", "~/isic")
    assert find_data() == str(tmp_path / "isic")


def test_what_download_writes_prepare_reads_and_what_prepare_writes_trainings_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MELANOMA_DIST_DATA", raising=False)
    prepare = PrepareConfig(("2017",))
    assert DownloadConfig((2017,)).raw == prepare.raw
    prepare.out.mkdir(parents=True)
    assert find_data() == str(prepare.out)


def test_a_data_set_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MELANOMA_DIST_DATA", "/nowhere/isic")
    with pytest.raises(DataError, match=r"^MELANOMA_DIST_DATA /nowhere/isic: no such folder"):
        check_data("/nowhere/isic")
    check_data("demo")
    check_data("s3://bucket/isic")


def test_a_run_that_is_not_there_has_similar_names(tmp_path: Path) -> None:
    (tmp_path / "densenet201-isic").mkdir()
    with pytest.raises(ConfigError, match=r"there is no such folder\. Similar names there: densenet201-isic"):
        check_runs([tmp_path / "densenet201-isik"])


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    check_writable("out", tmp_path / "new" / "newer")
    with pytest.raises(ConfigError, match=r"cannot be written \(.*file is a file\)"):
        check_writable("out", tmp_path / "file" / "below")
