"""What is wrong with an output folder, beside that of a run in which nothing happened."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path("clip", "demo")
FEATURES = "_clip.npy"
LOGS = ("run.json", "failures.jsonl")


@dataclass(frozen=True)
class Finished:
    """The videos that were done at a moment: the features file of each and when it was written."""

    written_ns: Mapping[str, int]

    def redone(self, output: Path) -> list[str]:
        """Those whose features were written again since."""
        now = finished(output).written_ns
        return [name for name, written in self.written_ns.items() if now.get(name) != written]


def finished(output: Path) -> Finished:
    """Which videos are done just now."""
    files = (output / FOLDER).glob(f"*{FEATURES}")
    return Finished({file.name: file.stat().st_mtime_ns for file in files})


def temporary_files(output: Path) -> list[Path]:
    """What writers that were killed had begun."""
    return list(output.rglob(".*.tmp"))


def content(output: Path) -> dict[str, bytes]:
    """All files below an output folder, hidden ones too, by their paths in it."""
    files = [file for file in output.rglob("*") if file.is_file()]
    return {str(file.relative_to(output)): file.read_bytes() for file in files}


def what_is_wrong(undisturbed: Mapping[str, bytes], output: Path) -> Iterator[str]:
    """Sentences about files that are missing, other than they should be, or too many.

    Args:
        undisturbed: the :func:`content` of the folder of a run in which nothing happened.
        output: where something did.
    """
    made = content(output)
    for path, expected in undisturbed.items():
        if path not in made:
            yield f"{path} is missing"
        elif Path(path).name not in LOGS and made[path] != expected:
            yield f"{path} has other bits"
    for path in made.keys() - undisturbed.keys():
        if Path(path).name not in LOGS:
            yield f"{path} should not be there"
    failures = made.get(str(FOLDER / "failures.jsonl"), b"").decode()
    for line in failures.splitlines():
        yield f"failures.jsonl: {line}"
