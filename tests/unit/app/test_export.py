"""The command on a real finished run, its files in a Python without this package, and what it refuses."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image

import melanoma_dist
from melanoma_dist.app.export import parity
from melanoma_dist.app.export.description import as_texts
from melanoma_dist.cli import main
from melanoma_dist.data.labels import DIAGNOSES
from melanoma_dist.errors import MelanomaDistError
from melanoma_dist.storage.atomic import MANIFEST
from melanoma_dist.storage.locks import lock_folder

from ..evaluate.holdout.conftest import FOLDS
from .conftest import Export
from .test_predict import new_photograph

ROOT = Path(melanoma_dist.__file__).parents[1]
STANDALONE = ("onnxruntime", "numpy", "pillow", "flatbuffers", "protobuf", "packaging")


@pytest.fixture(scope="module")
def exported(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished run as ONNX."""
    out = tmp_path_factory.mktemp("export") / "new" / "onnx"
    assert main(["export", str(finished), "--out", str(out), "--decode-threads", "1"]) == 0
    return out


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name != MANIFEST
    }


def alone(packages: Path, *words: object, folder: Path) -> str:
    """Run a script of the export in a Python that has only the linked packages."""
    program = "import runpy, sys; sys.path.append(sys.argv[1]); sys.argv = sys.argv[2:]; "
    program += "runpy.run_path(sys.argv[0], run_name='__main__'); "
    program += "assert not {'torch', 'timm', 'melanoma_dist'} & set(sys.modules)"
    command = [sys.executable, "-I", "-S", "-c", program, str(packages), *map(str, words)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ONNX Runtime, NumPy, Pillow and what these need, and nothing else."""
    folder = tmp_path_factory.mktemp("packages")
    for name in STANDALONE:
        files = importlib.metadata.distribution(name).files or []
        for top in {file.parts[0] for file in files} - {"..", "__pycache__"}:
            if not (folder / top).exists():
                (folder / top).symlink_to(importlib.metadata.distribution(name).locate_file(top))
    return folder


def test_the_files_answer_as_predict_in_a_python_without_this_package(
    exported: Path, finished: Path, packages: Path, tmp_path: Path
) -> None:
    text = alone(packages, "verify.py", folder=exported)
    assert float(re.findall(r"largest difference of a probability: (\S+)", text)[0]) < 1e-5
    assert int(text.split()[0]) >= 5
    large = new_photograph(tmp_path / "large.jpg")
    with Image.open(large) as image:
        image.resize((640, 400)).save(tmp_path / "upright.png")
        exif = image.getexif()
        exif[274] = 6
        image.save(tmp_path / "turned.jpg", exif=exif, quality=95)
        image.convert("CMYK").save(tmp_path / "cmyk.tif")
        image.convert("P").save(tmp_path / "palette.gif")
        image.resize((3000, 2250)).save(tmp_path / "huge.png", compress_level=1)  # over four times the data set's size
    names = ["huge.png", "large.jpg", "upright.png", "turned.jpg", "cmyk.tif", "palette.gif"]
    expected = melanoma_dist.load_run(finished).ensemble(threads=1).predict([tmp_path / name for name in names])
    text = alone(packages, exported / "predict.py", exported / "ensemble.onnx", *names, folder=tmp_path)
    rows = [json.loads(line) for line in text.splitlines()]
    assert [row["image"] for row in rows] == names
    probability = np.array([[row["probability"][label] for label in DIAGNOSES] for row in rows])
    np.testing.assert_allclose(probability, expected.probability, atol=1e-5)
    called = [[row["called"][label] for label in DIAGNOSES] for row in rows]
    assert called == expected.positive.tolist()
    Image.fromarray(np.full((90, 90), 3000, dtype=np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(AssertionError, match="more than 8 bits per colour"):
        alone(packages, exported / "predict.py", exported / "ensemble.onnx", "deep.png", folder=tmp_path)


def test_the_documentation_has_the_script_as_it_is(exported: Path) -> None:
    script = (exported / "predict.py").read_text()
    assert f"```python\n{script}```" in (ROOT / "docs/export.md").read_text()
    start = script.index("session = ")
    assert len(script[start:].splitlines()) <= 15


def test_a_file_describes_itself_and_takes_any_batch(exported: Path, finished: Path) -> None:
    run = melanoma_dist.load_run(finished)
    about = json.loads((exported / "export.json").read_text())
    assert about["labels"] == list(DIAGNOSES)
    assert about["thresholds"]["MEL"] == run.decision_rules.thresholds(("MEL",), 0.5)[0]
    assert about["operating_points"]["MEL"][0]["threshold"] == run.decision_rules.points("MEL")[0].threshold
    assert about["data_fingerprint"] == run.fingerprint
    assert about["weights_sha256"] == {str(fold): digest for fold, digest in run.ensemble().weights_sha256.items()}
    files = [each["name"] for each in about["parity"]["files"]]
    assert files == [*(f"fold-{fold}.onnx" for fold in range(FOLDS)), "ensemble.onnx"]
    assert max(each["difference"] for each in about["parity"]["files"]) < 1e-4
    session = onnxruntime.InferenceSession(exported / "ensemble.onnx")
    assert [(each.name, each.type, each.shape) for each in session.get_inputs()] == [
        ("images", "tensor(uint8)", ["batch", "height", "width", 3])
    ]
    assert [(each.name, each.type, each.shape) for each in session.get_outputs()] == [
        ("probability", "tensor(float)", ["batch", len(DIAGNOSES)]),
        ("folds", "tensor(float)", ["batch", FOLDS, len(DIAGNOSES)]),
        ("positive", "tensor(bool)", ["batch", len(DIAGNOSES)]),
    ]
    metadata = session.get_modelmeta().custom_metadata_map
    texts = as_texts({key: value for key, value in about.items() if key != "parity"})
    assert metadata == {**texts, "file": "ensemble"}
    assert "Not a medical device" in metadata["use"]


def test_the_folder_is_complete_and_hashed(exported: Path, finished: Path) -> None:
    assert json.loads((exported / MANIFEST).read_text())["files"] == hashes(exported)
    names = {path.name for path in exported.iterdir()}
    assert names == {"ensemble.onnx", *(f"fold-{fold}.onnx" for fold in range(FOLDS)), "export.json", "README.md",
                     "LICENSE.txt", "predict.py", "verify.py", "example", MANIFEST}  # fmt: skip
    card = (exported / "README.md").read_text()
    assert "python predict.py ensemble.onnx" in card
    assert "store as JPEG of quality 92, as predict.py does" in card
    assert card.index("SYNTHETIC DATA") < card.index("## Use of these files") < card.index("## Intended use")
    assert "## Operating points" in card
    assert "free to use" in (exported / "LICENSE.txt").read_text()
    assert [path.name for path in exported.parent.iterdir()] == ["onnx"]
    files = "".join(path.read_text(errors="replace") for path in exported.rglob("*.*") if path.suffix != ".jpg")
    assert str(finished.parent) not in files  # no folder of the machine


@pytest.mark.slow
def test_programs_of_torch_with_one_orientation(finished: Path, export: Export, tmp_path: Path) -> None:
    text = export(finished, "--format", "torch", "--out", tmp_path / "torch", "--tta", 1)
    assert "Each image is predicted in 1 orientation. Calibration and operating points were fixed for 8" in text
    assert "ensemble.pt2" in text
    command = [sys.executable, "-I", str(tmp_path / "torch/verify.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "largest difference" in done.stdout, done.stderr
    assert done.returncode == 0


def test_files_that_answer_otherwise_are_not_kept(
    run: Path, export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "LARGEST_DIFFERENCE", 1e-12)
    text = export(run, code=1)
    assert re.search(r"fold-0.onnx: a probability of \S+ differs by \S+ from that of `predict`, more than 1e-12", text)
    # Neither float32 is as near to float64.
    assert re.search(
        r"From exact arithmetic \(float64\), `predict` differs by \S+e-\d+ there, and the file by \S+e-\d+\.", text
    )
    assert "If both are far, the models amplify rounding" in text
    assert not any((run / "export").iterdir())


def test_an_image_of_a_data_set_is_not_passed_on(finished: Path, tmp_path: Path) -> None:
    from melanoma_dist.app.export.documents import write_examples
    from melanoma_dist.app.export.parity import Reference, parity_images

    trained = melanoma_dist.load_run(finished)
    images = parity_images(trained)
    assert len(images) > 5, "the run has no gallery"
    expected = trained.ensemble(threads=1).predict([image.data for image in images], 1)
    write_examples(tmp_path, Reference(images, expected, trained.image_size), synthetic=False)
    names = {path.name for path in (tmp_path / "example").iterdir()}
    assert names == {"expected.jsonl", *(f"drawn-{number}.jpg" for number in range(5))}
    rows = (tmp_path / "example/expected.jsonl").read_text().splitlines()
    assert [Path(json.loads(row)["image"]).name for row in rows] == [image.name for image in images]


def damage_rules(run: Path) -> None:
    (run / "decision_rules.json").write_text("{}")


def remove_weights(run: Path) -> None:
    (run / "model/fold-1.safetensors").unlink()


def remove_card(run: Path) -> None:
    (run / "model/README.md").unlink()


def unfinish(run: Path) -> None:
    (run / "summary.json").unlink()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (unfinish, "is not finished"),
        (damage_rules, "decision_rules.json"),
        (remove_weights, "fold-1.safetensors: the fold's model cannot be read"),
        (remove_card, "the model card cannot be read"),
    ],
)
def test_a_run_that_cannot_be_exported_leaves_nothing(
    change: Callable[[Path], Any], message: str, run: Path, export: Export
) -> None:
    change(run)
    assert message in export(run, code=2)
    assert not (run / "export").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "nowhere: is not the folder of a run"),
        (["RUN", "--out", "full"], "--out full: exists already. Delete it, or name a new folder with --out."),
        (["RUN", "--out", "full/file/out"], "cannot be written"),
        (["RUN", "--tta", "9"], "must be 1 to 8"),
        (["RUN", "--format", "tensorflow"], "invalid choice"),
    ],
)
def test_a_mistake_is_refused(
    words: list[str], message: str, finished: Path, export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    assert message in export(*(str(finished) if word == "RUN" else word for word in words), code=2)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "full"]


def test_a_disk_without_room_is_told_before_anything_is_written(
    finished: Path, export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("melanoma_dist.app.export.folder.shutil.disk_usage", lambda path: usage._replace(free=1000))
    text = export(finished, "--out", tmp_path / "out", code=2)
    assert re.search(r"the export writes at least \d+ [KM]B, and 1 KB are free there\. Make room", text)
    assert not list(tmp_path.glob("*out*"))


def test_a_missing_package_is_named_with_the_extra(
    finished: Path, export: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("melanoma_dist.config.export.find_spec", lambda name: None if name == "onnxscript" else name)
    text = export(finished, code=2)
    assert (
        "--format onnx: needs onnxscript, which is not installed. Type `pip install 'melanoma-dist[export]'`." in text
    )


def test_what_a_killed_export_left_is_removed(finished: Path, export: Export, tmp_path: Path) -> None:
    (tmp_path / ".hub.export/fold-0").mkdir(parents=True)
    (tmp_path / ".other.tmp").mkdir()
    export(finished, "--format", "hub", "--out", tmp_path / "hub")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.tmp", "hub"]


def test_two_exports_to_one_place_are_refused(finished: Path, export: Export, tmp_path: Path) -> None:
    with lock_folder(tmp_path, MelanomaDistError()):
        text = export(finished, "--format", "hub", "--out", tmp_path / "hub", code=2)
    assert "another command is exporting to a folder beside it. Wait for it." in text
    assert not [*tmp_path.iterdir()]


def test_a_backbone_that_the_exporter_cannot_write_is_a_message(
    run: Path, export: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("Constraints violated\n(batch)!")

    monkeypatch.setattr("torch.export.export", refuse)
    text = export(run, code=1)
    assert "fold-0.onnx: the exporter cannot write test_resnet (Constraints violated (batch)!)" in text
    assert not [*(run / "export").iterdir()]
