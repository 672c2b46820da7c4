"""What a reader of the page may misread or miss: rounded numbers, unchecked doubts, the order, messages of faults."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, ViewportSize, expect

from .chromium import browser as chromium
from .test_page import DESK, PHONE, Visit, chrome, jpeg, visit

__all__ = ["chrome", "visit"]

THRESHOLD = 0.2013085
NEVER_ALL = 0.9973  # a sensitivity that misses one of 372 melanomas
BEYOND_THE_WINDOW = """[...document.querySelectorAll("body *")]
  .filter((each) => each.getBoundingClientRect().right > innerWidth + 1 && !each.closest(".scroll, .thumbs"))
  .map((each) => `${each.tagName} ${each.id} ${each.className} ${each.textContent.trim().slice(0, 40)}`)"""
SERVER_GONE = "The server cannot be reached. Is it still running?"


def say(page: Page, **values: object) -> None:
    """Let the server answer with these values for an image."""

    def change(route: Route) -> None:
        answer = route.fetch().json()
        answer["images"][0].update(values)
        route.fulfill(json=answer)

    page.route("**/v1/predict*", change)


def test_no_rounding_contradicts_a_call_or_hides_a_miss(chrome: Browser, address: str) -> None:
    opened = Visit(chrome, "about:blank", viewport=DESK)
    page = opened.page

    def change(route: Route) -> None:
        model = route.fetch().json()
        label = model["labels"]["MEL"]
        label["threshold"] = label["operating_points"][0]["threshold"] = THRESHOLD
        label["operating_points"][0] |= {"sensitivity": NEVER_ALL, "positives": 372, "negatives": 1623}
        route.fulfill(json=model)

    page.route("**/v1/model", change)
    say(page, MEL=THRESHOLD - 0.0001, MEL_positive=False)
    page.goto(address, wait_until="networkidle")
    opened.drop(jpeg(0))
    opened.answered(1)
    expect(page.locator(".headline")).to_contain_text("20.12% does not reach the threshold of 20.13%.")
    expect(page.locator(".headline")).to_contain_text("images like the training’s, of which 18.6% show melanoma")
    expect(page.locator(".points tr", has_text="20.13%")).to_contain_text(">99%")
    say(page, MEL=0.0003, MEL_positive=False)
    opened.drop(jpeg(1))
    opened.answered(2)
    expect(page.locator(".headline .big")).to_have_text("<0.1%")
    opened.context.close()


def test_what_was_not_checked_is_a_doubt_everywhere(visit: Callable[..., Visit]) -> None:
    opened = visit()
    page = opened.page
    say(page, doubts=[], doubt_codes=[], seen_in_training="not checked", out_of_distribution=None)
    opened.drop(jpeg(0))
    opened.answered(1)
    expect(page.locator(".doubts h3")).to_have_text("2 doubts about this answer")
    expect(page.locator(".badge")).to_contain_text("2 doubts")
    expect(page.locator("#table tbody tr")).to_contain_text("It was not checked whether the model was trained on this")


def test_doubts_are_read_out_before_the_nearest_cases(visit: Callable[..., Visit]) -> None:
    opened = visit()
    opened.page.locator("#example-list button").first.click()
    opened.answered(1)
    expect(opened.page.locator(".neighbours li")).to_have_count(6)
    text = opened.page.locator("#detail").aria_snapshot()
    places = [text.index(each) for each in ("The run was trained on", "Probability of melanoma", "Nearest known cases")]
    assert places == sorted(places)


def test_paper_says_how_far_to_trust_a_map(visit: Callable[..., Visit]) -> None:
    opened = visit()
    opened.drop(jpeg(0))
    opened.answered(1)
    opened.page.locator("#strength").fill("60")
    expect(opened.page.locator("#evidence-note")).to_contain_text("Blurring the marked")
    note = opened.page.locator("#evidence-note").inner_text()
    opened.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    expect(opened.page.locator("#paper")).to_contain_text(f"Evidence for Melanoma. {note}")


def test_faults_are_named_as_they_are_and_pass(visit: Callable[..., Visit], tmp_path: Path) -> None:
    opened = visit()
    page = opened.page
    opened.drop(jpeg(0))
    opened.answered(1)
    page.route("**/v1/e*/**", lambda route: route.abort())
    page.route("**/v1/explain*", lambda route: route.abort())
    page.locator("#strength").fill("60")
    expect(page.locator("#evidence-note")).to_have_text(SERVER_GONE)
    page.locator("#example-list button").first.click()
    expect(page.locator("#toast")).to_have_text(SERVER_GONE)
    page.unroute("**/v1/e*/**")
    page.unroute("**/v1/explain*")
    page.locator("#strength").fill("40")
    expect(page.locator("#evidence-note")).to_contain_text("Blurring the marked")  # asked again

    (tmp_path / "moved.jpg").write_bytes(jpeg(1)[2])
    page.route("**/v1/predict*", lambda route: route.abort())
    page.locator("#files").set_input_files(tmp_path / "moved.jpg")
    expect(page.locator("#result")).to_contain_text(SERVER_GONE)
    page.unroute("**/v1/predict*")
    (tmp_path / "moved.jpg").unlink()
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#result")).to_contain_text("The browser cannot read it")
    assert all(each.startswith("Failed to load resource") for each in opened.wrong)
    opened.wrong.clear()


def test_a_reader_with_large_letters_loses_nothing(chrome: Browser, address: str) -> None:
    flags = ["--no-sandbox", "--blink-settings=defaultFontSize=32"]
    browser = chrome.browser_type.launch(executable_path=chromium(), args=flags)
    opened = Visit(browser, address, viewport=PHONE)
    opened.drop(jpeg(0))
    opened.answered(1)
    assert opened.page.evaluate("getComputedStyle(document.body).fontSize") == "32px"
    assert opened.page.evaluate(BEYOND_THE_WINDOW) == []
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    browser.close()


def test_images_that_failed_together_are_tried_again_together(visit: Callable[..., Visit]) -> None:
    opened = visit()
    page = opened.page
    page.route("**/v1/predict*", lambda route: route.abort())
    opened.drop(*(jpeg(number) for number in range(3)))
    retry = page.locator("#retry")
    expect(retry).to_have_text("Send 3 images again")
    expect(page.locator("#status")).to_have_text("0 of 3 images answered; 3 have no answer")
    page.unroute("**/v1/predict*")
    refusal = {"title": "", "status": 413, "detail": "The request is too large."}
    page.route("**/v1/predict*", lambda route: route.fulfill(status=413, json=refusal))
    opened.drop(jpeg(4), jpeg(5))
    expect(page.locator(".badge.bad")).to_have_count(5)
    expect(retry).to_have_text("Send 3 images again")  # those that are too large stay so
    expect(page.locator("#result")).to_contain_text("The server refused it")
    expect(page.locator("#result button")).to_have_count(0)
    page.locator("#remove").click()
    page.locator("#remove").click()
    page.unroute("**/v1/predict*")
    retry.focus()
    page.keyboard.press("Enter")
    expect(page.locator(".thumb[aria-current]")).to_be_focused()
    opened.answered(3)
    expect(page.locator(".badge.bad")).to_have_count(0)
    expect(retry).to_be_hidden()
    opened.wrong.clear()


@pytest.mark.parametrize("size", [DESK, PHONE])
def test_the_list_shows_the_image_that_the_arrows_reach(visit: Callable[..., Visit], size: ViewportSize) -> None:
    opened = visit(viewport=size)
    page = opened.page
    page.route("**/v1/predict*", lambda route: route.abort())
    opened.drop(*(jpeg(number) for number in range(16)))
    expect(page.locator(".badge.bad")).to_have_count(16)
    current = page.locator(".thumb[aria-current]")
    expect(current).to_be_in_viewport(ratio=0.9)
    for _ in range(15):
        page.locator("#next").click()
    place = page.evaluate("scrollY")
    expect(current).to_contain_text("15.jpg")
    in_sight = "[...document.querySelectorAll('.thumb[aria-current]')].map((each) => each.getBoundingClientRect())"
    (box,) = page.evaluate(in_sight)
    assert 0 <= box["left"] < box["right"] <= size["width"]
    assert size == PHONE or 0 <= box["top"] < box["bottom"] <= size["height"]
    assert page.evaluate("scrollY") == place
    opened.wrong.clear()


@pytest.mark.parametrize("width", [390, 768, 1080, 1280])
def test_the_sessions_table_is_never_wider_than_its_card(visit: Callable[..., Visit], width: int) -> None:
    opened = visit(viewport={"width": width, "height": 844})
    opened.drop(jpeg(0), ("broken.jpg", "image/jpeg", jpeg(1)[2][:700]))
    opened.answered(2)
    rows = opened.page.locator("#table tbody tr")
    for cell in (rows.nth(0).locator("td").last, rows.nth(1).locator("td")):
        box = cell.bounding_box()
        assert box is not None
        assert box["x"] + box["width"] <= width
    expect(rows.nth(1)).to_contain_text("it cannot be decoded (image file is truncated")  # long: it must wrap
    assert opened.page.evaluate(
        "document.querySelector('.scroll').scrollWidth <= document.querySelector('.scroll').clientWidth"
    )
