"""``failures.jsonl`` says which videos have no features, and why."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from rayclip.errors import RunStopped
from rayclip.output.array_folder import ArrayFolder
from rayclip.report import failures
from rayclip.report.failures import MAX_REWRITE_SHARE, MIN_REWRITE_INTERVAL_S, FailureLog
from rayclip.report.results import Failure, VideoResult


@pytest.fixture
def folder(tmp_path: Path) -> ArrayFolder:
    folder = ArrayFolder(str(tmp_path / "out"), 4, {})
    folder.prepare()
    return folder


def failed(video: str, code: str = "not_found", attempts: int = 1) -> VideoResult:
    return VideoResult(video, 0, Failure(video, "open", code, "there is no such file", attempts))


def succeeded(video: str) -> VideoResult:
    return VideoResult(video, 3)


def failures_after(folder: ArrayFolder, *results: VideoResult) -> list[str]:
    """The videos in the file after a run with these results."""
    log = FailureLog(folder)
    for result in results:
        log.add(result)
    log.write()
    return [failure["video"] for failure in folder.read_failures()]


def test_a_line_has_the_video_stage_code_message_and_attempts(folder: ArrayFolder) -> None:
    failures_after(folder, failed("a.mp4", attempts=2))
    assert folder.read_failures() == [
        {
            "video": "a.mp4",
            "stage": "open",
            "code": "not_found",
            "message": "there is no such file",
            "attempts": 2,
        }
    ]


def test_only_videos_that_failed_are_in_the_file(folder: ArrayFolder) -> None:
    assert failures_after(folder, failed("a"), succeeded("b"), failed("c")) == ["a", "c"]


def test_a_run_without_failures_writes_no_file(folder: ArrayFolder, tmp_path: Path) -> None:
    failures_after(folder, succeeded("a"))
    assert not (tmp_path / "out" / "failures.jsonl").exists()


def test_failures_of_earlier_runs_are_kept(folder: ArrayFolder) -> None:
    failures_after(folder, failed("a"))
    assert failures_after(folder, failed("b")) == ["a", "b"]


def test_a_video_that_succeeds_later_is_removed_from_the_file(folder: ArrayFolder) -> None:
    failures_after(folder, failed("a"), failed("b"))
    assert failures_after(folder, succeeded("a")) == ["b"]


def test_the_file_is_empty_once_all_have_succeeded(folder: ArrayFolder) -> None:
    failures_after(folder, failed("a"))
    assert failures_after(folder, succeeded("a")) == []


def test_a_video_that_fails_again_has_one_line_with_the_last_reason(folder: ArrayFolder) -> None:
    failures_after(folder, failed("a", "not_found"))
    failures_after(folder, failed("a", "no_frames"))
    assert [failure["code"] for failure in folder.read_failures()] == ["no_frames"]


def test_the_file_is_not_rewritten_for_every_failure(folder: ArrayFolder) -> None:
    log = FailureLog(folder)
    log.add(failed("a"))
    assert MIN_REWRITE_INTERVAL_S > 1
    assert folder.read_failures() == []


def test_the_file_is_rewritten_during_a_long_run(
    folder: ArrayFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rayclip.report.failures.MIN_REWRITE_INTERVAL_S", -1.0)
    FailureLog(folder).add(failed("a"))
    assert [failure["video"] for failure in folder.read_failures()] == ["a"]


def test_a_file_that_takes_long_to_write_is_written_less_often(
    folder: ArrayFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s, written_s = 0.0, []

    def write(failures: object) -> None:
        nonlocal now_s
        written_s.append(now_s)
        now_s += 5

    monkeypatch.setattr(failures, "time", SimpleNamespace(monotonic=lambda: now_s))
    monkeypatch.setattr(folder, "write_failures", write)
    log = FailureLog(folder)
    while now_s < 1000:
        log.add(failed(f"v{now_s}"))
        now_s += 1
    assert len(written_s) == 4
    assert 5 * len(written_s) / 1000 <= MAX_REWRITE_SHARE


def test_a_video_that_another_run_finished_is_removed_from_the_file(folder: ArrayFolder) -> None:
    failures_after(folder, failed("a"), failed("b"))
    log = FailureLog(folder, lambda video: video == "a")
    log.write()
    assert [failure["video"] for failure in folder.read_failures()] == ["b"]


def test_earlier_failures_are_known_with_their_codes(folder: ArrayFolder) -> None:
    failures_after(folder, failed("a", "not_found"), failed("b", "no_frames"))
    log = FailureLog(folder, lambda video: video == "a")
    log.add(failed("c"))
    assert log.failed_before == {"b": "no_frames"}


class Unwritable(ArrayFolder):
    """A folder whose writes fail for a while."""

    error: Exception | None = None

    def write_failures(self, failures: object) -> None:
        if self.error is not None:
            raise self.error
        super().write_failures(failures)  # type: ignore[arg-type]


@pytest.fixture
def unwritable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Unwritable:
    monkeypatch.setattr(failures, "MAX_REWRITE_SHARE", float("inf"))
    monkeypatch.setattr("rayclip.report.failures.MIN_REWRITE_INTERVAL_S", -1.0)
    folder = Unwritable(str(tmp_path / "out"), 4, {})
    folder.prepare()
    return folder


def test_a_run_goes_on_if_one_write_fails(unwritable: Unwritable) -> None:
    log = FailureLog(unwritable)
    unwritable.error = ConnectionResetError("gone")
    log.add(failed("a"))
    unwritable.error = None
    log.add(failed("b"))
    assert [failure["video"] for failure in unwritable.read_failures()] == ["a", "b"]


def test_a_run_stops_if_nothing_can_be_written(unwritable: Unwritable) -> None:
    log = FailureLog(unwritable)
    unwritable.error = RunStopped("There is no space left")
    with pytest.raises(RunStopped, match="no space left"):
        log.add(failed("a"))


def test_a_failed_last_write_is_reported(unwritable: Unwritable) -> None:
    log = FailureLog(unwritable)
    unwritable.error = ConnectionResetError("gone")
    log.add(failed("a"))
    with pytest.raises(RunStopped, match=r"failures\.jsonl cannot be written: gone\."):
        log.write()
