"""The images that a command names: every order and every refusal."""

from __future__ import annotations

import errno
import os
from functools import partial
from pathlib import Path

import pytest

from melanoma_dist.app.inputs import InputImage, collect_images
from melanoma_dist.data.raw_folder import _holds
from melanoma_dist.errors import ConfigError, DataError


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for name in ("b.JPG", "a.png", "notes.txt", ".hidden.jpg", "deep/er/c.tiff"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def test_files_and_folders_keep_the_order_of_the_command(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "no suffix").touch()
    images = collect_images([tmp_path / "no suffix", photos, photos / "a.png"])
    names = ["no suffix", "photos/a.png", "photos/b.JPG", "photos/deep/er/c.tiff", "photos/a.png"]
    assert images == [InputImage(tmp_path / name) for name in names]
    text = capsys.readouterr().out
    assert "photos: left out, without the suffix of an image" in text
    assert "): 1 of 4 files" in text


def test_what_has_an_images_name_and_no_file_is_left_to_its_reader(photos: Path) -> None:
    (photos / "c.jpg").symlink_to(photos / "moved.jpg")
    (photos / "d.jpg").symlink_to(photos / "a.png")
    (photos / "e.jpg").symlink_to("e.jpg")
    (photos / "f.jpg").symlink_to("a.png/below.jpg")
    (photos / "g.jpg").symlink_to(300 * "x")
    os.mkfifo(photos / "h.jpg")
    names = ["a.png", "b.JPG", *(f"{letter}.jpg" for letter in "cdefgh"), "deep/er/c.tiff"]
    assert collect_images([photos]) == [InputImage(photos / name) for name in names]


def test_what_cannot_be_opened_does_not_count_as_absent() -> None:
    def refuses(number: int) -> bool:
        raise OSError(number, "refused")

    assert not _holds(partial(refuses, errno.ELOOP))
    with pytest.raises(PermissionError):
        _holds(partial(refuses, errno.EACCES))


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_a_table_names_paths_relative_to_itself_and_its_other_columns_are_kept(photos: Path, mark: str) -> None:
    rows = [",age,Path,note,", "0,55,a.png, left arm ,", ",,,,", f"1,60,{photos / 'b.JPG'},,"]
    (photos / "list.CSV").write_text("\n".join(rows).replace(",", mark) + "\n")
    first, second = collect_images([photos / "list.CSV"])
    assert first == InputImage(photos / "a.png", {"age": "55", "note": "left arm"})
    assert second == InputImage(photos / "b.JPG", {"age": "60", "note": ""})


def test_the_first_known_name_is_the_column_of_paths(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("file,image\nx,y.jpg\n")
    assert collect_images([tmp_path / "list.csv"]) == [InputImage(tmp_path / "y.jpg", {"file": "x"})]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column holds the paths of images. .* Columns: none"),
        ("lesion,age\n1,2\n", "no column holds the paths of images. .* Columns: lesion, age"),
        ("image,age,age\na.jpg,1,2\n", "several columns named 'age'"),
        ("image,age\na.jpg,1\nb.jpg\n", r"line 3: has another number of fields"),
        ("image,age\n,1\n", r"line 2: image is empty"),
        ("image\n\xff\n", r"cannot be read as a table \(line 2 is not in UTF-8"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=message):
        collect_images([tmp_path / "list.csv"])


def test_no_images_at_all_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.csv").write_text("image\n")
    with pytest.raises(ConfigError, match=r"no images in .*empty, .*list\.csv"):
        collect_images([tmp_path / "empty", tmp_path / "list.csv"])
