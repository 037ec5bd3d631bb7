"""Results as Arrow rows, and their summary."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayclip.errors import BadVideo, Code, VideoError
from rayclip.output.array_folder import Extraction
from rayclip.report.results import (
    Failure,
    Summary,
    Tally,
    TarCounts,
    VideoResult,
    from_table,
    result_schema,
    to_table,
)

DIM = 4


def with_arrays(video: str, frames: int, fps: float = 25.0) -> VideoResult:
    rng = np.random.default_rng(frames)
    clip = rng.standard_normal((frames, DIM)).astype(np.float32)
    return VideoResult(
        video, frames, extraction=Extraction(clip, np.arange(frames, dtype=np.float64) * 40, fps)
    )


def saved(video: str, frames: int) -> VideoResult:
    return VideoResult(video, frames)


def failed(video: str) -> VideoResult:
    return VideoResult(video, 0, Failure(video, "decode", "no_frames", "nothing decodes", 2))


def assert_same(ours: Sequence[VideoResult], theirs: Sequence[VideoResult]) -> None:
    assert [(r.video, r.model, r.frames, r.failure) for r in ours] == [
        (r.video, r.model, r.frames, r.failure) for r in theirs
    ]
    for mine, yours in zip(ours, theirs, strict=True):
        assert (mine.extraction is None) == (yours.extraction is None)
        if mine.extraction and yours.extraction:
            for one, other in zip(mine.extraction, yours.extraction, strict=True):
                np.testing.assert_array_equal(one, other, strict=isinstance(other, np.ndarray))


# ---- rows ----


@pytest.mark.parametrize(
    "results",
    [
        [with_arrays("a", 3)],
        [with_arrays("a", 1), with_arrays("b", 5), with_arrays("c", 2)],
        [failed("a")],
        [saved("a", 7)],
        [failed("a"), with_arrays("b", 2), saved("c", 9), failed("d"), with_arrays("e", 1)],
        [with_arrays("a", 2, fps=float("nan"))],
        [with_arrays("ü b/日本.mp4", 1)],
        [],
    ],
    ids=["one", "several", "failed", "saved", "mixed", "no-frame-rate", "unicode", "none"],
)
def test_results_round_trip_through_a_table(results: list[VideoResult]) -> None:
    assert_same(list(from_table(to_table(results, DIM))), results)


def test_results_round_trip_through_a_table_of_several_chunks() -> None:
    first, second = [with_arrays("a", 2), failed("b")], [with_arrays("c", 3)]
    table = pa.concat_tables([to_table(first, DIM), to_table(second, DIM)])
    assert table.column("clip").num_chunks == 2
    assert_same(list(from_table(table)), first + second)


def test_results_can_be_read_from_a_slice_of_a_table() -> None:
    results = [with_arrays("a", 2), with_arrays("b", 3), failed("c"), with_arrays("d", 1)]
    assert_same(list(from_table(to_table(results, DIM).slice(1))), results[1:])


def test_an_empty_table_has_no_results() -> None:
    assert list(from_table(result_schema(DIM).empty_table())) == []


@pytest.mark.parametrize(
    "results",
    [[], [failed("a")], [saved("a", 3)], [with_arrays("a", 3)]],
    ids=["none", "failed", "saved", "with-arrays"],
)
def test_the_schema_does_not_depend_on_the_rows(results: list[VideoResult]) -> None:
    assert to_table(results, DIM).schema.equals(result_schema(DIM))


def test_the_columns_are_declared() -> None:
    schema = result_schema(DIM)
    assert schema.field("clip").type == pa.list_(pa.list_(pa.float32(), DIM))
    assert schema.field("timestamps_ms").type == pa.list_(pa.float64())
    assert schema.field("fps").type == pa.float64()
    assert schema.names == [
        "video",
        "model",
        "clip",
        "timestamps_ms",
        "fps",
        "frames",
        "stage",
        "code",
        "error",
        "attempts",
        "tar_videos",
        "tar_skipped",
    ]


def test_a_failed_row_has_its_reason_and_no_arrays() -> None:
    (row,) = to_table([failed("a")], DIM).to_pylist()
    assert row == {
        "video": b"a",
        "model": "",
        "clip": None,
        "timestamps_ms": None,
        "fps": None,
        "frames": 0,
        "stage": "decode",
        "code": "no_frames",
        "error": "nothing decodes",
        "attempts": 2,
        "tar_videos": None,
        "tar_skipped": None,
    }


def test_a_row_that_succeeded_has_its_arrays_and_no_reason() -> None:
    result = with_arrays("a", 2)
    assert result.extraction is not None
    (row,) = to_table([result], DIM).to_pylist()
    assert row["clip"] == result.extraction.clip.tolist()
    assert (row["timestamps_ms"], row["fps"], row["frames"]) == ([0.0, 40.0], 25.0, 2)
    assert [row[name] for name in ("stage", "code", "error", "attempts")] == [None] * 4


def test_the_table_can_be_written_to_parquet() -> None:
    table = to_table([with_arrays("a", 2), failed("b")], DIM)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    assert pq.read_table(pa.BufferReader(sink.getvalue())).to_pylist() == table.to_pylist()


def test_features_in_fortran_order_keep_their_rows() -> None:
    clip = np.asfortranarray(np.arange(12, dtype=np.float32).reshape(3, DIM))
    result = VideoResult("a", 3, extraction=Extraction(clip, np.zeros(3), 25.0))
    assert_same(list(from_table(to_table([result], DIM))), [result])


# ---- failures and summaries ----


@pytest.mark.parametrize("kind", [VideoError, BadVideo])
def test_a_failure_has_the_message_of_the_error(kind: type[VideoError]) -> None:
    error = kind("open", "not_found", "there is no such file")
    assert Failure.of("a.mp4", error, 3) == Failure(
        "a.mp4", "open", "not_found", "there is no such file", 3
    )


def test_a_tally_counts_videos_frames_and_failures() -> None:
    tally = Tally(skipped=4, output_path="out")
    for result in (saved("a", 3), failed("b"), with_arrays("c", 2)):
        tally.add(result)
    assert tally.summary(seconds=1.5) == Summary(
        done=2,
        skipped=4,
        failed=(Failure("b", "decode", "no_frames", "nothing decodes", 2),),
        frames=5,
        seconds=1.5,
        output_path="out",
    )


def test_a_run_that_ends_early_counts_videos_whose_results_did_not_arrive() -> None:
    tally = Tally(skipped=0, output_path="out")
    tally.add(saved("a.mp4", 10))
    tally.report(done=3, frames=40)
    assert (tally.summary(1.0).done, tally.summary(1.0).frames) == (3, 40)
    tally.report(done=0, frames=0)  # more results may have arrived than the control actor knows of
    assert (tally.summary(1.0).done, tally.summary(1.0).frames) == (1, 10)


def test_a_message_may_contain_a_name_that_is_not_utf8() -> None:
    error = VideoError("read", "read_failed", "caf\udce9.mp4 is locked")
    failure = Failure.of("caf\udce9.mp4", error, 1)
    (result,) = from_table(to_table([VideoResult(failure.video, 0, failure)], DIM))
    assert result.failure is not None
    assert result.failure.video == "caf\udce9.mp4"
    assert result.failure.message == r"caf\udce9.mp4 is locked"


def test_a_video_that_several_models_encode_counts_once() -> None:
    tally = Tally(skipped=0, output_path=None)
    error = Failure("b", "encode", Code.NOT_FINITE, "not finite", 1, "two")
    for result in (
        VideoResult("a", 5, model="one"),
        VideoResult("a", 5, model="two"),
        VideoResult("b", 7, model="one"),
        VideoResult("b", 0, error, model="two"),
        VideoResult("b", 7, model="one"),  # given twice, and printed
        VideoResult("b", 7, model="two"),
    ):
        tally.add(result)
    summary = tally.summary(1.0)
    assert (summary.done, summary.frames, summary.failed) == (2, 19, (error,))


def test_models_may_differ_in_the_number_of_their_features() -> None:
    results = [
        VideoResult("a", 2, None, Extraction(np.ones((2, 3), np.float32), np.zeros(2), 25.0), "x"),
        VideoResult("a", 2, None, Extraction(np.ones((2, 5), np.float32), np.zeros(2), 25.0), "y"),
        VideoResult("b", 0, Failure("b", "open", Code.NOT_FOUND, "none", 1, "x"), model="x"),
        VideoResult("c", 4, model="y"),
    ]
    assert_same(list(from_table(to_table(results, None))), results)


def test_the_result_of_a_tar_file_counts_as_no_video() -> None:
    tally = Tally(skipped=0, output_path=None)
    for model in ("one", "two"):
        results = [VideoResult("a.tar/b", 5, model=model), VideoResult("a.tar/c", 7, model=model)]
        tars = [VideoResult("a.tar", 0, model=model, tar=TarCounts(videos=6, skipped=4))]
        for result in from_table(to_table([*results, *tars] if model == "two" else tars, DIM)):
            tally.add(result)
    summary = tally.summary(1.0)
    assert (summary.done, summary.skipped, summary.frames) == (2, 4, 12)
