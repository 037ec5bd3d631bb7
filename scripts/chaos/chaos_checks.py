"""Compare an output folder with that of an undisturbed run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path("clip", "demo")
FEATURES = "_clip.npy"
LOGS = ("run.json", "failures.jsonl")


@dataclass(frozen=True)
class Finished:
    """The videos done at one moment: their feature files and modification times."""

    written_ns: Mapping[str, int]

    def redone(self, output: Path) -> list[str]:
        """The feature files that were rewritten since."""
        now = finished(output).written_ns
        return [name for name, written in self.written_ns.items() if now.get(name) != written]


def finished(output: Path) -> Finished:
    """The videos that are done now."""
    files = (output / FOLDER).glob(f"*{FEATURES}")
    return Finished({file.name: file.stat().st_mtime_ns for file in files})


def temporary_files(output: Path) -> list[Path]:
    """Temporary files of killed writers."""
    return list(output.rglob(".*.tmp"))


def content(output: Path) -> dict[str, bytes]:
    """The contents of all files in an output folder, hidden ones included, by relative path."""
    files = [file for file in output.rglob("*") if file.is_file()]
    return {str(file.relative_to(output)): file.read_bytes() for file in files}


def find_errors(undisturbed: Mapping[str, bytes], output: Path) -> Iterator[str]:
    """Sentences about missing, different and unexpected files, and about failures.

    Args:
        undisturbed: the :func:`content` of the output folder of an undisturbed run.
        output: the output folder to check.
    """
    found = content(output)
    for path, expected in undisturbed.items():
        if path not in found:
            yield f"{path} is missing"
        elif Path(path).name not in LOGS and found[path] != expected:
            yield f"{path} has other bits"
    for path in found.keys() - undisturbed.keys():
        if Path(path).name not in LOGS:
            yield f"{path} should not be there"
    failures = found.get(str(FOLDER / "failures.jsonl"), b"").decode()
    for line in failures.splitlines():
        yield f"failures.jsonl: {line}"
