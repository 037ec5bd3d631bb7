"""Write rayclip/__init__.pyi: what type checkers and editors know of the public names.

They cannot see signatures that are made when Python runs, as those with options are.
"""

from __future__ import annotations

import inspect
import textwrap
from pathlib import Path
from typing import Any

from api_page import signature

import rayclip

STUB = Path(rayclip.__file__).with_suffix(".pyi")
HEAD = """# Written by scripts/public_stub.py; a test holds it against the signatures.
import os
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any, Literal

import ray.data
"""
WITH_OPTIONS = ("extract", "encode")


def stub() -> str:
    """The whole file."""
    imports = [
        f"from {getattr(rayclip, name).__module__} import {name} as {name}"
        for name in rayclip.__all__
        if name not in WITH_OPTIONS
    ]
    functions = [definition(name, getattr(rayclip, name)) for name in WITH_OPTIONS]
    return "\n".join([HEAD, *sorted(imports), "", "__version__: str", "", *functions])


def definition(name: str, function: Any) -> str:
    """A function's head and docstring."""
    doc = textwrap.indent(f'"""{inspect.getdoc(function)}\n"""', "    ")
    return f"def {signature(name, function)}:\n{doc}\n"


if __name__ == "__main__":
    STUB.write_text(stub())
