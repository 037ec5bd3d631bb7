"""The pages of the documentation: what a reader can run works, and links lead somewhere."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import api_page
import options_page
import public_stub
import pytest
from pages import EXAMPLES, LANGUAGES, PAGES, ROOT, SHOWN, Example, blocks
from run_cli import ON_LOOPBACK

WITH_RAY = {example.page for example in EXAMPLES if example.needs_ray}
README = ROOT / "README.md"

Ended = dict[str, tuple[bool, str]]


def run_pages(folder: Path, pages: set[str], cluster: str | None) -> Ended:
    """How the examples of some pages end, by ``page:line``, and what they say."""
    tests = Path(__file__).parent
    paths = os.pathsep.join(map(str, (ROOT, tests, ROOT / "scripts")))
    environment = {**os.environ, **ON_LOOPBACK, "PYTHONPATH": paths}
    if cluster is not None:
        environment["RAY_ADDRESS"] = cluster
    ended = subprocess.run(
        [sys.executable, tests / "run_pages.py", folder, cluster or "", *sorted(pages)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    found: Ended = json.loads((folder / "ended.json").read_text())
    return found


@pytest.fixture(scope="module")
def ended_without_ray(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    pages = {example.page for example in EXAMPLES} - WITH_RAY
    return run_pages(tmp_path_factory.mktemp("readers"), pages, None)


@pytest.fixture(scope="module")
def ended_with_ray(cluster: str, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    return run_pages(tmp_path_factory.mktemp("readers"), WITH_RAY, cluster)


def of_pages(examples: list[Example]) -> list[object]:
    """As parameters; those of pages that speak of a Ray wait for one."""
    return [
        pytest.param(one, id=str(one), marks=[pytest.mark.ray] if one.page in WITH_RAY else [])
        for one in examples
    ]


@pytest.mark.parametrize("example", of_pages(EXAMPLES))
def test_an_example_works_after_those_above_it(
    example: Example, request: pytest.FixtureRequest
) -> None:
    if example.why_not is not None:
        pytest.skip(example.why_not)
    name = "ended_with_ray" if example.page in WITH_RAY else "ended_without_ray"
    ended: Ended = request.getfixturevalue(name)
    has_gone_well, said = ended[str(example)]
    assert has_gone_well, said


@pytest.mark.ray
def test_the_python_of_the_readme_finds_what_its_commands_have_done(ended_with_ray: Ended) -> None:
    (block,) = (one for one in EXAMPLES if one.page == README.name and one.language == "python")
    said = ended_with_ray[str(block)][1]
    assert said.splitlines()[0] == "0 2 []"
    assert "(1, 64)" in said


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_is_of_a_language_that_is_run_or_only_shown(page: Path) -> None:
    assert {language for _, language, _ in blocks(page)} <= {*LANGUAGES, *SHOWN}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_our_own_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / unquote(path)).resolve() if path else page
        assert there.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors(there), f"{page.name} links to {target}"


def test_the_readme_leads_to_every_page() -> None:
    linked = re.findall(r"\]\(([^)\s#]+)", README.read_text())
    assert {str(page.relative_to(ROOT)) for page in PAGES} - {README.name} <= set(linked)


def test_the_page_of_the_api_is_true_to_the_docstrings() -> None:
    assert api_page.PAGE.read_text() == api_page.page(), "run python scripts/api_page.py"


def test_the_page_of_the_options_is_true_to_their_declarations() -> None:
    assert options_page.PAGE.read_text() == options_page.page(), (
        "run python scripts/options_page.py"
    )


def test_type_checkers_see_the_functions_as_they_are() -> None:
    assert public_stub.STUB.read_text() == public_stub.stub(), "run python scripts/public_stub.py"


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ +(.*)$", page.read_text(), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in plain}
