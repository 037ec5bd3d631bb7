"""Which parts of an export are current, and which parts are to be written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from rayclip.export.format import Format
from rayclip.export.records import Part
from rayclip.export.source import SourceFile


class Plan(NamedTuple):
    """What an export does.

    Attributes:
        kept: the parts that are current, by their numbers.
        forgotten: the parts that are not.
        new: the saved files of each part to be written, by its number.
    """

    kept: dict[int, Part]
    forgotten: dict[int, Part]
    new: dict[int, list[SourceFile]]


def plan_parts(
    files: Iterable[SourceFile],
    parts: Mapping[int, Part],
    sizes: Mapping[str, int],
    export_format: Format,
) -> Plan:
    """Compare what is saved with what is exported.

    The numbers of all parts stay without gaps, since readers name ranges of them.

    Args:
        files: the saved files, in the order in which they are read.
        parts: the parts of the target, by their numbers.
        sizes: the sizes of the target's files in bytes.
        export_format: the format.
    """
    saved = {file.stamp: file for file in files}
    kept = {
        number: part
        for number, part in parts.items()
        if all(stamp in saved for stamp in part.sources)
        and all(sizes.get(name) == size for name, size in part.files.items())
    }
    while True:
        exported = {stamp for part in kept.values() for stamp in part.sources}
        left = [file for stamp, file in saved.items() if stamp not in exported]
        if export_format.part_bytes is None and left and kept:
            kept = {}
            continue
        groups = list(group_files(left, export_format))
        total = len(kept) + len(groups)
        if all(number < total for number in kept):
            break
        kept = {number: part for number, part in kept.items() if number < total}
    free = [number for number in range(total) if number not in kept]
    forgotten = {number: part for number, part in parts.items() if number not in kept}
    return Plan(kept, forgotten, dict(zip(free, groups, strict=True)))


def group_files(files: Iterable[SourceFile], export_format: Format) -> Iterator[list[SourceFile]]:
    """Divide files into parts; those with different columns are never in the same one."""
    groups: dict[str, list[SourceFile]] = {}
    sizes: dict[str, int] = {}
    most = export_format.part_bytes
    for file in files:
        group = groups.setdefault(file.columns, [])
        size = sizes.get(file.columns, 0) + file.size
        is_full = size > (most or size) or len(group) == export_format.part_files
        if group and most is not None and is_full:
            yield group
            group = groups[file.columns] = []
            size = file.size
        group.append(file)
        sizes[file.columns] = size
    yield from (group for group in groups.values() if group)
