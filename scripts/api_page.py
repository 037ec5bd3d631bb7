"""Write docs/api.md from the signatures and docstrings of the public names."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import rayclip

PAGE = Path(__file__).parent.parent / "docs" / "api.md"
HEAD = """# The Python API

Everything in `import rayclip`. This page is generated from the docstrings by
`python scripts/api_page.py`; a test checks that it is current.
"""
FIRST = ["extract", "load_features", "encode", "load_encoder", "iter_frames"]
"""Names that come first; the others follow in alphabetical order."""

OTHER_NAMES = ["ClipModel", "load_clip"]
"""Earlier names of what the page has by another name."""

MAX_LINE = 90
SECTION = re.compile(r"^(Args|Attributes|Returns|Yields|Raises):$", re.MULTILINE)
ENTRY = re.compile(r"^    (\w[\w, ]*): (.*)$")


def page() -> str:
    """The whole page."""
    names = [*FIRST, *(name for name in rayclip.__all__ if name not in {*FIRST, *OTHER_NAMES})]
    return "\n".join([HEAD, *(entry(name, getattr(rayclip, name), "##") for name in names)])


def entry(name: str, thing: Any, heading: str) -> str:
    """The entry of a public name: its signature, docstring and methods."""
    lines = [f"{heading} {name}", ""]
    if inspect.isfunction(thing):
        lines += ["```text", signature(name, thing), "```", ""]
    lines += [in_markdown(inspect.cleandoc(thing.__doc__)), ""]
    if inspect.isclass(thing) and not issubclass(thing, Exception | tuple):
        for method, function in inspect.getmembers(thing, inspect.isfunction):
            if not method.startswith("_") and function.__doc__:
                lines.append(entry(method, function, "###"))
    return "\n".join(lines)


def signature(name: str, function: Any) -> str:
    """The signature of a function, with one argument per line if it is long."""
    found = inspect.signature(function)
    parameters = [p for p in found.parameters.values() if p.name != "self"]
    arguments = [argument(parameter) for parameter in parameters]
    kinds = [parameter.kind for parameter in parameters]
    if inspect.Parameter.KEYWORD_ONLY in kinds:
        arguments.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "*")
    text = f"{name}({', '.join(arguments)}) -> {found.return_annotation}"
    if len(text) <= MAX_LINE:
        return text
    return "\n    ".join([f"{name}(", *(f"{text}," for text in arguments)]) + (
        f"\n) -> {found.return_annotation}"
    )


def argument(parameter: inspect.Parameter) -> str:
    """A parameter as written in a signature."""
    text = f"{parameter.name}: {annotation(parameter.annotation)}"
    if parameter.default is not inspect.Parameter.empty:
        text += f" = {parameter.default!r}"
    return text


def annotation(kind: Any) -> str:
    """A type as written in source code, evaluated or not."""
    text = kind if isinstance(kind, str) else inspect.formatannotation(kind)
    text = re.sub(r"\b(?:typing|collections\.abc|fractions)\.", "", text)
    return re.sub(r"^Optional\[(.*)\]$", r"\1 | None", text)  # how Python writes Literal | None


def in_markdown(docstring: str) -> str:
    """A Google-style docstring as Markdown: its sections become lists."""
    text = docstring.replace("``", "`")
    text = re.sub(r":(?:meth|func|class|data):`~?([^`]*)`", r"`\1`", text)
    parts = SECTION.split(text)
    lines = [parts[0].rstrip()]
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        lines += ["", f"**{title}**", "", as_list(body)]
    return "\n".join(lines)


def as_list(body: str) -> str:
    """The entries of a section as a list; other text is unchanged."""
    lines = []
    for line in body.strip("\n").splitlines():
        found = ENTRY.match(line)
        if found:
            lines.append(f"- `{found[1]}`: {found[2]}")
        else:
            lines.append(
                f"  {line.strip()}"
                if lines and lines[-1].startswith(("- ", "  "))
                else line.strip()
            )
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page())
