"""Module boundaries: what a module may import, and what a process must not load."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from itertools import combinations
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "rayclip"
FLOORS = [
    "io",
    "media",
    "model",
    "output",
    "export",
    "inputs",
    "session",
    "report",
    "search",
    "commands",
    "actors",
    "local",
    "serve",
]
WITHOUT_RAY_OR_TORCH = [
    "media.frames",
    "media.sampling",
    "model.preprocess",
    "output.array_folder",
    "report.results",
    "search.media_process",
    "serve.requests",
    "actors.decoder",
    "run",  # importing ray before preparing a private one would expose that to the network
]


def imports_of(path: Path) -> set[str]:
    """The modules of rayclip that a module imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rayclip."):
            name = str(node.module).removeprefix("rayclip.")
            is_package = (PACKAGE / name).is_dir()
            found |= {f"{name}.{alias.name}" for alias in node.names} if is_package else {name}
    return found


@cache
def modules() -> dict[str, set[str]]:
    """The modules of rayclip, and what each imports."""
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): imports_of(path)
        for path in PACKAGE.rglob("*.py")
        if path.stem not in ("__init__", "__main__")
    }


def test_there_are_no_import_cycles() -> None:
    checked: set[str] = set()

    def check(name: str, importers: tuple[str, ...]) -> None:
        assert name not in importers, f"an import cycle: {' -> '.join([*importers, name])}"
        if name not in checked:
            for imported in modules()[name]:
                check(imported, (*importers, name))
            checked.add(name)

    for name in modules():
        check(name, ())


@pytest.mark.parametrize(("lower", "higher"), list(combinations(FLOORS, 2)))
def test_no_folder_imports_a_higher_one(lower: str, higher: str) -> None:
    for module, imported in modules().items():
        if module.startswith(f"{lower}."):
            assert not [name for name in imported if name.startswith(f"{higher}.")], module


@pytest.mark.parametrize("name", ["cli", "api", "run"])
def test_only_entry_points_import_the_top_modules(name: str) -> None:
    importers = {module for module, imported in modules().items() if name in imported}
    assert importers <= {"cli", "api"}


def loaded_with(names: Sequence[str], watched: set[str]) -> list[list[str]]:
    """Which of the watched modules a process has loaded after each of these imports."""
    code = f"import sys\nfor name in {names}:\n    __import__(name)\n"
    code += f"    print(*sorted({watched} & {{*sys.modules}}))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [line.split() for line in ended.stdout.split("\n")[:-1]]


def test_decoding_processes_import_neither_ray_nor_torch() -> None:
    names = [f"rayclip.{name}" for name in WITHOUT_RAY_OR_TORCH]
    assert loaded_with(names, {"ray", "torch", "clip"}) == [[]] * len(names)


def test_decoding_tasks_load_nothing_of_the_encoders() -> None:
    names = [f"rayclip.actors.{name}" for name in ("decode_task", "encode_step", "segment_tasks")]
    encoders = {"rayclip.actors.batcher", "rayclip.actors.encoder", "torch"}
    assert loaded_with(names, encoders) == [[]] * len(names)


def test_heavy_modules_are_imported_lazily() -> None:
    heavy = {"av", "clip", "fsspec", "huggingface_hub", "numpy", "open_clip", "PIL", "pyarrow"}
    heavy |= {"ray", "starlette", "timm", "torch", "transformers", "uvicorn"}
    assert loaded_with(["rayclip", "rayclip.cli"], heavy) == [[], []]


def test_every_public_name_exists_and_has_a_docstring() -> None:
    import rayclip

    assert sorted(rayclip.__all__) == rayclip.__all__
    for name in rayclip.__all__:
        assert getattr(rayclip, name).__doc__, name


def test_the_page_of_the_architecture_has_a_line_for_each_module_and_no_other() -> None:
    page = (PACKAGE.parent / "docs/architecture.md").read_text()
    lines = re.findall(r"^([\w/]+\.py) +\S", page, re.MULTILINE)
    modules = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py")}
    assert sorted(lines) == sorted(name for name in modules if not name.endswith("__init__.py"))
