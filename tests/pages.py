"""The pages of the documentation, and everything in them that a reader can run."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("cluster/*.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LANGUAGES = ("bash", "python", "sql")
"""Of blocks that are run."""

SHOWN = ("", "text", "mermaid")
"""Languages of blocks that only show something: what is printed, or a picture."""

RUN = ("rayclip", "python")
"""Programs of commands that are run. Others change the machine, such as ``pip`` and ``make``, or
need other machines, such as ``ssh``, ``kubectl`` and ``ray start``."""


@dataclass(frozen=True)
class Example:
    """A block of Python or of SQL, or one line of a block of bash.

    Attributes:
        page: path in the repository.
        line: of the page, from 1.
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
    def why_not(self) -> str | None:
        """Why it is not run; None where it is."""
        if self.language != "bash":
            return None
        program = shlex.split(self.text)[0].rpartition("/")[2]
        return None if program in RUN else f"{program} changes this machine or needs others"

    @property
    def needs_ray(self) -> bool:
        """Whether it speaks of a Ray that is already there."""
        return "--address auto" in self.text or "import ray" in self.text.replace("rayclip", "")


def blocks(page: Path) -> list[tuple[int, str, str]]:
    """``(line, language, text)`` of each block; the line is its first one."""
    content = page.read_text()
    return [
        (content.count("\n", 0, found.start(2)) + 1, found[1], found[2])
        for found in FENCE.finditer(content)
    ]


def examples(page: Path) -> list[Example]:
    """What a reader can run, from top to bottom."""
    name = str(page.relative_to(ROOT))
    found = []
    for first, language, text in blocks(page):
        if language in LANGUAGES and language != "bash":
            found.append(Example(name, first, language, text))
        elif language == "bash":
            # a line that ends in a backslash goes on; its lines are counted by the first
            for number, line in enumerate(re.sub(r"\\\n\s*", "", text).splitlines(), first):
                if shlex.split(line, comments=True):
                    found.append(Example(name, number, language, line))
    return found


EXAMPLES = [example for page in PAGES for example in examples(page)]
