"""The page of a model that sees lesions: the outline lies on the lesion, and can be turned off."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from melanoma_dist.app.server.api import build_app
from melanoma_dist.app.server.service import start_service
from melanoma_dist.artifacts.lesion_table import read_lesions
from melanoma_dist.config.serve import ServeConfig
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.inference.trained_run import open_trained_run

from ..unit.app.test_two_stages import applied, data, files, lesion_run, new_rows, run, trusting
from .conftest import Serve
from .test_page import ANSWER_MS, DESK, Visit, chrome

__all__ = ["applied", "chrome", "data", "lesion_run", "run", "trusting"]

_SHARES = """() => {
  const [inner, outer] = ["#outline polygon", "#picture"].map((name) =>
    document.querySelector(name).getBoundingClientRect());
  return [(inner.left - outer.left) / outer.width, (inner.top - outer.top) / outer.height,
          inner.width / outer.width, inner.height / outer.height];
}"""


@pytest.fixture(scope="module")
def address(lesion_run: Path, serve: Serve) -> Iterator[str]:
    settings = ServeConfig(lesion_run, decode_threads=1)
    service = start_service(open_trained_run(lesion_run), settings)
    yield serve(build_app(service, settings, None))
    service.close()


@pytest.mark.slow
def test_the_outline_lies_on_the_lesion(
    chrome: Browser, address: str, applied: Path, data: Dataset, tmp_path: Path
) -> None:
    row = int(new_rows(applied, data)[0])
    expected = read_lesions(applied, data).rows.iloc[row]
    visit = Visit(chrome, address, viewport=DESK)
    page = visit.page
    [source] = files(data, new_rows(applied, data)[:1])
    visit.drop(("lesion.jpg", "image/jpeg", source.read_bytes()))
    visit.answered(1)
    expect(page.locator("#outline polygon")).to_have_count(1, timeout=ANSWER_MS)
    left, top, width, height = page.evaluate(_SHARES)
    assert (left, top) == pytest.approx((expected["left"], expected["top"]), abs=0.03)
    assert (width, height) == pytest.approx((expected["width"], expected["height"]), abs=0.03)
    expect(page.locator("#outline rect")).to_have_count(1)
    expect(page.locator("#lesion-note")).to_have_text("The model sees the part of the image within the dashed lines.")
    page.locator("#viewer").press("l")
    expect(page.locator("#outline polygon")).to_have_count(0)
    page.locator("#show-lesion").check()
    expect(page.locator("#outline polygon")).to_have_count(1)
    visit.context.close()
    assert visit.wrong == []
