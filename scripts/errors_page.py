"""Write docs/errors.md from the error codes in rayclip/errors.py."""

from __future__ import annotations

from pathlib import Path

from rayclip.errors import Code

PAGE = Path(__file__).parent.parent / "docs" / "errors.md"
HEAD = """# Error codes

A video that fails has a stage, a code and a sentence: in `failures.jsonl`, in `error` columns, in
`rayclip.VideoError`. The codes do not change; the sentences may. What is retried, and what stops
a run: [what happens when something fails](reliability.md). This page is generated from
`rayclip/errors.py` by `python scripts/errors_page.py`; a test checks that it is current.

| code | stage | meaning | what to do |
| --- | --- | --- | --- |
"""


def page() -> str:
    """The whole page."""
    return HEAD + "".join(
        f"| `{code}` | {', '.join(code.stages)} | {code.meaning} | {code.remedy} |\n"
        for code in Code
    )


if __name__ == "__main__":
    PAGE.write_text(page())
