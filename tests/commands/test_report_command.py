"""``rayclip report``: one file that shows a run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
import shapes
from run_cli import call

from rayclip.commands.report import NO_VIDEO

CHROMIUM = shutil.which("chromium")
NO_PAGE = "not an origin"  # the initiator of what a browser asks for itself
HOSTILE = "<script>alert(1)<"  # a file name cannot have the slash of the end tag
TEXTS = "[red circle, <b>blue star</b>]"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos, one that fails, their features, and the page."""
    folder = tmp_path_factory.mktemp("reported")
    for name in ("cat.mp4", f"{HOSTILE}.mp4"):
        path, scenes = folder / name, [("red", "circle"), ("blue", "star")]
        shapes.write_video(path, scenes, width=64, height=48, fps=5)
    (folder / "bad.mp4").write_text("nonsense")
    words = ["--model-name", "demo", "--on-extraction", "save_numpy", "--address", "none"]
    ended = call("extract", folder, *words, "--output-path", folder / "features")
    assert ended.status == 1
    ended = call("report", folder / "features", "--texts", TEXTS, "--to", folder / "page.html")
    assert ended.status == 0, ended.stderr
    return folder


class Page(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_the_page_shows_the_run_its_failures_and_its_videos(folder: Path) -> None:
    page = Page(folder / "page.html")
    for text in ("demo", "not_a_video", "libav does not recognise", "bad.mp4", "cat", "0:00.0"):
        assert text in page.text
    assert len(page.all("img")) == 2 * 2 + 2 * 12  # moments of two texts, and two timelines
    assert len(page.all("polyline")) == 2 * 2
    assert (folder / "page.html").stat().st_size < 2 * 5_000_000 / 20


def test_names_and_texts_are_only_text(folder: Path) -> None:
    page = Page(folder / "page.html")
    assert HOSTILE in page.text
    assert "<b>blue star</b>" in page.text
    assert page.all("script") == []
    assert HOSTILE not in (folder / "page.html").read_text()


def test_the_page_refers_to_nothing_outside(folder: Path) -> None:
    page = Page(folder / "page.html")
    references = [
        value or ""
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "data", "action", "background", "style")
    ]
    assert references
    assert all(value.startswith("data:image/jpeg;base64,") for value in references)
    assert not re.search(r"url\(|@import|https?:", (folder / "page.html").read_text())


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium to open the page with")
def test_a_browser_opens_the_page_without_any_other_request(folder: Path, tmp_path: Path) -> None:
    log, picture = tmp_path / "net.json", tmp_path / "page.png"
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    flags += ["--disable-component-update", f"--user-data-dir={tmp_path / 'profile'}"]
    flags += [f"--log-net-log={log}", f"--screenshot={picture}", "--window-size=1280,2000"]
    page = (folder / "page.html").as_uri()
    subprocess.run([str(CHROMIUM), *flags, page], check=True, capture_output=True, timeout=60)
    assert picture.stat().st_size > 20_000
    requests = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    of_pages = [r["url"] for r in requests if r.get("initiator", NO_PAGE) != NO_PAGE and "url" in r]
    assert [url for url in of_pages if not url.startswith(("file:", "data:"))] == []


def test_a_report_without_texts_and_without_videos_still_comes(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "x.mp4").touch()
    words = ["--videos", tmp_path, "--to", tmp_path / "page.html"]
    ended = call("report", folder / "features", *words)
    assert ended.status == 0, ended.stderr
    page = Page(tmp_path / "page.html")
    assert page.text.count(NO_VIDEO) == 2
    assert page.all("img") == page.all("polyline") == []


def test_a_report_of_a_run_in_progress_shows_what_is_done(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "features", tmp_path / "features")
    files = tmp_path / "features/clip/demo"
    (files / "cat_clip.npy").unlink()  # as if it were not written yet
    ended = call("report", tmp_path / "features", "--to", tmp_path / "page.html")
    assert ended.status == 0, ended.stderr
    assert "cat" not in Page(tmp_path / "page.html").text
    shutil.copy(folder / "features/clip/demo/cat_clip.npy", files)
    assert call("report", tmp_path / "features", "--to", tmp_path / "page.html").status == 0
    assert "cat" in Page(tmp_path / "page.html").text


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--to", "no/such/folder.html"], "name a file in an existing local folder"),
        (["--to", "memory://page.html"], "name a file in an existing local folder"),
        (["--texts", "[a, a]"], "A text is given twice"),
    ],
)
def test_what_is_wrong_is_one_sentence(folder: Path, words: list[str], sentence: str) -> None:
    ended = call("report", folder / "features", *words)
    assert ended.status == 2
    assert sentence in ended.stderr
