"""Searches through an index."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import output_folders
import pytest
from numpy.typing import NDArray

from rayclip.errors import UsageError
from rayclip.output.array_folder import ArrayFolder
from rayclip.output.rows import Extraction
from rayclip.search.index import CURRENT, FrameIndex, index_location, open_index, update_index
from rayclip.search.indexed import coverage, indexed_moments
from rayclip.search.moments import Found, Query, moments

DIM = output_folders.DIM
RUN = {"model_name": "demo", "dim": DIM}

pytest.importorskip("usearch", reason="usearch is not installed (rayclip[index])")


@pytest.fixture
def folder(tmp_path: Path) -> ArrayFolder:
    made = output_folders.a_run(tmp_path)
    for number in range(12):
        add(made, f"v{number}", number)
    return made


def add(folder: ArrayFolder, name: str, seed: int, frames: int = 30) -> None:
    rng = np.random.default_rng(seed)
    clip = rng.standard_normal(DIM) + 0.5 * np.cumsum(rng.standard_normal((frames, DIM)), axis=0)
    folder.commit(name, Extraction(clip.astype(np.float32), np.arange(frames) * 40.0, 25.0))


def vector(seed: int) -> NDArray[np.float32]:
    drawn = np.random.default_rng(seed).standard_normal(DIM).astype(np.float32)
    return drawn / np.linalg.norm(drawn)


QUERIES = [Query(f"q{seed}", vector(seed)) for seed in range(50, 54)]


def update(folder: ArrayFolder) -> tuple[FrameIndex, int]:
    return update_index(folder, RUN, lambda frames: None, lambda error: None)


def through_index(folder: ArrayFolder) -> Found:
    index = open_index(index_location(folder), RUN)
    assert index is not None
    covered = coverage(index, folder)
    assert covered is not None
    return indexed_moments(index, covered, folder, QUERIES, 5)


def same(found: Found, exact: Found) -> bool:
    pairs = zip(found.moments, exact.moments, strict=True)
    return (found.videos, found.frames) == (exact.videos, exact.frames) and all(
        (ours.query, ours.video, ours.best_s) == (theirs.query, theirs.video, theirs.best_s)
        and abs(ours.score.cosine - theirs.score.cosine) < 1e-6
        and abs(ours.score.stands_out - theirs.score.stands_out) < 1e-4
        for ours, theirs in pairs
    )


def test_the_answer_is_the_exact_one(folder: ArrayFolder) -> None:
    assert update(folder)[1] == 12 * 30
    assert same(through_index(folder), moments(folder, QUERIES, 5))


def test_what_is_newer_than_the_index_is_found_too(folder: ArrayFolder) -> None:
    update(folder)
    folder.commit("new", Extraction(np.stack([QUERIES[0].vector] * 9), np.arange(9.0), 25.0))
    found = through_index(folder)
    assert same(found, moments(folder, QUERIES, 5))
    assert "new" in {moment.video for moment in found.moments}


def test_an_update_adds_only_what_is_new(folder: ArrayFolder) -> None:
    update(folder)
    add(folder, "later", 99)
    index, new = update(folder)
    assert (index.frames, new) == (13 * 30, 30)
    assert update(folder)[1] == 0
    assert same(through_index(folder), moments(folder, QUERIES, 5))
    assert len([p for p in index_location(folder).iterdir() if p.is_dir()]) == 1


@pytest.mark.parametrize("change", ["removed", "replaced"])
def test_an_index_of_files_that_changed_is_not_used_and_made_anew(
    folder: ArrayFolder, change: str
) -> None:
    update(folder)
    file = Path(folder.url) / "v3_clip.npy"
    file.unlink()
    if change == "replaced":
        add(folder, "v3", 77)
        os.utime(file, (1, 1))
    index = open_index(index_location(folder), RUN)
    assert index is not None
    assert coverage(index, folder) is None
    assert update(folder)[0].frames == (11 if change == "removed" else 12) * 30
    assert same(through_index(folder), moments(folder, QUERIES, 5))


def test_an_index_of_another_run_or_a_damaged_one_is_not_opened(folder: ArrayFolder) -> None:
    update(folder)
    location = index_location(folder)
    assert open_index(location, {**RUN, "weights_sha256": "other"}) is None
    current = json.loads((location / CURRENT).read_text())
    (vectors,) = location.glob("*/*.usearch")
    vectors.write_bytes(vectors.read_bytes()[:100])
    assert open_index(location, RUN) is None
    (location / CURRENT).write_text(json.dumps({**current, "folder": "gone"}))
    assert open_index(location, RUN) is None
    assert update(folder)[1] == 12 * 30


def test_without_usearch_a_sentence_says_what_to_install(
    folder: ArrayFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    with pytest.raises(UsageError, match=r"pip install 'rayclip\[index\]'"):
        update(folder)
