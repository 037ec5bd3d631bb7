"""The pages of the documentation and their runnable examples."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("cluster/*.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LANGUAGES = ("bash", "python", "sql")
"""Languages of blocks that are run."""

SHOWN = ("", "text", "mermaid")
"""Languages of blocks that only show output or a picture."""

RUN = ("rayclip", "python")
"""Programs that are run. Others change the machine, such as ``pip`` and ``make``, or need other
machines, such as ``ssh``, ``kubectl`` and ``ray start``."""


@dataclass(frozen=True)
class Example:
    """A block of Python or SQL, or one line of a bash block.

    Attributes:
        page: path in the repository.
        line: line number in the page, from 1.
        language: one of :data:`LANGUAGES`.
        text: the block or the line.
    """

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def skip_reason(self) -> str | None:
        """Why it is not run; None if it is."""
        if self.language != "bash":
            return None
        words = shlex.split(self.text)
        if words[:2] == ["rayclip", "serve"]:
            return "it runs until it is interrupted"
        program = words[0].rpartition("/")[2]
        return None if program in RUN else f"{program} changes this machine or needs others"

    @property
    def needs_ray(self) -> bool:
        """Whether it needs a running Ray cluster."""
        return "--address auto" in self.text or "import ray" in self.text.replace("rayclip", "")


def blocks(page: Path) -> list[tuple[int, str, str]]:
    """``(first line, language, text)`` of each block."""
    content = page.read_text()
    return [
        (content.count("\n", 0, found.start(2)) + 1, found[1], found[2])
        for found in FENCE.finditer(content)
    ]


def examples(page: Path) -> list[Example]:
    """The runnable examples of a page, from top to bottom."""
    name = str(page.relative_to(ROOT))
    found = []
    for first, language, text in blocks(page):
        if language in LANGUAGES and language != "bash":
            found.append(Example(name, first, language, text))
        elif language == "bash":
            # Continued lines are joined, so later line numbers are too small.
            for number, line in enumerate(re.sub(r"\\\n\s*", "", text).splitlines(), first):
                if shlex.split(line, comments=True):
                    found.append(Example(name, number, language, line))
    return found


EXAMPLES = [example for page in PAGES for example in examples(page)]
