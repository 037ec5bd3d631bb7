"""Boundaries that must hold: what a module may import, and what a process must not load."""

from __future__ import annotations

import ast
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "rayclip"
FLOORS = ["io", "media", "model", "output", "inputs", "session", "report", "commands", "actors"]
WITHOUT_RAY_OR_TORCH = [
    "media.frames",
    "media.sampling",
    "model.preprocess",
    "output.storage",
    "report.results",
    "actors.decoder",
    "run",  # an import of ray before a private one is prepared would put that on the network
]


def imports_of(path: Path) -> set[str]:
    """The modules of rayclip that a module imports, in functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rayclip."):
            name = str(node.module).removeprefix("rayclip.")
            is_package = (PACKAGE / name).is_dir()
            found |= {f"{name}.{one.name}" for one in node.names} if is_package else {name}
    return found


MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): imports_of(path)
    for path in PACKAGE.rglob("*.py")
    if path.stem not in ("__init__", "__main__")
}


def test_no_module_imports_itself_through_others() -> None:
    reached: dict[str, set[str]] = {}

    def below(name: str, above: tuple[str, ...]) -> set[str]:
        assert name not in above, f"a circle: {' -> '.join([*above, name])}"
        if name not in reached:
            lower = MODULES[name]
            reached[name] = lower.union(*(below(one, (*above, name)) for one in lower))
        return reached[name]

    for name in MODULES:
        below(name, ())


@pytest.mark.parametrize(("lower", "higher"), list(combinations(FLOORS, 2)))
def test_no_folder_imports_a_higher_one(lower: str, higher: str) -> None:
    for module, imported in MODULES.items():
        if module.startswith(f"{lower}."):
            assert not [one for one in imported if one.startswith(f"{higher}.")], module


@pytest.mark.parametrize("name", ["cli", "api", "run"])
def test_nothing_but_the_surface_imports_the_top(name: str) -> None:
    users = {module for module, lower in MODULES.items() if name in lower}
    assert users <= {"cli", "api"}


@pytest.mark.parametrize("name", WITHOUT_RAY_OR_TORCH)
def test_decoding_processes_stay_small(name: str) -> None:
    code = f"import sys, rayclip.{name}; print({{'ray', 'torch', 'clip'}} & set(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "set()\n"


@pytest.mark.parametrize("name", ["decode_task", "encode_step", "segment_tasks"])
def test_decoding_tasks_load_nothing_of_the_encoders(name: str) -> None:
    encoders = {"rayclip.actors.batcher", "rayclip.actors.encoder", "torch"}
    code = f"import sys, rayclip.actors.{name}; print({encoders} & set(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "set()\n"


@pytest.mark.parametrize("name", ["rayclip", "rayclip.cli"])
def test_nothing_waits_for_heavy_imports_before_it_needs_them(name: str) -> None:
    heavy = {"av", "clip", "fsspec", "numpy", "PIL", "pyarrow", "ray", "torch"}
    code = f"import sys, {name}; print({heavy} & set(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "set()\n"


def test_every_public_name_is_there_and_explained() -> None:
    import rayclip

    assert sorted(rayclip.__all__) == rayclip.__all__
    for name in rayclip.__all__:
        assert getattr(rayclip, name).__doc__, name
