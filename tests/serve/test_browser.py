"""The page in a real browser: Chromium, headless."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser, find_browser
from drawn_collection import picture_of
from served_pages import Drawn, served

from rayclip.serve.collection import video_id

PROGRAM = find_browser()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="there is no Chromium on this machine")

COUNT = "document.querySelectorAll('.moment').length"
CAN_PLAY = "document.createElement('video').canPlayType('video/mp4; codecs=avc1.64001f')"
PICTURES = (
    "(images => images.length && images.every(image => image.complete && image.naturalWidth))"
    "([...document.querySelectorAll('.picture img')].slice(0, 8))"
)
IS_OPEN = "document.querySelector('dialog').open"
TIME = "document.querySelector('video').currentTime"
FOCUSED = "[...document.querySelectorAll('.moment')].indexOf(document.activeElement)"


@pytest.fixture(scope="module")
def address(drawn: Drawn) -> Iterator[str]:
    with served(drawn.output, [drawn.videos]) as url:
        yield url


@pytest.fixture(scope="module")
def opened(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert PROGRAM is not None
    with Browser(PROGRAM, tmp_path_factory.mktemp("profile")) as started:
        started.resize(1280, 900)
        started.open(address)
        if not started.evaluate(CAN_PLAY):
            pytest.skip("this Chromium cannot play H.264")
        yield started


@pytest.fixture
def browser(opened: Browser, address: str) -> Iterator[Browser]:
    """It is at the page's beginning; the page must not complain."""
    opened.resize(1280, 900)
    opened.open(address.split("?")[0])
    yield opened
    assert opened.errors == []


def search(browser: Browser, text: str) -> None:
    browser.wait("document.activeElement.id === 'q'")
    browser.type(text)
    browser.press("Enter")
    browser.wait(f"{COUNT} > 0 && document.readyState === 'complete'")


def query(drawn: Drawn, number: int) -> str:
    return f"a photo of a {drawn.scenes[number].label}"


def test_the_token_leaves_the_address(opened: Browser, address: str) -> None:
    opened.open(address)
    assert opened.evaluate("location.href") == address.split("?")[0]
    assert opened.evaluate("document.cookie") == ""


def test_a_click_plays_the_video_from_that_second(drawn: Drawn, browser: Browser) -> None:
    scene = drawn.scenes[2]
    search(browser, query(drawn, 2))
    browser.wait(PICTURES)
    browser.click(".moment")
    browser.wait(f"{IS_OPEN} && {TIME} > {scene.start_s}")
    assert browser.evaluate(TIME) < scene.start_s + 1.5
    assert browser.evaluate("document.querySelector('#player-note').textContent") == ""


def test_a_video_that_the_browser_cannot_play_is_converted(drawn: Drawn, browser: Browser) -> None:
    search(browser, query(drawn, 9))  # in an AVI file
    browser.click(".moment")
    browser.wait(f"{TIME} > 0 && document.querySelector('video').videoWidth > 0")
    note = browser.evaluate("document.querySelector('#player-note').textContent")
    assert note == "Converted from 0:02 on, without sound."


def test_a_dropped_picture_finds_its_moment(drawn: Drawn, browser: Browser, tmp_path: Path) -> None:
    picture_of(drawn.scenes[5].label, 1).save(tmp_path / "dropped.png")
    browser.drop(tmp_path / "dropped.png")
    browser.wait(f"location.search.startsWith('?picture=') && {COUNT} > 0")
    first = browser.evaluate(
        "(({video, start}) => [video, start])(document.querySelector('.moment').dataset)"
    )
    assert first == [video_id(drawn.scenes[5].video), str(drawn.scenes[5].start_s)]
    assert browser.wait("document.querySelector('.chips img').naturalWidth > 0")


def test_a_dropped_file_that_is_no_picture_is_said(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "dropped.txt").write_text("nonsense")
    browser.drop(tmp_path / "dropped.txt")
    browser.wait("document.querySelector('#status').textContent.includes('cannot be read')")


def test_the_keyboard_is_enough(drawn: Drawn, browser: Browser) -> None:
    search(browser, query(drawn, 1))
    browser.press("ArrowRight")
    assert browser.evaluate(FOCUSED) == 0
    browser.press("ArrowRight")
    browser.press("ArrowDown")
    columns = browser.evaluate(
        "getComputedStyle(document.querySelector('#moments')).gridTemplateColumns.split(' ').length"
    )
    assert browser.evaluate(FOCUSED) == 1 + columns
    browser.press("Home")
    browser.press("Enter")
    browser.wait(f"{IS_OPEN} && {TIME} >= {drawn.scenes[1].start_s}")
    browser.press("Escape")
    browser.wait(f"!{IS_OPEN} && !location.search.includes('at=')")
    assert browser.evaluate(FOCUSED) == 0
    browser.press("/")
    assert browser.evaluate("document.activeElement.id") == "q"
    assert browser.evaluate("document.activeElement.value") == query(drawn, 1)
    browser.press("ArrowDown")
    browser.press("m")
    browser.wait(f"location.search.startsWith('?like=') && {COUNT} > 0")


def test_back_and_forward_go_through_all_states(drawn: Drawn, browser: Browser) -> None:
    search(browser, query(drawn, 2))
    browser.click(".moment")
    browser.wait(f"{IS_OPEN} && {TIME} > 0")
    browser.click("#player-like")
    browser.wait(f"location.search.startsWith('?like=') && {COUNT} > 0")
    browser.evaluate("history.back()")
    browser.wait(f"{IS_OPEN} && location.search.includes('at=')")
    browser.evaluate("history.back()")
    browser.wait(f"!{IS_OPEN} && location.search.startsWith('?q=')")
    browser.evaluate("history.back()")
    browser.wait(f"location.search === '' && {COUNT} === 0")
    browser.evaluate("history.forward()")
    browser.wait(f"!{IS_OPEN} && location.search.startsWith('?q=') && {COUNT} > 0")
    browser.evaluate("history.forward()")
    browser.wait(f"{IS_OPEN} && location.search.includes('at=')")


def test_a_link_that_is_opened_anew_shows_the_same(drawn: Drawn, browser: Browser) -> None:
    search(browser, query(drawn, 2))
    before = browser.evaluate("document.querySelector('#moments').innerText")
    browser.click(".moment")
    browser.wait(f"{IS_OPEN} && {TIME} > 0")
    link = browser.evaluate("document.querySelector('#player-link').href")
    name = browser.evaluate("document.querySelector('#player-name').textContent")
    browser.open("about:blank#anew")
    browser.open(link)
    browser.wait(f"{IS_OPEN} && {TIME} >= {drawn.scenes[2].start_s}")
    assert browser.evaluate("document.querySelector('#player-name').textContent") == name
    assert browser.evaluate("document.querySelector('#moments').innerText") == before


@pytest.mark.parametrize("width", [1280, 400])
def test_nothing_is_cut_off_at_the_side(drawn: Drawn, browser: Browser, width: int) -> None:
    browser.resize(width, 800, dark=width == 400)
    search(browser, query(drawn, 2))
    browser.wait(PICTURES)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    browser.click(".moment")
    browser.wait(f"{IS_OPEN} && {TIME} > 0")
    box = browser.evaluate("document.querySelector('dialog').getBoundingClientRect().toJSON()")
    assert box["left"] >= 0
    assert box["right"] <= width
    assert box["bottom"] <= 800
