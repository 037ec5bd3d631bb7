"""Videos whose features come back from encoders: repeated frames and temporary files."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import IO, Any

import numpy as np
import pytest

from rayclip.actors.pending_video import PendingVideo, repeated
from rayclip.errors import Code, VideoError
from rayclip.output import spool
from rayclip.output.spool import SLICE

FEATURES = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.mark.parametrize("repeats", [[1, 1, 1], [2, 0, 3], [0, 0, 0]])
def test_each_feature_is_repeated_as_often_as_its_frame(repeats: list[int]) -> None:
    blocks = [np.empty((0, 4), np.float32), *repeated(FEATURES, repeats)]
    assert np.array_equal(np.concatenate(blocks), np.repeat(FEATURES, repeats, axis=0))


def test_a_frame_that_is_shown_for_hours_never_takes_more_than_a_block() -> None:
    times = SLICE // FEATURES[0].nbytes
    blocks = [*repeated(FEATURES, [times, 5 * times, 1])]
    assert max(block.nbytes for block in blocks) <= SLICE
    assert sum(len(block) for block in blocks) == 6 * times + 1
    assert np.array_equal(blocks[0][-1], FEATURES[0])
    assert np.array_equal(blocks[-1][-1], FEATURES[2])


def finish(video: PendingVideo) -> None:
    with video:
        video.wait()
        extraction = video.extraction(video.models[0])
    assert np.array_equal(extraction.clip, FEATURES)


def fail(video: PendingVideo) -> None:
    video.fail(VideoError("decode", Code.NO_FRAMES, "no frame"))
    with video, pytest.raises(VideoError, match="no frame"):
        video.extraction(video.models[0])


@pytest.mark.parametrize("end", [finish, fail, PendingVideo.reset])
def test_the_temporary_file_is_closed_when_a_video_ends(
    end: Callable[[PendingVideo], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[IO[bytes]] = []
    create: Callable[..., IO[bytes]] = tempfile.TemporaryFile

    def recorded(*arguments: Any, **options: Any) -> IO[bytes]:
        opened.append(create(*arguments, **options))
        return opened[-1]

    monkeypatch.setattr(tempfile, "TemporaryFile", recorded)
    monkeypatch.setattr(spool, "MAX_IN_MEMORY", 0)
    video = PendingVideo("a.mp4", 0, 1)
    video.take(np.arange(3.0), [FEATURES])
    end(video)
    assert [file.closed for file in opened] == [True]
