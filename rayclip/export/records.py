"""What a target holds: ``export.json``, and in ``.export`` a record of each part."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from rayclip.console import shown
from rayclip.errors import UsageError
from rayclip.io.concurrent_map import concurrent_map
from rayclip.io.folder import Folder

T = TypeVar("T")

EXPORT_FILE = "export.json"
STALE_FILE = ".export/stale.json"
PART_FILE = re.compile(r"\.export/(?P<number>\d{6,})\.json")


@dataclass(frozen=True)
class Part:
    """A part of an export that is written.

    Attributes:
        sources: the stamps of the saved files that it was made from.
        files: its files, and their sizes in bytes.
        videos: the number of its videos.
        rows: the number of their exported features.
    """

    sources: tuple[int, ...]
    files: Mapping[str, int]
    videos: int
    rows: int


class Records:
    """The records in a target. They do not count until they are written, which is last."""

    def __init__(self, target: Folder) -> None:
        self._target = target

    def agree(self, record: Mapping[str, Any], is_empty: bool) -> None:
        """Check that the target is empty, or was made from the same source with the same options;
        write ``export.json``.

        Args:
            record: ``source``, ``format`` and the options.
            is_empty: whether the target has no files.

        Raises:
            UsageError: it is not.
            RunStopped: it cannot be written.
        """
        url = shown(self._target.url)
        content = self._target.read(EXPORT_FILE)
        if content is None:
            if not is_empty:
                raise UsageError(
                    f"{url} has files and no {EXPORT_FILE}, so no export made it: name another "
                    "folder."
                )
            self._put(EXPORT_FILE, _as_json(record, indent=2))
            return
        before = self._parsed(EXPORT_FILE, content, dict)
        changed = [
            f"{name}={before.get(name)} (now {value})"
            for name, value in record.items()
            if before.get(name) != value
        ]
        if changed:
            raise UsageError(
                f"{url} was made with {', '.join(changed)}: choose another target, or remove it."
            )

    def parts(self, files: Iterable[str]) -> dict[int, Part]:
        """Read the records among these files of the target, by the numbers of their parts."""
        found = sorted(file for file in files if PART_FILE.fullmatch(file))
        parts = concurrent_map(self._read_part, found)
        return {_number(file): part for file, part in zip(found, parts, strict=True) if part}

    def write(self, number: int, part: Part) -> None:
        """Record that a part is written."""
        self._put(_part_file(number), _as_json(asdict(part)))

    def forget(self, parts: Mapping[int, Part]) -> None:
        """Forget parts. Their files are stale from now on, unless another part writes them."""
        if not parts:
            return
        files = {file for part in parts.values() for file in part.files}
        self._put(STALE_FILE, _as_json(sorted(files | self.stale())))
        self._target.remove_files(_part_file(number) for number in parts)

    def stale(self) -> set[str]:
        """Return the files of forgotten parts."""
        content = self._target.read(STALE_FILE)
        return self._parsed(STALE_FILE, content, set) if content else set()

    def remove_stale(self, current: Iterable[str], listed: Container[str]) -> int:
        """Remove the files of forgotten parts that no other part has; returns how many.

        Args:
            current: the files of all other parts.
            listed: the files that the target had; a record may name files outside.
        """
        stale = self.stale()
        if not stale:
            return 0
        removed = [file for file in stale - set(current) if file in listed]
        self._target.remove_files(removed)
        self._target.remove_files([STALE_FILE])
        return len(removed)

    def _put(self, file: str, content: bytes) -> None:
        self._target.prepare_parent(file)
        self._target.write_once(file, lambda opened: opened.write(content))

    def _read_part(self, file: str) -> Part | None:
        content = self._target.read(file)
        if content is None:
            return None
        return self._parsed(file, content, _as_part)

    def _parsed(self, file: str, content: bytes, build: Callable[[Any], T]) -> T:
        try:
            return build(json.loads(content))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UsageError(
                f"{shown(f'{self._target.url}/{file}')} is damaged ({error!r}): remove the target "
                "and export again."
            ) from error


def _as_part(record: Any) -> Part:
    return Part(
        tuple(map(int, record["sources"])),
        {str(name): int(size) for name, size in record["files"].items()},
        int(record["videos"]),
        int(record["rows"]),
    )


def _part_file(number: int) -> str:
    return f".export/{number:06}.json"


def _number(file: str) -> int:
    found = PART_FILE.fullmatch(file)
    assert found is not None, file
    return int(found["number"])


def _as_json(value: Any, indent: int | None = None) -> bytes:
    return (json.dumps(value, indent=indent) + "\n").encode()
