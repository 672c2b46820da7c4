"""The page of a model that sees lesions: their outlines, on the screen and on paper, and what the model sees."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, expect

from melanoma_dist.app.server.api import build_app
from melanoma_dist.app.server.service import start_service
from melanoma_dist.artifacts.lesion_table import read_lesions
from melanoma_dist.config.serve import ServeConfig
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.inference.trained_run import open_trained_run
from melanoma_dist.train import region

from ..unit.app.test_mask_channel import mask_run
from ..unit.app.test_two_stages import applied, data, files, lesion_run, new_rows, run, trusting
from .conftest import Serve
from .test_page import ANSWER_MS, DESK, Visit, chrome

__all__ = ["applied", "chrome", "data", "lesion_run", "mask_run", "run", "trusting"]

_SHARES = """() => {
  const [inner, outer] = ["#outline polygon", "#picture"].map((name) =>
    document.querySelector(name).getBoundingClientRect());
  return [(inner.left - outer.left) / outer.width, (inner.top - outer.top) / outer.height,
          inner.width / outer.width, inner.height / outer.height];
}"""


_ON_PAPER = """() => [...document.querySelectorAll(".sheet-picture")].map((picture) =>
  [...picture.children].map((each) => {
    const box = each.getBoundingClientRect();
    return [box.left, box.top, box.width, box.height];
  }))
"""


@contextmanager
def served(run: Path, serve: Serve) -> Iterator[str]:
    settings = ServeConfig(run, decode_threads=1)
    service = start_service(open_trained_run(run), settings)
    yield serve(build_app(service, settings, None))
    service.close()


@pytest.fixture(scope="module")
def address(lesion_run: Path, serve: Serve) -> Iterator[str]:
    with served(lesion_run, serve) as address:
        yield address


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


def tall(path: Path) -> bytes:
    """The image as one that is four times as high as wide: on paper its height is limited."""
    content = io.BytesIO()
    Image.open(path).convert("RGB").resize((300, 1200)).save(content, "PNG")
    return content.getvalue()


@pytest.mark.slow
def test_on_paper_the_outline_lies_on_the_picture_of_any_shape(
    chrome: Browser, address: str, applied: Path, data: Dataset
) -> None:
    visit = Visit(chrome, address, viewport=DESK)
    page = visit.page
    [source] = files(data, new_rows(applied, data)[:1])
    visit.drop(("lesion.jpg", "image/jpeg", source.read_bytes()), ("tall.png", "image/png", tall(source)))
    visit.answered(2)
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    expect(page.locator(".sheet-picture svg polygon")).to_have_count(2)
    page.wait_for_function("[...document.querySelectorAll('.sheet-picture img')].every((each) => each.complete)")
    for picture, outline in page.evaluate(_ON_PAPER):
        assert outline == pytest.approx(picture, abs=0.5)
        assert 0 < picture[3] <= 300
    shapes = page.locator(".sheet-picture img").evaluate_all(
        "all => all.map((each) => [each.width / each.height, each.naturalWidth / each.naturalHeight])"
    )
    for ratio, own_ratio in shapes:  # otherwise the picture lies in the middle of its box, and the outline on all of it
        assert ratio == pytest.approx(own_ratio, rel=0.02)
    note = "The model sees the part of the image within the dashed lines."
    expect(page.locator(".sheet").first.get_by_text(note)).to_be_visible()
    visit.context.close()
    assert visit.wrong == []


@pytest.mark.slow
def test_the_note_names_the_mask_that_the_model_sees(
    chrome: Browser, mask_run: Path, applied: Path, data: Dataset, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    [source] = files(data, new_rows(applied, data)[:1])
    with served(mask_run, serve) as address:
        visit = Visit(chrome, address, viewport=DESK)
        note = visit.page.locator("#lesion-note")
        visit.drop(("lesion.jpg", "image/jpeg", source.read_bytes()))
        visit.answered(1)
        expect(note).to_have_text("The model sees the whole image and this outline.", timeout=ANSWER_MS)
        monkeypatch.setattr(region, "LOW_QUALITY", 1.1)  # every outline is doubtful
        visit.drop(("again.png", "image/png", tall(source)))
        visit.answered(2)
        visit.page.locator(".thumb", has_text="again.png").click()
        expect(note).to_have_text("The model sees the whole image without this outline.")
        expect(visit.page.locator("#result")).to_contain_text("the models see the whole image with an empty mask")
        visit.context.close()
        assert visit.wrong == []
