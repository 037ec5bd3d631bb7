"""Write docs/options.md from the options that ``Settings`` declares."""

from __future__ import annotations

from pathlib import Path

from rayclip.options import GROUPS, Option, with_flags
from rayclip.settings import OPTIONS

PAGE = Path(__file__).parent.parent / "docs" / "options.md"
HEAD = """# Options

Options of `rayclip extract`. In Python, `rayclip.extract` takes the same options with underscores:
`--extraction-fps 5` is `extraction_fps=5`; `rayclip.encode` takes [some of them](api.md#encode).
The command line also accepts `--extraction_fps 5` and `extraction_fps=5`. This page is generated
from the fields of `Settings` by `python scripts/options_page.py`; a test checks that it is current.
"""


def page() -> str:
    """The whole page: a table for each group."""
    lines = [HEAD]
    for group in GROUPS:
        lines += [f"## {group.capitalize()}", "", "| option | default | meaning |"]
        lines += ["| --- | --- | --- |"]
        lines += [row(option) for option in OPTIONS.values() if option.group == group]
        lines.append("")
    return "\n".join(lines)


def row(option: Option) -> str:
    """The row of an option in the table."""
    flag = "VIDEO_PATHS …" if option.name == "video_paths" else option.flag
    default = f"`{option.default}`" if option.default else ""
    return f"| `{flag}` | {default} | {with_flags(option.text, OPTIONS)} |"


if __name__ == "__main__":
    PAGE.write_text(page())
