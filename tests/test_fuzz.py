"""Damaged videos are done or failures: none crashes its process, hangs, or exhausts its memory."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from fuzz_mutations import MUTATIONS, parse_boxes, splice
from fuzz_videos import FRAMES, UNTOUCHED, draw_sources, make_mutants
from oversized_videos import decode_in_process

from rayclip.media.watchdog import PROCESS_MEMORY

VIDEOS = 60


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return draw_sources(tmp_path_factory.mktemp("fuzz") / "sources")


def test_damaged_videos_of_many_formats_give_frames_or_an_error_code(
    sources: list[Path], tmp_path: Path
) -> None:
    """`scripts/fuzz/fuzz.py` does the same with thousands, on Ray."""
    mutants = list(make_mutants(sources, VIDEOS, 0, tmp_path / "videos"))
    ends = decode_in_process(*(mutant.path for mutant in mutants))
    assert len(ends) == len(mutants)
    for mutant, end in zip(mutants, ends, strict=True):
        assert end.status == 0
        assert (end.frames > 0) or end.code is not None, mutant.path.name
        assert (end.frames, end.code) == (FRAMES, None) or mutant.mutation != UNTOUCHED
        assert end.peak < PROCESS_MEMORY
    assert {end.code for end in ends} > {None, "not_a_video"}, "the damage has too little effect"


def test_the_same_seed_gives_the_same_damage(sources: list[Path], tmp_path: Path) -> None:
    twice = [list(make_mutants(sources, 20, 7, tmp_path / folder)) for folder in "ab"]
    for first, second in zip(*twice, strict=True):
        assert first.path.read_bytes() == second.path.read_bytes()
    third = list(make_mutants(sources, 20, 8, tmp_path / "c"))
    assert [m.path.read_bytes() for m in third] != [m.path.read_bytes() for m in twice[0]]


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_every_mutation_changes_most_files(mutation: str, sources: list[Path]) -> None:
    rng, data = random.Random(0), sources[0].read_bytes()
    changed = [MUTATIONS[mutation](data, data, rng) != data for _ in range(20)]
    assert sum(changed) > 15


def test_spliced_boxes_are_still_boxes(sources: list[Path]) -> None:
    rng = random.Random(0)
    (whole, fragments) = (path.read_bytes() for path in sources[:2])
    boxes = parse_boxes(whole)
    assert boxes is not None
    assert b"".join(map(bytes, boxes)) == whole
    spliced = [splice(whole, fragments, rng) for _ in range(20)]
    kept = [data for data in spliced if data[4:8] == b"ftyp"]  # others lost that very box
    assert len(kept) > 10
    assert all(parse_boxes(data) is not None for data in kept)
