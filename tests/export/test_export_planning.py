"""Which parts of an export are written: their numbers have no gaps."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rayclip.export.hdf5 import Hdf5Format
from rayclip.export.planning import group_files, plan_parts
from rayclip.export.records import Part
from rayclip.export.source import SourceFile
from rayclip.export.webdataset import WebDatasetFormat


class Small(WebDatasetFormat):
    part_bytes = 10
    part_files = 3


def files(stamps: list[int]) -> list[SourceFile]:
    return [SourceFile(f"{stamp}", 4, stamp) for stamp in stamps]


def part(*stamps: int) -> Part:
    return Part(stamps, {f"file-{stamps}": 1}, len(stamps), len(stamps))


def sizes(parts: dict[int, Part]) -> dict[str, int]:
    return {name: size for one in parts.values() for name, size in one.files.items()}


def test_files_are_grouped_by_size_by_number_and_by_columns() -> None:
    def grouped(*found: tuple[int, str]) -> list[list[int]]:
        listed = [
            SourceFile(str(number), size, number, columns)
            for number, (size, columns) in enumerate(found)
        ]
        return [[file.stamp for file in group] for group in group_files(listed, Small())]

    assert grouped((4, ""), (6, ""), (1, "")) == [[0, 1], [2]]
    assert grouped((99, ""), (1, ""), (99, "")) == [[0], [1], [2]]
    assert grouped((1, ""), (1, ""), (1, ""), (1, "")) == [[0, 1, 2], [3]]
    assert grouped((1, "a"), (1, "b"), (1, "a")) == [[0, 2], [1]]
    assert grouped() == []


def test_a_single_file_is_written_again_if_anything_is_new() -> None:
    parts = {0: part(1, 2)}
    assert plan_parts(files([1, 2]), parts, sizes(parts), Hdf5Format()).new == {}
    plan = plan_parts(files([1, 2, 3]), parts, sizes(parts), Hdf5Format())
    assert (plan.kept, plan.forgotten) == ({}, parts)
    assert [file.stamp for file in plan.new[0]] == [1, 2, 3]


@given(
    st.lists(st.lists(st.integers(0, 30), unique=True, max_size=4), max_size=6),
    st.sets(st.integers(0, 30)),
)
def test_every_saved_file_is_in_one_part_and_numbers_have_no_gaps(
    exported: list[list[int]], saved: set[int]
) -> None:
    seen: set[int] = set()
    parts = {}
    for number, stamps in enumerate(exported):
        parts[number] = part(*(stamp for stamp in stamps if stamp not in seen))
        seen |= {*stamps}
    plan = plan_parts(files(sorted(saved)), parts, sizes(parts), Small())
    numbers = sorted([*plan.kept, *plan.new])
    assert numbers == list(range(len(numbers)))
    stamps = [stamp for kept in plan.kept.values() for stamp in kept.sources]
    stamps += [file.stamp for group in plan.new.values() for file in group]
    assert sorted(stamps) == sorted(saved)
    assert plan.kept.keys() | plan.forgotten.keys() == parts.keys()


def test_a_part_whose_file_is_gone_is_written_again() -> None:
    parts = {0: part(1), 1: part(2)}
    plan = plan_parts(files([1, 2]), parts, {"file-(2,)": 1}, Small())
    assert ({*plan.kept}, {*plan.new}) == ({1}, {0})
