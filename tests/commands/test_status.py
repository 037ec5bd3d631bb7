"""``rayclip status`` and ``rayclip failures``, during and after a run."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import time
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import shapes
from output_folders import DIM, a_run, commit
from run_cli import Finished, call
from terminals import Terminal

from rayclip.commands.recent import MIN_VIDEOS, WINDOWS_S, Recent
from rayclip.commands.status import show_status
from rayclip.io.listing import StoredFile, modified_time
from rayclip.output.array_folder import NUMPY, ArrayFolder
from rayclip.output.open_run import open_run
from rayclip.settings import Settings

NOW = 1_000_000.0
FOLDER = ArrayFolder("memory://none", DIM, {})


def fail(folder: ArrayFolder, **codes: str) -> None:
    folder.write_failures({"video": f"{video}.mp4", "code": code} for video, code in codes.items())


def status(*words: str | Path) -> Finished:
    return call("status", *words)


def line(ended: Finished, label: str) -> str:
    """The text after a label, on the only line that starts with it."""
    (found,) = [row for row in ended.stdout.splitlines() if row.strip().startswith(label)]
    return found.strip().removeprefix(label).strip()


@pytest.fixture(params=["local", "memory"])
def output(request: pytest.FixtureRequest, tmp_path: Path, memory_url: str) -> str:
    return memory_url if request.param == "memory" else str(tmp_path / "out")


def test_done_videos_and_their_frames_are_counted(output: str) -> None:
    folder = a_run(output)
    commit(folder, "cat", 3)
    commit(folder, "dog", 4)
    ended = status(output)
    assert ended.status == 0, ended.stderr
    assert line(ended, "done") == "2 videos, 7 frames"
    assert line(ended, "failed") == "0"


def test_failures_are_counted_by_code_most_common_first(output: str) -> None:
    fail(a_run(output), a="not_found", b="no_frames", c="no_frames")
    assert line(status(output), "failed") == "3: no_frames 2, not_found 1"


def test_a_video_that_has_succeeded_since_is_not_a_failure(output: str) -> None:
    folder = a_run(output)
    fail(folder, cat="not_found", dog="not_found")
    commit(folder, "cat")
    assert line(status(output), "failed") == "1: not_found 1"


def test_settings_and_versions_are_shown_unless_unknown(output: str) -> None:
    a_run(output)
    ended = status(output)
    assert line(ended, "settings").startswith("model_name=demo dim=4")
    assert "extraction_fps=5" in line(ended, "settings")
    assert "device" not in ended.stdout
    assert line(ended, "made with") == "rayclip 0.1.0"


@pytest.mark.parametrize("naming", ["stem", "path"])
def test_videos_left_are_neither_done_nor_failed(
    naming: str, tmp_path: Path, memory_url: str
) -> None:
    folder = a_run(memory_url, naming=naming)
    commit(folder, "cat" if naming == "stem" else "videos/cat")
    folder.write_failures([{"video": "videos/dog.mp4", "code": "not_found"}])
    listed = tmp_path / "list.txt"
    listed.write_text("videos/cat.mp4\nvideos/dog.mp4\nvideos/cow.mp4\nvideos/cow.mp4\n")
    ended = status(memory_url, "videos/hen.mp4", "--file-with-video-paths", listed)
    assert line(ended, "left").startswith("2 of 4 videos listed, about 0:0")


def test_without_a_list_no_videos_left_are_shown(output: str) -> None:
    a_run(output)
    assert "left" not in status(output).stdout


def test_each_model_of_an_output_path_has_a_block(output: str) -> None:
    commit(a_run(output, "ViT-B/32"), "cat")
    a_run(output, "demo")
    blocks = [row for row in status(output).stdout.splitlines() if not row.startswith(" ")]
    assert blocks == [f"{output}/clip/ViT-B_32", f"{output}/clip/demo"]


def test_the_folder_of_one_model_can_be_named(output: str) -> None:
    commit(a_run(output, "ViT-B/32"), "cat")
    a_run(output, "demo")
    ended = status(f"{output}/clip/ViT-B_32")
    assert line(ended, "done") == "1 video, 3 frames"


def test_pickled_features_are_recognized_by_the_run_record(output: str) -> None:
    commit(a_run(output, pickled=True), "cat")
    assert line(status(output), "done") == "1 video, 3 frames"


def test_files_of_an_earlier_format_are_counted_separately(output: str) -> None:
    commit(a_run(output, pickled=True), "cat")
    commit(a_run(output), "cat")
    ended = status(output)
    assert line(ended, "done") == "1 video, 3 frames"
    assert line(ended, "others").startswith("1 features file with another suffix")
    assert "incomplete" not in ended.stdout


def test_a_truncated_features_file_is_incomplete(tmp_path: Path) -> None:
    folder = a_run(tmp_path)
    commit(folder, "cat")
    os.truncate(tmp_path / "clip/demo/cat_clip.npy", 150)
    ended = status(tmp_path)
    assert line(ended, "done") == "0 videos, 0 frames"
    assert line(ended, "incomplete").startswith("1 features file")


@pytest.mark.parametrize("record", ["{}", '{"model_name": "demo"}', '{"model_name": 1, "dim": []}'])
def test_a_damaged_run_record_is_reported_in_one_sentence(record: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(record)
    ended = status(tmp_path)
    assert ended.status == 2
    assert "run.json is damaged" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize("where", ["nowhere", "file", "memory://nowhere-at-all", "nosuch://bucket"])
@pytest.mark.parametrize("command", ["status", "failures"])
def test_a_path_that_is_no_output_folder_is_refused_by_name(
    command: str, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    ended = call(command, where)
    assert ended.status == 2
    assert where in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_a_hostile_run_record_cannot_inject_lines(tmp_path: Path) -> None:
    folder = a_run(tmp_path)
    folder.write_run({"model_name": "x\n  done 9\x1b[2J", "dim": DIM, "feature_dtype": "float32"})
    ended = status(tmp_path)
    assert "\x1b" not in ended.stdout
    assert line(ended, "done") == "0 videos, 0 frames"


def test_failures_of_a_real_run_can_be_retried(tmp_path: Path) -> None:
    clip = tmp_path / "videos" / "shapes.mp4"
    clip.parent.mkdir()
    shapes.write_video(clip, [("red", "circle")], fps=10, seconds_per_scene=0.5)
    words = ["--model-name", "demo", "--address", "none", "--naming", "path"]
    words += ["--on-extraction", "save_pickle", "--output-path", str(tmp_path / "out")]
    late = tmp_path / "videos" / "late.mp4"
    assert call("extract", clip, late, *words).status == 1
    ended = status(tmp_path / "out", clip, late, tmp_path / "new.mp4", "--verify")
    assert ended.status == 0, ended.stderr
    assert line(ended, "done") == "1 video, 5 frames"
    assert line(ended, "failed") == "1: not_found 1"
    assert line(ended, "left").startswith("1 of 3 videos listed")
    assert line(ended, "verified") == "1 video opened, 0 damaged"
    listed = tmp_path / "again.txt"
    listed.write_text(call("failures", tmp_path / "out").stdout)
    late.write_bytes(clip.read_bytes())
    assert call("extract", "--file-with-video-paths", listed, *words).status == 0
    assert line(status(tmp_path / "out"), "done") == "2 videos, 10 frames"
    assert call("failures", tmp_path / "out").stdout == ""


# ---- the rate ----


def recent(*ages_s: float, started: float | None = None, frames: int = 10) -> Recent:
    """The counts of feature files of these ages."""
    found = Recent(FOLDER.estimate_work, NOW, started)
    size = NUMPY.overhead[2] + 4 * DIM * frames
    for _ in found.tracking(
        StoredFile(f"v{i}_clip.npy", size, NOW - age) for i, age in enumerate(ages_s)
    ):
        pass
    return found


def test_the_rate_covers_the_last_ten_minutes() -> None:
    rate = recent(*range(0, 600, 30), 601, 3000).rate()
    assert rate is not None
    assert (rate.videos, rate.frames, rate.seconds) == (20, 200.0, 600.0)


def test_the_rate_of_a_slow_run_covers_an_hour() -> None:
    rate = recent(*range(0, 3600, 400)).rate()
    assert rate is not None
    assert (rate.videos, rate.seconds) == (9, 3600.0)
    assert rate.videos < MIN_VIDEOS


def test_videos_done_before_the_run_do_not_count() -> None:
    rate = recent(*range(0, 600, 10), started=NOW - 100).rate()
    assert rate is not None
    assert (rate.videos, rate.seconds) == (11, 100.0)


def test_a_run_that_ended_long_ago_has_an_age_but_no_rate() -> None:
    old = recent(WINDOWS_S[-1] + 1)
    assert old.rate() is None
    assert old.newest == NOW - WINDOWS_S[-1] - 1


def test_the_clock_of_a_storage_may_be_ahead() -> None:
    rate = recent(-30.0, started=NOW + 40).rate()
    assert rate is None
    rate = recent(-30.0, started=NOW + 20).rate()
    assert rate is not None
    assert rate.seconds == 1.0


def test_files_without_times_give_no_rate() -> None:
    found = Recent(FOLDER.estimate_work, NOW, None)
    list(found.tracking([StoredFile("cat_clip.npy", 200, None)]))
    assert (found.rate(), found.newest) == (None, None)


@pytest.mark.parametrize(
    "entry",
    [
        {"mtime": 5.0},
        {"LastModified": datetime.fromtimestamp(5, UTC)},  # s3fs
        {"last_modified": datetime.fromtimestamp(5, UTC)},  # adlfs
        {"updated": "1970-01-01T00:00:05+00:00"},  # gcsfs
        {"created": 5},  # memory
        {"mtime": None, "updated": "?", "created": 5.0},
    ],
)
def test_modification_times_are_read_from_every_storage(entry: dict[str, Any]) -> None:
    assert modified_time(entry) == 5.0


def test_a_storage_without_modification_times_has_none() -> None:
    assert modified_time({"name": "a", "size": 1}) is None


def test_the_rate_of_an_empty_folder_is_unknown(output: str) -> None:
    a_run(output)
    assert line(status(output), "rate").startswith("unknown")


def test_the_rate_names_its_window_and_the_age_of_the_last_video(tmp_path: Path) -> None:
    folder = a_run(tmp_path)
    for number in range(30):
        commit(folder, f"v{number}")
    model = tmp_path / "clip/demo"
    now = time.time()
    os.utime(model / "run.json", (now - 300, now - 300))
    for file in model.glob("*.npy"):
        os.utime(file, (now - 60, now - 60))
    rate = line(status(tmp_path), "rate")
    assert (
        rate == "6.0 videos a minute, 0.3 frames/s over the last 5:00; the last video was "
        "finished 1:00 ago"
    )


# ---- a running job, and its cost ----


def test_a_folder_may_change_while_it_is_listed(tmp_path: Path) -> None:
    folder = a_run(tmp_path)
    for number in range(50):
        commit(folder, f"v{number}")
    recorded = open_run(str(tmp_path / "clip/demo"), {})
    listing = recorded.folder.files()
    next(listing)
    folder.discard(f"v{number}" for number in range(50))
    assert len(recorded.folder.done(listing)) <= 1


def test_a_listing_takes_few_bytes_per_video() -> None:
    videos = 20_000
    sizes = {"_clip": NUMPY.overhead[2] + 12 * DIM, "_timestamps_ms": 152, "_fps": 136}
    listing = (
        StoredFile(f"a_video_with_a_long_name_{number}{kind}.npy", size, NOW)
        for number in range(videos)
        for kind, size in sizes.items()
    )
    folder = ArrayFolder("memory://none", DIM, {})
    tracemalloc.start()
    done = folder.done(Recent(FOLDER.estimate_work, NOW, None).tracking(listing))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (len(done), done.frames) == (videos, 3 * videos)
    assert peak < 250 * videos


def test_status_imports_neither_ray_nor_torch_nor_libav() -> None:
    heavy = {"ray", "torch", "av", "clip"}
    code = f"import sys, rayclip.commands.status; print({heavy} & set(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "set()\n"


def test_the_status_can_be_written_to_any_stream(tmp_path: Path) -> None:
    commit(a_run(tmp_path), "cat")
    out = io.StringIO()
    assert show_status(str(tmp_path), Settings(), False, True, out) is False
    assert "1 video opened, 0 damaged" in out.getvalue()


# ---- for programs, and for eyes ----


def test_json_has_an_object_for_each_model(output: str) -> None:
    commit(a_run(output, "ViT-B/32"), "cat")
    folder = a_run(output, "demo")
    folder.write_run({**(folder.read_run() or {}), "weights_sha256": "0" * 64})
    fail(folder, a="not_found", b="no_frames", c="no_frames")
    first, second = map(json.loads, status(output, "--json", "--verify").stdout.splitlines())
    assert first["folder"] == f"{output}/clip/ViT-B_32"
    assert (first["done"], first["frames"], first["failed"]) == (1, 3, {})
    assert first["rate"].keys() == {"videos", "frames", "seconds"}
    assert first["last_finished"] == pytest.approx(time.time(), abs=60)
    assert first["verified"] == {"videos": 1, "damaged": []}
    assert second["failed"] == {"not_found": 1, "no_frames": 2}
    assert (second["incomplete"], second["others"], second["rate"]) == (0, 0, None)
    assert second["run"]["weights_sha256"] == "0" * 64


def test_json_counts_what_is_left_of_a_list(output: str) -> None:
    commit(a_run(output), "cat")
    (row,) = status(output, "--json", "cat.mp4", "dog.mp4").stdout.splitlines()
    found = json.loads(row)
    assert found["listed"] == {"videos": 2, "remaining": 1}
    assert found["verified"] is None


def test_json_names_damaged_files(tmp_path: Path) -> None:
    commit(a_run(tmp_path), "cat")
    (tmp_path / "clip/demo/cat_fps.npy").write_bytes(b"x" * 136)
    ended = status(tmp_path, "--json", "--verify")
    assert ended.status == 1
    (damaged,) = json.loads(ended.stdout)["verified"]["damaged"]
    assert damaged["file"] == f"{tmp_path}/clip/demo/cat_fps.npy"
    assert damaged["reason"]


def test_the_page_has_each_key_of_the_json(tmp_path: Path) -> None:
    a_run(tmp_path)
    page = (Path(__file__).parents[2] / "docs/watching.md").read_text()
    for key in json.loads(status(tmp_path, "--json").stdout):
        assert re.search(rf"^\| .*`{key}`.* \|", page, re.MULTILINE), key


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_no_line_is_wider_than_the_terminal(columns: int, memory_url: str) -> None:
    folder = a_run(memory_url)
    folder.write_run({**(folder.read_run() or {}), "weights_sha256": "a" * 64})
    terminal = Terminal(columns)
    show_status(memory_url, Settings(), False, True, terminal.stream)
    rows = terminal.close().splitlines()
    assert max(map(len, rows)) <= columns
    assert all(row.startswith(" " * 13) for row in rows[1:] if row[2] == " ")
    assert f"weights_sha256={'a' * 12}" in [word for row in rows for word in row.split()]


# ---- rayclip failures ----


def failures(*words: str | Path) -> Finished:
    return call("failures", *words)


def test_failed_inputs_are_printed_one_per_line(output: str) -> None:
    fail(a_run(output), a="not_found", b="no_frames")
    ended = failures(output)
    assert (ended.status, ended.stdout, ended.stderr) == (0, "a.mp4\nb.mp4\n", "")


def test_a_run_without_failures_prints_nothing(output: str) -> None:
    commit(a_run(output), "cat")
    ended = failures(output)
    assert (ended.status, ended.stdout, ended.stderr) == (0, "", "")


def test_several_models_are_refused_with_their_folders(output: str) -> None:
    fail(a_run(output, "demo"), a="not_found")
    fail(a_run(output, "ViT-B/32"), a="not_found")
    ended = failures(output)
    assert ended.status == 2
    assert f"name one of {output}/clip/ViT-B_32, {output}/clip/demo" in ended.stderr
    assert failures(f"{output}/clip/demo").stdout == "a.mp4\n"


@pytest.mark.parametrize("video", ["a\nb.mp4", "a\rb.mp4", " a.mp4", "a.mp4 ", "\n"])
def test_a_name_that_does_not_fit_on_a_line_is_reported(video: str, tmp_path: Path) -> None:
    a_run(tmp_path).write_failures([{"video": video}, {"video": "b.mp4"}])
    ended = failures(tmp_path)
    assert (ended.status, ended.stdout) == (1, "b.mp4\n")
    assert repr(video) in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_failed_inputs_round_trip_byte_for_byte(tmp_path: Path) -> None:
    videos = ["a b.mp4", "ü日本.mp4", os.fsdecode(b"caf\xe9.mp4"), "a\u2028b.mp4", "s3://b/x#1.mp4"]
    a_run(tmp_path).write_failures({"video": video} for video in videos)
    command = f"{sys.executable} -m rayclip"
    feed = "import sys; from rayclip.inputs.videos import *; print(list(iter_videos(Settings("
    feed += "file_with_video_paths='-'))))"
    ended = subprocess.run(
        f'{command} failures {tmp_path} | {sys.executable} -c "{feed}"',
        shell=True,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.strip() == repr(videos), ended.stderr


@pytest.mark.parametrize("command", ["status", "failures"])
def test_storage_options_are_accepted(command: str, memory_url: str) -> None:
    a_run(memory_url)
    refused = call(command, memory_url, "--storage-options", "secret")
    assert refused.status == 2
    assert "storage_options must be a JSON object" in refused.stderr
    known = '{"use_listings_cache": false}'
    assert call(command, memory_url, "--storage_options", known).status == 0
