"""The predictor of `predict` and `serve`."""

from __future__ import annotations

from pathlib import Path

from melanoma_dist.app.inspection import inspect_bytes
from melanoma_dist.app.predictor import Predictor, open_known_images
from melanoma_dist.inference.trained_run import open_trained_run

from .test_predict import new_photograph


def test_answers_hold_no_pixels_so_that_thousands_fit_into_memory(run: Path, tmp_path: Path) -> None:
    opened = open_trained_run(run)
    photo = inspect_bytes("new.jpg", new_photograph(tmp_path / "new.jpg").read_bytes(), opened.image_size)
    assert photo.photo.jpeg is not None
    for known in (None, open_known_images(opened, None)):
        (answer,) = Predictor.load(opened, known, 0, 1, 1).predict([photo])
        assert answer.scores is not None
        assert answer.photo.jpeg is None
