"""Exports of runs that see lesions: two stages in a Python without this package answer as `predict` does."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from melanoma_dist.app.export import first_stage
from melanoma_dist.app.export.command import export
from melanoma_dist.config.export import ExportConfig
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.errors import MelanomaDistError
from melanoma_dist.inference.ensemble import Ensemble

from ..evaluate.holdout.conftest import trained
from .test_apply import applied, data, run
from .test_export import alone, packages
from .test_two_stages import files, lesion_run, new_rows, trusting

__all__ = ["applied", "data", "lesion_run", "packages", "run", "trusting"]


@pytest.fixture(scope="module")
def exported(lesion_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "onnx"
    export(ExportConfig(lesion_run, out=out, tta=1, decode_threads=1))
    return out


def answers_of(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def require_same(text: str, run: Path, paths: list[Path], tta: int) -> None:
    """Require that answers are those of `predict`, lesions included."""
    rows, expected = answers_of(text), Ensemble.load(run, threads=1).predict(paths, tta)
    probability = [list(row["probability"].values()) for row in rows]  # type: ignore[attr-defined]
    np.testing.assert_allclose(probability, expected.probability, atol=1e-4)
    for row, lesion in zip(rows, expected.lesions, strict=True):
        own = row["lesion"]
        assert isinstance(own, dict)
        assert own["trusted"] == lesion.trusted
        assert own["quality"] == pytest.approx(lesion.quality, abs=1e-5)
        np.testing.assert_allclose(own["window"], lesion.window, atol=1 / 40)
        assert (own["box"] is None) == (lesion.box is None)


@pytest.mark.slow
def test_both_stages_answer_as_predict_in_a_python_without_this_package(
    exported: Path, lesion_run: Path, applied: Path, data: Dataset, packages: Path
) -> None:
    paths = files(data, new_rows(applied, data))
    text = alone(packages, exported / "predict.py", exported / "ensemble.onnx", *paths, folder=exported.parent)
    require_same(text, lesion_run, paths, 1)
    windows = np.array([row["lesion"]["window"] for row in answers_of(text)])  # type: ignore[index]
    assert (windows[:, 2:] < 1).any()
    verified = alone(packages, "verify.py", folder=exported)
    assert float(re.findall(r"largest difference of a probability: (\S+)", verified)[0]) < 1e-4


@pytest.mark.slow
def test_the_folder_describes_both_stages(exported: Path, lesion_run: Path) -> None:
    about = json.loads((exported / "export.json").read_text())
    rule = about["lesion"]
    assert (rule["region"], rule["mask"], rule["margin"], rule["threshold"]) == ("lesion", "none", 0.3, 0.5)
    assert rule["fingerprint"] == first_stage.fingerprint(Ensemble.load(lesion_run, threads=1).segmenter)  # type: ignore[arg-type]
    names = [each["name"] for each in about["parity"]["files"]]
    assert names == ["segmenter.onnx", "fold-0.onnx", "fold-1.onnx", "ensemble.onnx"]
    assert max(each["difference"] for each in about["parity"]["files"]) < 1e-4
    session = onnxruntime.InferenceSession(exported / "segmenter.onnx")
    assert [(each.name, each.type, each.shape) for each in session.get_outputs()] == [
        ("lesion", "tensor(float)", ["batch", 64, 64])
    ]
    assert session.get_modelmeta().custom_metadata_map["encoder"] == "test_resnet"
    assert "`see` of lesion.py cuts out of them" in (exported / "README.md").read_text()
    assert {"lesion.py", "predict.py", "segmenter.onnx"} <= set(
        json.loads((exported / "manifest.json").read_text())["files"]
    )


@pytest.mark.slow
def test_programs_of_torch_give_models_the_mask_and_metadata(applied: Path, data: Dataset, tmp_path: Path) -> None:
    chosen = {"labels": "melanoma", "batch_size": 4, "image_size": 64, "lesions": str(applied)}
    mask_run = trained(tmp_path, data, mask="channel", metadata="age,sex", **chosen)
    out = tmp_path / "torch"
    export(ExportConfig(mask_run, format="torch", out=out, tta=2, decode_threads=1))
    paths = files(data, new_rows(applied, data))[:3]
    command = [sys.executable, "-I", str(out / "predict.py"), str(out / "ensemble.pt2"), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    require_same(done.stdout, mask_run, paths, 2)
    assert json.loads((out / "export.json").read_text())["lesion"]["mask"] == "channel"


@pytest.mark.slow
def test_a_segmenter_that_answers_otherwise_is_not_kept(
    lesion_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shifted = first_stage.lesion.box_of
    monkeypatch.setattr(first_stage.lesion, "box_of", lambda mask: shifted(mask) * np.float32([1, 1, 0.9, 1]))
    with pytest.raises(MelanomaDistError, match=r"segmenter\.onnx: the lesion of \S+ is another one than `predict`"):
        export(ExportConfig(lesion_run, out=tmp_path / "onnx", tta=1, decode_threads=1))
    assert not (tmp_path / "onnx").exists()
