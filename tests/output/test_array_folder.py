"""The output folder: files, their order, and complete videos."""

import errno
import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from rayclip.errors import RunStopped, UsageError
from rayclip.io import atomic_write, retry
from rayclip.io.retry import RetryPolicy
from rayclip.output import spool
from rayclip.output.array_folder import (
    NUMPY,
    ArrayFolder,
    Extraction,
    model_folder,
)
from rayclip.output.done import name_hash
from rayclip.output.formats import file_format
from rayclip.output.spool import FeatureSpool

DIM = 4


def extraction(frames: int = 3, dim: int = DIM) -> Extraction:
    clip = np.arange(frames * dim, dtype=np.float32).reshape(frames, dim)
    return Extraction(clip, np.arange(frames, dtype=np.float64) * 40, 25.0)


def opened(url: str | Path) -> ArrayFolder:
    folder = ArrayFolder(str(url), DIM, {})
    folder.prepare()
    return folder


def names(url: str | Path) -> list[str]:
    fs, root = fsspec.core.url_to_fs(str(url))
    return sorted(name.rpartition("/")[2] for name in fs.ls(root, detail=False))


def cut(url: str, name: str, size: int) -> None:
    """Leave the first bytes of a file."""
    fs, root = fsspec.core.url_to_fs(url)
    fs.pipe_file(f"{root}/{name}", fs.cat_file(f"{root}/{name}")[:size])


@pytest.fixture(params=["local", "file-url", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path, memory_url: str) -> str:
    """The same folder three times: every rule holds on every storage."""
    local = tmp_path / "deep" / "er"
    return {"local": str(local), "file-url": f"file://{local}", "memory": memory_url}[request.param]


# ---- writing ----


def test_a_video_becomes_three_files(url: str) -> None:
    opened(url).commit("cat", extraction())
    assert names(url) == ["cat_clip.npy", "cat_fps.npy", "cat_timestamps_ms.npy"]


def test_numpy_reads_back_what_was_committed(tmp_path: Path) -> None:
    saved = extraction()
    opened(tmp_path).commit("cat", saved)
    clip = np.load(tmp_path / "cat_clip.npy")
    timestamps_ms = np.load(tmp_path / "cat_timestamps_ms.npy")
    fps = np.load(tmp_path / "cat_fps.npy")
    assert (clip.dtype, timestamps_ms.dtype, fps.dtype) == (np.float32, np.float64, np.float64)
    assert (clip.shape, timestamps_ms.shape, fps.shape) == ((3, DIM), (3,), ())
    np.testing.assert_array_equal(clip, saved.clip)
    np.testing.assert_array_equal(timestamps_ms, saved.timestamps_ms)
    assert fps == saved.fps


@pytest.mark.parametrize("stem", ["a b", "a.b", "ünï", "日本", "a%20b", "-", "a'b\"c"])
def test_any_name_can_be_committed(url: str, stem: str) -> None:
    folder = opened(url)
    folder.commit(stem, extraction(2))
    assert (folder.committed_frames(stem), stem in folder.done()) == (2, True)


def test_the_name_of_a_file_that_is_not_utf8_can_be_committed(tmp_path: Path) -> None:
    stem = os.fsdecode(b"caf\xe9")
    folder = opened(tmp_path)
    folder.commit(stem, extraction(2))
    assert stem in folder.done()


def test_other_files_with_names_that_are_not_utf8_are_ignored(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9_clip.npy")).write_bytes(bytes(NUMPY.overhead[2] + 4 * DIM))
    assert len(opened(tmp_path).done()) == 0


def test_the_features_file_is_written_after_the_others(tmp_path: Path) -> None:
    (tmp_path / "cat_clip.npy").mkdir()  # so that its writing fails
    with pytest.raises(OSError, match="cat_clip"):
        opened(tmp_path).commit("cat", extraction())
    assert names(tmp_path) == ["cat_clip.npy", "cat_fps.npy", "cat_timestamps_ms.npy"]
    assert (tmp_path / "cat_clip.npy").is_dir()


@pytest.mark.parametrize("suffix", ["_fps.npy", "_timestamps_ms.npy"])
def test_no_features_file_is_written_if_another_file_failed(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"cat{suffix}").mkdir()
    with pytest.raises(OSError, match=suffix):
        opened(tmp_path).commit("cat", extraction())
    assert not (tmp_path / "cat_clip.npy").exists()


def test_a_write_that_fails_leaves_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "cat_fps.npy").mkdir()
    with pytest.raises(OSError, match="cat_fps"):
        opened(tmp_path).commit("cat", extraction())
    assert names(tmp_path) == ["cat_fps.npy"]


def test_a_commit_leaves_no_temporary_file(tmp_path: Path) -> None:
    opened(tmp_path).commit("cat", extraction())
    assert all(not name.startswith(".") for name in os.listdir(tmp_path))


def test_a_second_commit_replaces_the_first(url: str) -> None:
    folder = opened(url)
    folder.commit("cat", extraction(3))
    folder.commit("cat", extraction(5))
    assert folder.committed_frames("cat") == 5


@pytest.mark.parametrize("feature_dtype", ["float32", "float16"])
@pytest.mark.parametrize("on_extraction", ["save_numpy", "save_pickle"])
def test_a_long_video_gives_the_same_files_as_one_in_memory(
    url: str,
    on_extraction: str,
    feature_dtype: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = file_format(on_extraction, feature_dtype)
    folder = ArrayFolder(url, DIM, {}, files)
    folder.prepare()
    folder.commit("memory", extraction(25))
    monkeypatch.setattr(spool, "MAX_IN_MEMORY", 0)
    monkeypatch.setattr(spool, "SLICE", 10 * DIM * 4)
    monkeypatch.setattr(
        atomic_write, "SPOOL_BYTES", 0
    )  # remote: every file is uploaded from a disk
    with FeatureSpool() as spooled:
        spooled.append(extraction(25).clip)
        folder.commit("disk", extraction(25)._replace(clip=spooled.array()))
    fs, root = fsspec.core.url_to_fs(url)
    for kind in ("_clip", "_timestamps_ms", "_fps"):
        memory, disk = (f"{root}/{name}{kind}{files.suffix}" for name in ("memory", "disk"))
        assert fs.cat_file(memory) == fs.cat_file(disk)
    assert (len(folder.done()), folder.done().frames) == (2, 50)


# ---- what is done ----


def test_nothing_is_done_in_a_folder_that_does_not_exist(url: str) -> None:
    folder = ArrayFolder(url, DIM, {})
    assert (len(folder.done()), folder.committed_frames("cat"), folder.read_run()) == (
        0,
        None,
        None,
    )


@pytest.mark.parametrize("frames", [1, 2, 9, 10, 99, 1000, 12_345])
def test_a_committed_video_is_done_with_its_number_of_frames(url: str, frames: int) -> None:
    folder = opened(url)
    folder.commit("cat", extraction(frames))
    assert (folder.committed_frames("cat"), folder.done().frames) == (frames, frames)


def test_a_listing_separates_videos(url: str) -> None:
    folder = opened(url)
    for frames in range(1, 30):
        folder.commit(f"video{frames}", extraction(frames))
    done = folder.done()
    assert len(done) == 29
    assert done.frames == sum(range(1, 30))
    assert all(f"video{frames}" in done for frames in range(1, 30))
    assert "video30" not in done


@pytest.mark.parametrize("missing", ["_clip.npy", "_fps.npy", "_timestamps_ms.npy"])
def test_a_video_that_lacks_a_file_is_not_done(url: str, missing: str) -> None:
    folder = opened(url)
    folder.commit("cat", extraction())
    fs, root = fsspec.core.url_to_fs(url)
    fs.rm_file(f"{root}/cat{missing}")
    assert (folder.committed_frames("cat"), folder.done().frames) == (None, 0)


@pytest.mark.parametrize("suffix", ["_clip.npy", "_timestamps_ms.npy"])
@pytest.mark.parametrize("less", ["nothing", "header", "one-byte", "one-row"])
def test_a_video_with_a_truncated_file_is_not_done(url: str, suffix: str, less: str) -> None:
    folder = opened(url)
    folder.commit("cat", extraction(3))
    row = DIM * 4 if suffix == "_clip.npy" else 8
    whole = 128 + 3 * row
    size = {"nothing": 0, "header": 128, "one-byte": whole - 1, "one-row": whole - row}[less]
    cut(url, f"cat{suffix}", size)
    assert (folder.committed_frames("cat"), folder.done().frames) == (None, 0)


def test_features_of_another_dimension_are_not_done(url: str) -> None:
    opened(url).commit("cat", extraction(3, dim=DIM))
    other = ArrayFolder(url, DIM + 1, {})
    assert (other.committed_frames("cat"), other.done().frames) == (None, 0)


def test_files_of_other_kinds_do_not_count(url: str) -> None:
    folder = opened(url)
    folder.commit("cat", extraction())
    folder.write_run({})
    folder.write_failures([])
    assert len(folder.done()) == 1


def test_a_name_that_ends_in_clip_is_not_another_video(url: str) -> None:
    folder = opened(url)
    folder.commit("cat_clip", extraction(2))
    folder.commit("cat", extraction(3))
    done = folder.done()
    assert (done.frames, "cat_clip" in done, "cat" in done) == (5, True, True)


def test_a_discarded_video_is_no_longer_done(url: str) -> None:
    folder = opened(url)
    folder.commit("cat", extraction())
    folder.commit("dog", extraction())
    folder.discard(["cat"])
    assert (folder.committed_frames("cat"), folder.committed_frames("dog")) == (None, 3)


def test_predictions_are_removed_with_a_discarded_video(tmp_path: Path) -> None:
    folder = opened(tmp_path)
    folder.commit("cat", extraction(), predictions=b"timestamp_ms,rank,label\n")
    folder.discard(["cat"])
    assert {path.name for path in tmp_path.iterdir()} == {"cat_timestamps_ms.npy", "cat_fps.npy"}


def test_a_video_that_cannot_be_discarded_stops_the_run_in_a_sentence(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = opened(url)

    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(folder.fs_and_path()[0], "rm_file", refuse)
    with pytest.raises(RunStopped, match=r"cat_clip\.npy cannot be removed: .*Permission denied"):
        folder.discard(["cat"])


def test_a_video_that_another_run_removed_can_be_discarded(tmp_path: Path) -> None:
    opened(tmp_path).discard(["gone"])


# ---- run.json and failures.jsonl ----


def test_the_record_of_a_run_is_read_back(url: str) -> None:
    folder = opened(url)
    folder.write_run({"model_name": "demo", "extraction_fps": None})
    assert folder.read_run() == {"model_name": "demo", "extraction_fps": None}


def test_the_record_of_a_run_is_json_for_people(tmp_path: Path) -> None:
    opened(tmp_path).write_run({"model_name": "demo"})
    assert (tmp_path / "run.json").read_text() == '{\n  "model_name": "demo"\n}\n'


@pytest.mark.parametrize("text", ["", "{", "[]", '"demo"'])
def test_a_damaged_record_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UsageError, match=r"run\.json is damaged"):
        opened(tmp_path).read_run()


def test_failures_are_one_json_object_a_line(tmp_path: Path) -> None:
    failures = [{"video": "ü.mp4", "code": "not_found"}, {"video": "b.mp4", "code": "no_frames"}]
    opened(tmp_path).write_failures(failures)
    lines = (tmp_path / "failures.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == failures


def test_failures_are_read_back(url: str) -> None:
    folder = opened(url)
    failures = [{"video": "a\nb.mp4", "code": "not_found"}, {"video": "日本.mp4", "code": "x"}]
    folder.write_failures(failures)
    assert folder.read_failures() == failures


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85"])
def test_a_failure_whose_name_holds_a_unicode_line_break_is_read_back(
    tmp_path: Path, mark: str
) -> None:
    folder = opened(tmp_path)
    folder.write_failures([{"video": f"a{mark}b.mp4"}])
    assert folder.read_failures() == [{"video": f"a{mark}b.mp4"}]


def test_the_failure_of_a_file_whose_name_is_not_utf8_can_be_written(tmp_path: Path) -> None:
    video = os.fsdecode(b"caf\xe9.mp4")
    folder = opened(tmp_path)
    folder.write_failures([{"video": video}])
    assert folder.read_failures() == [{"video": video}]


def test_lines_of_failures_that_cannot_be_parsed_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "failures.jsonl").write_text('{"video": "a"}\n{"vid\n[1]\n{}\n\n{"video": "b"}\n')
    assert opened(tmp_path).read_failures() == [{"video": "a"}, {"video": "b"}]


# ---- names ----


@pytest.mark.parametrize(
    ("output_path", "model_name", "folder"),
    [
        ("./output", "ViT-B/32", "./output/clip/ViT-B_32"),
        ("out/", "demo", "out/clip/demo"),
        ("s3://bucket/features", "ViT-L/14@336px", "s3://bucket/features/clip/ViT-L_14@336px"),
    ],
)
def test_the_folder_of_a_model_is_that_of_video_features(
    output_path: str, model_name: str, folder: str
) -> None:
    assert model_folder(output_path, model_name) == folder


def test_the_root_of_a_storage_can_be_the_output_path() -> None:
    fs, _ = fsspec.core.url_to_fs(model_folder("memory://", "demo"))
    assert fs.protocol == "memory"


def test_an_unknown_protocol_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="nosuch://bucket"):
        ArrayFolder("nosuch://bucket", DIM, {})


def test_a_folder_that_cannot_be_created_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be created"):
        ArrayFolder(str(tmp_path / "file" / "folder"), DIM, {}).prepare()


def test_a_folder_that_is_a_file_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be listed"):
        ArrayFolder(str(tmp_path / "file"), DIM, {}).done()


def test_the_hash_of_a_name_is_the_same_on_every_machine() -> None:
    assert name_hash("v_GGSY1Qvo990") == 0xC74D7EBCF6310A09


# ---- names with folders, other formats ----


def test_names_with_folders_in_them_are_found_again(url: str) -> None:
    folder = ArrayFolder(url, DIM, {}, naming="path")
    folder.prepare()
    folder.commit("a/cat", extraction(3))
    folder.commit("b/c/cat", extraction(5))
    done = folder.done()
    assert [name in done for name in ("a/cat", "b/c/cat", "cat")] == [True, True, False]
    assert done.frames == 8
    assert folder.committed_frames("b/c/cat") == 5


def test_predictions_are_written_beside_the_arrays(tmp_path: Path) -> None:
    opened(tmp_path).commit("cat", extraction(), b"timestamp_ms,rank\n")
    assert (tmp_path / "cat_pred.csv").read_bytes() == b"timestamp_ms,rank\n"


@pytest.mark.parametrize("on_extraction", ["save_numpy", "save_pickle"])
@pytest.mark.parametrize("feature_dtype", ["float32", "float16"])
def test_every_format_recognises_truncated_files(
    on_extraction: str, feature_dtype: str, tmp_path: Path
) -> None:
    files = file_format(on_extraction, feature_dtype)
    folder = ArrayFolder(str(tmp_path), DIM, {}, files)
    folder.commit("cat", extraction(7))
    assert folder.done().frames == folder.committed_frames("cat") == 7
    features = tmp_path / f"cat_clip{files.suffix}"
    features.write_bytes(features.read_bytes()[:-64])
    assert "cat" not in folder.done()
    assert folder.committed_frames("cat") is None


# ---- storages that fail ----

CALLS: dict[str, Callable[[ArrayFolder], object]] = {
    "makedirs": lambda folder: folder.prepare(),
    "pipe_file": lambda folder: folder.commit("cat", extraction()),
    "ls": lambda folder: folder.done(),
    "size": lambda folder: folder.committed_frames("dog"),
    "cat_file": lambda folder: folder.read_run(),
}
"""What needs which call of a storage."""


@pytest.fixture
def remote(memory_url: str, monkeypatch: pytest.MonkeyPatch) -> ArrayFolder:
    """A folder with one video and a record."""
    monkeypatch.setattr(retry, "STORAGE", RetryPolicy(4, 60, first_pause_s=0.001))
    folder = opened(memory_url)
    folder.write_run({"model_name": "demo"})
    folder.commit("dog", extraction(7))
    return folder


def fail(
    monkeypatch: pytest.MonkeyPatch, call: str, error: Exception, times: float = float("inf")
) -> list[None]:
    """Let a call of the in-memory storage fail this many times; returns an item per failure."""
    storage = type(fsspec.filesystem("memory"))
    original = getattr(storage, call)
    failed: list[None] = []

    def called(*arguments: Any, **options: Any) -> Any:
        if len(failed) < times:
            failed.append(None)
            raise error
        return original(*arguments, **options)

    monkeypatch.setattr(storage, call, called)
    return failed


@pytest.mark.parametrize("call", CALLS)
def test_transient_errors_of_a_storage_are_retried(
    remote: ArrayFolder, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    expected = CALLS[call](remote)
    failed = fail(monkeypatch, call, ConnectionResetError("gone"), times=3)
    again = CALLS[call](remote)
    assert len(failed) == 3
    if not isinstance(again, type(remote.done())):
        assert again == expected
    assert "dog" in remote.done()


def test_a_write_that_never_succeeds_is_an_error_of_that_video(
    remote: ArrayFolder, monkeypatch: pytest.MonkeyPatch, memory_url: str
) -> None:
    failed = fail(monkeypatch, "pipe_file", ConnectionResetError("gone"))
    with pytest.raises(Exception, match=r"gone \(tried 4 times") as caught:
        remote.commit("cat", extraction())
    assert not isinstance(caught.value, RunStopped)
    assert len(failed) == 4
    assert not [name for name in names(memory_url) if name.startswith("cat")]


FULL = OSError(errno.ENOSPC, "No space left on device")
DENIED = PermissionError(errno.EACCES, "Permission denied")


class NoCredentialsError(Exception):
    """As botocore's."""


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (FULL, "no space left"),
        (DENIED, "no permission to write"),
        (NoCredentialsError(), "renew them"),
    ],
)
def test_an_unwritable_folder_stops_the_run_at_once(
    remote: ArrayFolder, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    failed = fail(monkeypatch, "pipe_file", error)
    for write in (
        lambda: remote.commit("cat", extraction()),
        lambda: remote.write_failures([]),
        lambda: remote.write_run({}),
    ):
        with pytest.raises(RunStopped, match=words):
            write()
    assert len(failed) == 3


@pytest.mark.parametrize("call", ["makedirs", "ls", "cat_file"])
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConnectionResetError("gone"), RunStopped),
        (NoCredentialsError(), RunStopped),
        (OSError("a word"), UsageError),
        (DENIED, UsageError),
    ],
)
def test_before_the_start_only_a_wrong_folder_is_a_usage_error(
    remote: ArrayFolder,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    error: Exception,
    kind: type[Exception],
) -> None:
    fail(monkeypatch, call, error)
    with pytest.raises(kind, match="memory://"):
        CALLS[call](remote)


def test_a_video_is_recomputed_if_the_storage_cannot_report_on_it(
    remote: ArrayFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(monkeypatch, "size", RuntimeError("a word"))
    assert remote.committed_frames("dog") is None


def test_a_folder_of_names_is_created_once(
    memory_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = ArrayFolder(memory_url, DIM, {}, naming="path")
    folder.commit("a/cat", extraction())
    made = fail(monkeypatch, "makedirs", AssertionError("not again"))
    folder.commit("a/dog", extraction())
    assert made == []


# ---- what dead runs leave ----


def left_by(process: int | str, age_s: float, folder: Path, host: str | None = None) -> Path:
    path = folder / f".{host or socket.gethostname()}.{process}.{'ab' * 16}.tmp"
    path.write_bytes(b"half")
    os.utime(path, (time.time() - age_s,) * 2)
    return path


NOBODY = "9" * 12  # no process has such a number


def test_only_stale_temporary_files_are_found_and_removed(tmp_path: Path) -> None:
    folder = ArrayFolder(str(tmp_path), DIM, {}, naming="path")
    folder.commit("a/cat", extraction())
    dead = [left_by(NOBODY, 0, tmp_path), left_by(NOBODY, 0, tmp_path / "a")]
    dead.append(left_by(1, 7200, tmp_path, host="elsewhere"))
    alive = [left_by(os.getpid(), 60, tmp_path), left_by(2, 60, tmp_path, host="elsewhere")]
    other_format = tmp_path / ".mine.tmp"
    other_format.touch()
    done = folder.done()
    assert sorted(done.stale_tmp) == sorted(str(path.relative_to(tmp_path)) for path in dead)
    folder.remove(done.stale_tmp)
    folder.remove(done.stale_tmp)  # as another run might have, meanwhile
    assert not any(path.exists() for path in dead)
    assert all(path.exists() for path in [*alive, other_format])
    assert "a/cat" in folder.done()


def test_a_temporary_file_that_was_removed_as_stale_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "STORAGE", RetryPolicy(4, 60, first_pause_s=0.001))
    folder = opened(tmp_path)
    replace = os.replace
    taken: list[object] = []

    def remove_files(source: str, destination: str) -> None:
        if not taken:
            taken.append(source)
            os.unlink(source)
        replace(source, destination)

    monkeypatch.setattr(os, "replace", remove_files)
    folder.commit("cat", extraction())
    assert len(taken) == 1
    assert folder.committed_frames("cat") == 3
