"""The page of the server in Chromium: the whole path from a dropped image to the exported table."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

from melanoma_dist.app.server.api import build_app
from melanoma_dist.app.server.service import Service
from melanoma_dist.config.serve import ServeConfig

from ..unit.app.server.conftest import TOKEN, lesion
from .chromium import browser as chromium
from .conftest import Serve

DESK: ViewportSize = {"width": 1280, "height": 900}
PHONE: ViewportSize = {"width": 390, "height": 844}
SMALL: ViewportSize = {"width": 320, "height": 640}  # also a desktop at a zoom of 400 %
ANSWER_MS = 60_000
expect.set_options(timeout=ANSWER_MS)  # a busy machine answers late
EVIL = '<img src=x onerror=alert(1)> "a", b.jpg'
DROP = """([target, files]) => {
  const transfer = new DataTransfer();
  for (const [name, type, text] of files)
    transfer.items.add(new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], name, {type}));
  const events = target === "paste" ? [new ClipboardEvent("paste", {clipboardData: transfer, bubbles: true})]
    : ["dragover", "drop"].map((kind) => new DragEvent(kind, {dataTransfer: transfer, bubbles: true}));
  for (const event of events) document.body.dispatchEvent(event);
}"""


@pytest.fixture(scope="module")
def chrome() -> Iterator[Browser]:
    program = chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


class Visit:
    """A page that records what must not happen: errors, refused content, requests elsewhere, dialogs."""

    def __init__(self, chrome: Browser, address: str, **context: Any) -> None:
        self.context = chrome.new_context(**context)
        self.page: Page = self.context.new_page()
        self.wrong: list[str] = []
        self.page.on("console", lambda message: message.type == "error" and self.wrong.append(message.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.wrong.append("a dialog"), dialog.dismiss()))
        self.page.on("request", lambda request: self._check(request.url, address))
        self.page.goto(address, wait_until="networkidle")  # the page takes images once it knows the model

    def _check(self, url: str, address: str) -> None:
        if not url.startswith((address.rstrip("/"), "blob:", "data:")):
            self.wrong.append(url)

    def drop(self, *files: tuple[str, str, bytes], target: str = "drop") -> None:
        import base64

        encoded = [[name, kind, base64.b64encode(content).decode()] for name, kind, content in files]
        self.page.evaluate(DROP, [target, encoded])

    def answered(self, count: int) -> None:
        expect(self.page.locator(".thumb")).to_have_count(count, timeout=ANSWER_MS)
        expect(self.page.locator(".badge.busy")).to_have_count(0, timeout=ANSWER_MS)


@pytest.fixture
def visit(chrome: Browser, address: str) -> Iterator[Callable[..., Visit]]:
    visits: list[Visit] = []

    def start(**context: Any) -> Visit:
        visits.append(Visit(chrome, address, **{"viewport": DESK, **context}))
        expect(visits[-1].page.locator("#example-list button").first).to_be_visible()
        return visits[-1]

    yield start
    for each in visits:
        each.context.close()
        assert each.wrong == []


def jpeg(number: int, name: str = "") -> tuple[str, str, bytes]:
    return name or f"{number}.jpg", "image/jpeg", lesion(number)


def test_from_a_dropped_image_to_the_exported_table(visit: Callable[..., Visit], tmp_path: Path) -> None:
    opened = visit()
    page = opened.page
    opened.drop(jpeg(0, EVIL), jpeg(1), ("broken.jpg", "image/jpeg", lesion(2)[:700]))
    opened.answered(3)
    expect(page.locator("#name")).to_have_text(EVIL)
    headline = page.locator(".headline .big").inner_text()
    expect(page.locator(".scale")).to_have_attribute("aria-label", re.compile("folds from .* Threshold"))

    page.locator("#strength").fill("70")
    expect(page.locator("#evidence-note")).to_contain_text("not whether the reason is a medical one", timeout=ANSWER_MS)
    assert float(page.locator("#overlay").evaluate("each => each.style.opacity")) == pytest.approx(0.7)

    page.locator(".thumb", has_text="broken.jpg").click()
    expect(page.locator("#result")).to_contain_text("This file has no answer")

    with page.expect_download() as download:
        page.get_by_role("button", name="Export CSV").click()
    download.value.save_as(tmp_path / "table.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "table.csv").read_text("utf-8-sig"))))
    assert [row["image"] for row in rows] == [EVIL, "1.jpg", "broken.jpg"]
    digits = len(headline.partition(".")[2]) - 1  # 1, or more where it would read as one of the thresholds
    assert f"{100 * float(rows[0]['MEL']):.{digits}f}%" == headline
    assert digits >= 1
    assert rows[2]["error"]
    assert rows[0]["purpose"] == "For research, not a diagnosis."
    assert re.fullmatch("[0-9a-f]{64}", rows[0]["model"])
    assert {"MEL_low", "MEL_positive", "doubts", "seen_in_training", "sha256"} <= set(rows[0])


def test_pasted_images_examples_and_formats_that_browsers_do_not_show(visit: Callable[..., Visit]) -> None:
    opened = visit()
    page = opened.page
    opened.drop(jpeg(0, "pasted.png"), target="paste")
    page.locator("#example-list button").first.click()
    opened.answered(2)
    expect(page.locator(".doubts")).to_contain_text("The run was trained on this image")
    expect(page.locator(".neighbours li")).to_have_count(6)
    expect(page.locator(".neighbours img[src]")).to_have_count(6)
    opened.drop(("scan.tif", "image/tiff", lesion(3, suffix="TIFF")))
    opened.answered(3)
    expect(page.locator("#picture")).to_be_visible()
    assert page.locator("#picture").evaluate("each => each.naturalWidth") > 32


GERMAN = """export default {
  purpose: "Nur für Forschung.",
  doubts: { trained_on_copy: "Damit wurde trainiert: {image}, Korrelation {correlation}." },
  errors: { html: "eine Webseite, kein Bild" },
  refusals: { queue_full: "Der Server ist ausgelastet." },
};"""


def test_another_language_is_one_file_more(chrome: Browser, address: str) -> None:
    visit = Visit(chrome, "about:blank", viewport=DESK, locale="de-DE")
    page = visit.page
    page.route("**/page/languages.json", lambda route: route.fulfill(json=["de", "en"]))
    page.route("**/page/strings.de.js", lambda route: route.fulfill(content_type="text/javascript", body=GERMAN))
    page.goto(address)
    page.locator("#example-list button").first.click()
    visit.drop(("page.jpg", "image/jpeg", b"<html>"), ("text.jpg", "image/jpeg", b"text"))
    visit.answered(3)
    page.locator(".thumb", has_text="ISIC_").click()
    expect(page.locator(".doubts")).to_contain_text("Damit wurde trainiert: ISIC_")
    expect(page.locator(".doubts")).to_contain_text(re.compile(r"Korrelation (0,9\d|1,00)\."))
    page.locator(".thumb", has_text="page.jpg").click()
    expect(page.locator("#result")).to_contain_text("Eine Webseite, kein Bild.")
    page.locator(".thumb", has_text="text.jpg").click()
    expect(page.locator("#result")).to_contain_text("Not an image.")  # not translated: the server's words
    page.route("**/v1/predict*", lambda route: route.fulfill(
        status=503, headers={"Retry-After": "0"}, content_type="application/problem+json",
        json={"status": 503, "detail": "The server is busy.", "code": "queue_full", "values": {}},
    ))  # fmt: skip
    visit.drop(jpeg(0, "late.jpg"))
    page.locator(".thumb", has_text="late.jpg").click()
    expect(page.locator("#result")).to_contain_text("Der Server ist ausgelastet.")
    visit.context.close()


def test_keys_choose_remove_and_undo(visit: Callable[..., Visit]) -> None:
    opened = visit()
    page = opened.page
    opened.drop(jpeg(0), jpeg(1), jpeg(2))
    opened.answered(3)
    page.locator(".thumb[aria-current]").focus()
    page.keyboard.press("ArrowDown")
    expect(page.locator("#name")).to_have_text("1.jpg")
    page.keyboard.press("Delete")
    expect(page.locator(".thumb")).to_have_count(2)
    expect(page.locator("#toast")).to_contain_text("1.jpg was removed")
    page.keyboard.press("Control+z")
    expect(page.locator(".thumb")).to_have_count(3)
    expect(page.locator("#name")).to_have_text("1.jpg")
    page.get_by_role("button", name="Remove all").press("Enter")
    expect(page.locator("#welcome")).to_be_visible()
    expect(page.locator("main")).to_be_focused()
    undo = page.get_by_role("button", name="Undo")
    assert undo.evaluate("each => each.offsetWidth > each.offsetHeight")  # its word stands on one line
    undo.press("Enter")
    expect(page.locator(".thumb")).to_have_count(3)
    expect(page.locator(".thumb[aria-current]")).to_be_focused()
    page.locator("#next").press("Enter")
    expect(page.locator("#next")).to_be_disabled()
    expect(page.locator("#previous")).to_be_focused()  # the focus of a disabled button would be lost
    page.locator("#table button", has_text="0.jpg").click()
    expect(page.locator("#name")).to_have_text("0.jpg")
    expect(page.locator("#name")).to_be_in_viewport()

    page.locator("#viewer").focus()
    page.keyboard.press("+")
    expect(page.locator("#zoom-level")).to_have_text("140%")
    page.keyboard.press("0")
    expect(page.locator("#zoom-level")).to_have_text("100%")
    page.keyboard.press("E")
    expect(page.locator("#strength")).to_have_value("60")


@pytest.mark.parametrize(
    "size", [DESK, {"width": 768, "height": 1024}, PHONE, SMALL], ids=["desk", "tablet", "phone", "small"]
)
def test_nothing_is_wider_than_the_window_and_the_purpose_stays_in_view(
    visit: Callable[..., Visit], size: ViewportSize
) -> None:
    opened = visit(viewport=size)
    page = opened.page
    opened.drop(jpeg(0), jpeg(1, "a-very-long-name-of-a-file-without-any-space-that-would-not-fit-anywhere-at-all.jpg"))
    opened.answered(2)
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    page.evaluate("scrollTo(0, 100000)")
    expect(page.get_by_text("For research, not a diagnosis.").first).to_be_in_viewport()


def test_paper_has_a_page_per_image(visit: Callable[..., Visit]) -> None:
    opened = visit()
    opened.drop(jpeg(0), jpeg(1), ("broken.jpg", "image/jpeg", b"text"))
    opened.answered(3)
    paper = opened.page.pdf(prefer_css_page_size=True)
    assert len(re.findall(rb"/Type\s*/Page\b", paper)) == 3


def test_nothing_is_stored_in_the_browser(visit: Callable[..., Visit]) -> None:
    opened = visit()
    opened.drop(jpeg(0))
    opened.answered(1)
    assert opened.context.cookies() == []
    assert opened.page.evaluate("localStorage.length + sessionStorage.length") == 0
    opened.page.reload()
    expect(opened.page.locator("#welcome")).to_be_visible()


def test_the_token_comes_from_the_address_or_is_asked_for(
    chrome: Browser, serve: Serve, service: Service, settings: ServeConfig
) -> None:
    address = serve(build_app(service, settings, TOKEN))
    visit = Visit(chrome, address, viewport=DESK)
    expect(visit.page.locator("#token-form")).to_be_visible()
    expect(visit.page.locator("#token-wrong")).to_be_hidden()
    expect(visit.page.locator("#drop")).to_be_hidden()  # an image would be refused
    visit.page.locator("#token").fill("wrong")
    visit.page.get_by_role("button", name="Continue").click()
    expect(visit.page.locator("#token-wrong")).to_have_text("The server refused this token.")
    visit.page.locator("#token").fill(TOKEN)
    visit.page.get_by_role("button", name="Continue").click()
    expect(visit.page.locator("#example-list button").first).to_be_visible()
    visit.context.close()
    given_address = Visit(chrome, f"{address}#token={TOKEN}", viewport=DESK)
    expect(given_address.page.locator("#example-list button").first).to_be_visible()
    assert TOKEN not in given_address.page.url
    given_address.drop(jpeg(0))
    given_address.answered(1)
    given_address.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_axe_sees_no_barrier(visit: Callable[..., Visit], address: str, scheme: str, size: ViewportSize) -> None:
    if find_spec("axe_playwright_python") is None:
        pytest.skip("axe-playwright-python is not installed")
    axe = (resources.files("axe_playwright_python") / "axe.min.js").read_text()
    opened = visit(viewport=size, color_scheme=scheme)

    def violations() -> list[str]:
        opened.page.evaluate(axe + ";null")
        result = opened.page.evaluate("axe.run()")
        assert len(result["passes"]) > 20
        return [f"{each['id']}: {each['nodes'][0]['html']}" for each in result["violations"]]

    assert violations() == []
    opened.drop(jpeg(0), ("broken.jpg", "image/jpeg", b"text"))
    opened.answered(2)
    assert violations() == []
    opened.page.locator(".thumb", has_text="broken.jpg").click()
    assert violations() == []
    opened.page.goto(address + "docs")
    assert violations() == []
