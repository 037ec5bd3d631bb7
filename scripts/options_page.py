"""Write docs/options.md from the options that ``Settings`` declares."""

from __future__ import annotations

from pathlib import Path

from rayclip.options import GROUPS, Option, with_flags
from rayclip.settings import OPTIONS

PAGE = Path(__file__).parent.parent / "docs" / "options.md"
HEAD = """# Options

Options of `rayclip extract`. `rayclip.extract` takes the same in Python, called with underscores:
`--extraction-fps 5` is `extraction_fps=5`; `rayclip.encode` takes [some of them](api.md#encode).
On the command line `--extraction_fps 5` and `extraction_fps=5` will do, too. This page is made of
`rayclip/settings.py` by `python scripts/options_page.py`; a test holds it against that.
"""


def page() -> str:
    """The whole page: a table for each group."""
    lines = [HEAD]
    for group in GROUPS:
        lines += [f"## {group.capitalize()}", "", "| option | default | meaning |"]
        lines += ["| --- | --- | --- |"]
        lines += [row(one) for one in OPTIONS.values() if one.group == group]
        lines.append("")
    return "\n".join(lines)


def row(one: Option) -> str:
    """An option's line of the table."""
    written = "VIDEO_PATHS …" if one.name == "video_paths" else one.flag
    default = f"`{one.default}`" if one.default else ""
    return f"| `{written}` | {default} | {with_flags(one.text, OPTIONS)} |"


if __name__ == "__main__":
    PAGE.write_text(page())
