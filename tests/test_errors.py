"""Error codes: one enumeration, true to what the package raises, and the page made from it."""

from __future__ import annotations

import ast
import json
import pickle
from collections import defaultdict
from pathlib import Path

import errors_page
import pytest

from rayclip.errors import BadVideo, Code, VideoError

PACKAGE = Path(__file__).parent.parent / "rayclip"
STAGES = ("open", "read", "decode", "encode", "write")


def raised() -> tuple[set[str], dict[str, set[str]]]:
    """The codes that the package names, and those stages at which it raises them literally."""
    named, stages = set(), defaultdict(set)
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if _code(node):
                named.add(_code(node))
            if isinstance(node, ast.Call):
                for stage, code in zip(node.args, node.args[1:], strict=False):
                    if _code(code) and isinstance(stage, ast.Constant):
                        stages[_code(code)].add(stage.value)
    return named, stages


def _code(node: ast.AST) -> str:
    is_code = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    return node.attr if is_code and node.value.id == "Code" else ""


def test_every_code_is_used_and_only_at_the_stages_that_it_names() -> None:
    named, stages = raised()
    assert named == set(Code.__members__)
    for code, found in stages.items():
        assert found <= set(Code[code].stages), code


@pytest.mark.parametrize("code", Code)
def test_a_code_has_stages_a_meaning_and_a_remedy(code: Code) -> None:
    assert code.stages
    assert set(code.stages) <= set(STAGES)
    for sentence in (code.meaning, code.remedy):
        assert sentence.endswith(".")
        assert "|" not in sentence  # it is a cell of a table


def test_a_code_is_a_plain_string_outside_of_python() -> None:
    error = BadVideo("open", Code.NOT_FOUND, "there is no such file")
    assert json.dumps(error.code) == '"not_found"'
    assert f"{error.code}" == "not_found"


def test_an_error_can_be_pickled() -> None:
    error = pickle.loads(pickle.dumps(VideoError("read", Code.READ_FAILED, "no route to host")))
    assert (error.stage, error.code, str(error)) == ("read", Code.READ_FAILED, "no route to host")
    assert error.code.meaning == Code.READ_FAILED.meaning


def test_the_page_of_codes_is_current() -> None:
    assert errors_page.PAGE.read_text() == errors_page.page(), "run python scripts/errors_page.py"
