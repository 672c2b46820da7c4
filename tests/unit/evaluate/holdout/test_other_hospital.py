"""Short ids of two hospitals are equal by chance: photographs decide whether they name the same image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from melanoma_dist.data.lesion import draw_lesion, photograph
from melanoma_dist.data.prepare import Request, prepare
from melanoma_dist.data.sources.described import DescribedSource
from melanoma_dist.data.sources.description import parse_description
from melanoma_dist.evaluate.holdout.contamination import related_images
from melanoma_dist.inference.images import Images

from ...data.conftest import write_table

DESCRIPTION = {
    "name": "own", "table": "table.csv", "columns": {"id": "image", "label": "dx", "lesion": "lesion"},
    "labels": {"nevus": "NV", "melanoma": "MEL"},
}  # fmt: skip


def hospital(folder: Path, pictures: dict[str, tuple[int, str]], quality: int = 95, **changes: str) -> Images:
    """The prepared images of a hospital: ids with the number of the drawn photograph and the lesion."""
    raw = folder / "raw"
    raw.mkdir(parents=True)
    for image_id, (number, _) in pictures.items():
        rng = np.random.default_rng([11, number])
        picture = Image.fromarray(photograph(rng, draw_lesion(rng, "NV")))
        picture.save(raw / f"{image_id}.jpg", quality=quality)
    words = ("nevus", "melanoma")
    rows = [f"{name},{words[at % 2]},{lesion}" for at, (name, (_, lesion)) in enumerate(pictures.items())]
    write_table(raw / "table.csv", "image,dx,lesion", *rows)
    source = DescribedSource(parse_description({**DESCRIPTION, **changes}, "own.yaml"))
    dataset = prepare(Request(raw, (), sources=(source,), size=128), folder / "data")
    return Images(dataset, np.arange(len(dataset.manifest), dtype=np.int64))


def test_equal_ids_of_other_photographs_say_nothing(tmp_path: Path) -> None:
    trained = hospital(tmp_path / "one", {str(at): (at, str(at)) for at in range(4)})
    images = hospital(tmp_path / "two", {str(at): (at + 50, str(at)) for at in range(4)})
    assert related_images(images, [trained]) == {}


def test_the_same_photograph_is_refused_also_beside_others(tmp_path: Path) -> None:
    trained = hospital(tmp_path / "one", {str(at): (at, str(at)) for at in range(4)})
    images = hospital(tmp_path / "two", {"0": (0, "0"), "1": (51, "1"), "x": (3, "7")}, quality=70)
    reasons = related_images(images, [trained])
    assert sorted(reasons) == ["0", "x"]
    assert all(reason.startswith("a copy of it was") for reason in reasons.values())


def test_a_lesion_of_the_same_hospital_is_refused_by_its_id(tmp_path: Path) -> None:
    trained = hospital(tmp_path / "one", {str(at): (at, str(at)) for at in range(4)})
    images = hospital(tmp_path / "two", {"1": (1, "1"), "8": (60, "2"), "9": (61, "9")})
    reasons = related_images(images, [trained])
    assert sorted(reasons) == ["1", "8"]
    assert reasons["8"] == "its lesion 2 was, on 2"


def test_lesions_of_collections_with_other_names_are_others(tmp_path: Path) -> None:
    trained = hospital(tmp_path / "one", {str(at): (at, str(at)) for at in range(4)})
    images = hospital(tmp_path / "two", {"8": (60, "2"), "9": (61, "9")}, name="other")
    assert related_images(images, [trained]) == {}
