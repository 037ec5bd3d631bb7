"""The documentation: its examples work, its links resolve, its generated pages are current."""

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

Results = dict[str, tuple[bool, str]]


def run_pages(folder: Path, pages: set[str], cluster: str | None) -> Results:
    """The results of the examples of these pages, by ``page:line``: success and output."""
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
    results: Results = json.loads((folder / "results.json").read_text())
    return results


@pytest.fixture(scope="module")
def results_without_ray(tmp_path_factory: pytest.TempPathFactory) -> Results:
    pages = {example.page for example in EXAMPLES} - WITH_RAY
    return run_pages(tmp_path_factory.mktemp("readers"), pages, None)


@pytest.fixture(scope="module")
def results_with_ray(cluster: str, tmp_path_factory: pytest.TempPathFactory) -> Results:
    return run_pages(tmp_path_factory.mktemp("readers"), WITH_RAY, cluster)


def as_parameters(examples: list[Example]) -> list[object]:
    """Test parameters; examples of pages that need a cluster are marked ``ray``."""
    return [
        pytest.param(e, id=str(e), marks=[pytest.mark.ray] if e.page in WITH_RAY else [])
        for e in examples
    ]


@pytest.mark.parametrize("example", as_parameters(EXAMPLES))
def test_an_example_works_after_those_above_it(
    example: Example, request: pytest.FixtureRequest
) -> None:
    if example.skip_reason is not None:
        pytest.skip(example.skip_reason)
    name = "results_with_ray" if example.page in WITH_RAY else "results_without_ray"
    results: Results = request.getfixturevalue(name)
    succeeded, output = results[str(example)]
    assert succeeded, output


@pytest.mark.ray
def test_the_python_of_the_readme_finds_the_output_of_its_commands(
    results_with_ray: Results,
) -> None:
    (block,) = (e for e in EXAMPLES if e.page == README.name and e.language == "python")
    output = results_with_ray[str(block)][1]
    assert output.splitlines()[0] == "0 2 []"
    assert "(1, 64)" in output


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_has_a_known_language(page: Path) -> None:
    assert {language for _, language, _ in blocks(page)} <= {*LANGUAGES, *SHOWN}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_our_own_pages_resolve(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / unquote(path)).resolve() if path else page
        assert file.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors(file), f"{page.name} links to {target}"


def test_the_readme_links_to_every_page() -> None:
    linked = re.findall(r"\]\(([^)\s#]+)", README.read_text())
    assert {str(page.relative_to(ROOT)) for page in PAGES} - {README.name} <= set(linked)


def test_the_api_page_is_current() -> None:
    assert api_page.PAGE.read_text() == api_page.page(), "run python scripts/api_page.py"


def test_the_options_page_is_current() -> None:
    assert options_page.PAGE.read_text() == options_page.page(), (
        "run python scripts/options_page.py"
    )


def test_the_stub_for_type_checkers_is_current() -> None:
    assert public_stub.STUB.read_text() == public_stub.stub(), "run python scripts/public_stub.py"


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub generates from headings."""
    headings = re.findall(r"^#+ +(.*)$", page.read_text(), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in plain}
