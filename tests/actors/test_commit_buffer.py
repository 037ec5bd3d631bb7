"""Extracted videos are buffered, saved together, and done only then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from rayclip.actors.commit_buffer import CommitBuffer, Extracted
from rayclip.errors import RunStopped
from rayclip.io.crash_log import Death
from rayclip.output.rows import Extraction, Row
from rayclip.report.results import Failure, VideoResult

DIM = 4
FRAME = DIM * 4  # bytes


class Attempts:
    """Records its calls."""

    is_retry = False

    def __init__(self) -> None:
        self.log: list[str] = []

    def begin(self, position: int, video: str) -> Sequence[Death]:
        return ()

    def extracted(self, position: int) -> None:
        self.log.append(f"extracted {position}")

    def end(self, position: int, results: Sequence[VideoResult]) -> None:
        (result,) = results
        self.log.append(f"{'failed' if result.failure else 'done'} {position}")


class Writer:
    """Saves rows, or raises."""

    def __init__(self, buffer_bytes: int = 10 * FRAME, buffer_s: float = 1000.0) -> None:
        self.buffer_bytes = buffer_bytes
        self.buffer_s = buffer_s
        self.saved: list[list[str]] = []
        self.error: Exception | None = None
        self.before: int | None = None

    def saved_before(self, video: str) -> int | None:
        return self.before

    def save(self, rows: Sequence[Row]) -> None:
        if self.error is not None:
            raise self.error
        self.saved.append([row.video for row in rows])


def extraction(frames: int) -> Extraction:
    return Extraction(np.zeros((frames, DIM), np.float32), np.zeros(frames), 25.0)


def good(position: int, frames: int = 1) -> Extracted:
    result = VideoResult(f"v{position}", frames, extraction=extraction(frames))
    return Extracted(position, {0: result})


def bad(position: int) -> Extracted:
    failure = Failure(f"v{position}", "open", "not_found", "there is no such file", 1)
    return Extracted(position, {0: VideoResult(f"v{position}", 0, failure)})


def good_with_texts(position: int, texts: int) -> Extracted:
    """With columns of this many bytes."""
    return replace(good(position), columns=pa.table({"txt": ["x" * texts]}))


def taken(saving: CommitBuffer, *made: Extracted) -> list[str]:
    return [result.video for one in made for result in saving.take(one)]


def test_texts_fill_the_buffer_as_well() -> None:
    attempts, writer = Attempts(), Writer()
    saving = CommitBuffer([writer], attempts, keeps_arrays=False)
    assert taken(saving, good_with_texts(0, 4 * FRAME), good_with_texts(1, 4 * FRAME)) == [
        "v0",
        "v1",
    ]


def test_a_video_is_reported_only_after_it_is_saved() -> None:
    attempts, writer = Attempts(), Writer()
    saving = CommitBuffer([writer], attempts, keeps_arrays=False)
    assert taken(saving, good(0), good(1)) == []
    assert (attempts.log, writer.saved) == (["extracted 0", "extracted 1"], [])
    assert [(r.video, r.frames, r.extraction) for r in saving.flush()] == [
        ("v0", 1, None),
        ("v1", 1, None),
    ]
    assert attempts.log[2:] == ["done 0", "done 1"]
    assert writer.saved == [["v0", "v1"]]


def test_videos_are_saved_once_they_have_enough_bytes() -> None:
    writer = Writer(buffer_bytes=10 * FRAME)
    saving = CommitBuffer([writer], Attempts(), keeps_arrays=False)
    assert taken(saving, good(0, 4), good(1, 5)) == []
    assert taken(saving, good(2, 1)) == ["v0", "v1", "v2"]
    assert taken(saving, good(3, 9)) == []
    assert writer.saved == [["v0", "v1", "v2"]]


def test_videos_are_saved_once_they_have_waited_long_enough() -> None:
    saving = CommitBuffer([Writer(buffer_s=0.0)], Attempts(), keeps_arrays=False)
    assert taken(saving, good(0)) == ["v0"]


def test_without_a_writer_results_are_passed_on_at_once() -> None:
    attempts = Attempts()
    (result,) = CommitBuffer([], attempts, keeps_arrays=True).take(good(0, 3))
    assert result.extraction is not None
    assert attempts.log == ["done 0"]


def test_a_saved_video_is_extracted_again_if_its_arrays_are_wanted() -> None:
    writer = Writer()
    writer.before = 3
    assert CommitBuffer([writer], Attempts(), keeps_arrays=False).saved_before(0, "v0") == 3
    assert CommitBuffer([writer], Attempts(), keeps_arrays=True).saved_before(0, "v0") is None


def test_a_failure_keeps_its_place_among_buffered_videos() -> None:
    attempts = Attempts()
    saving = CommitBuffer([Writer()], attempts, keeps_arrays=False)
    assert taken(saving, bad(0)) == ["v0"]
    assert taken(saving, good(1), bad(2)) == []
    assert [result.video for result in saving.flush()] == ["v1", "v2"]
    assert attempts.log == ["failed 0", "extracted 1", "done 1", "failed 2"]


def test_a_write_error_fails_every_buffered_row_and_no_other() -> None:
    attempts, writer = Attempts(), Writer()
    saving = CommitBuffer([writer], attempts, keeps_arrays=False)
    taken(saving, good(0), bad(1), good(2))
    writer.error = OSError(5, "Input/output error")
    results = list(saving.flush())
    assert [
        result.failure and (result.failure.stage, result.failure.code) for result in results
    ] == [
        ("write", "write_failed"),
        ("open", "not_found"),
        ("write", "write_failed"),
    ]
    assert all(result.frames == 0 for result in results)
    assert "done 0" not in attempts.log
    writer.error = None
    assert taken(saving, good(3, 10)) == ["v3"], "the next shard suffers from the last"


def test_no_video_is_done_if_the_folder_refuses_all_writes() -> None:
    attempts, writer = Attempts(), Writer()
    saving = CommitBuffer([writer], attempts, keeps_arrays=False)
    taken(saving, good(0))
    writer.error = RunStopped("full")
    with pytest.raises(RunStopped, match="full"):
        list(saving.flush())
    assert attempts.log == ["extracted 0"]
    assert list(saving.flush()) == []
