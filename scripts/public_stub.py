"""Write rayclip/__init__.pyi, the public names as seen by type checkers and editors.

They cannot see signatures that are built at run time, such as those with options.
"""

from __future__ import annotations

import inspect
import textwrap
from pathlib import Path
from typing import Any

from api_page import signature

import rayclip

STUB = Path(rayclip.__file__).with_suffix(".pyi")
HEAD = """# Written by scripts/public_stub.py; a test checks that it is current.
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
    """The signature and docstring of a function."""
    doc = textwrap.indent(f'"""{inspect.getdoc(function)}\n"""', "    ")
    return f"def {signature(name, function)}:\n{doc}\n"


if __name__ == "__main__":
    STUB.write_text(stub())
