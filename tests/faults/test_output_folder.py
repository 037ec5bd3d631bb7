"""The output folder is the truth: whatever was there, is lacking, or is made at the same time."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from run_cli import ON_LOOPBACK, Finished, call, rayclip
from video_factories import missing, numbered_frame, write_video

from rayclip.report.breaker import WINDOW

COPIES = 12


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("clips")
    return [
        write_video(folder / f"clip_{i:02}.mp4", [numbered_frame(i + j) for j in range(6)], fps=5)
        for i in range(COPIES)
    ]


@pytest.fixture(scope="module")
def undisturbed(clips: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    output = tmp_path_factory.mktemp("undisturbed")
    assert run(clips, output).status == 0
    return arrays(output)


def words(videos: Sequence[Path | str], output: Path, *more: str) -> list[Path | str]:
    given: list[Path | str] = ["extract", *videos, "--model-name", "demo"]
    if "--on-extraction" not in more:
        given += ["--on-extraction", "save_numpy"]
    return [*given, "--output-path", output, *more]


def run(videos: Sequence[Path | str], output: Path, *more: str) -> Finished:
    return call(*words(videos, output, "--address", "none", *more))


def arrays(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in output.rglob("*.npy")}


def temporary_files(output: Path) -> list[Path]:
    return list(output.rglob("*.tmp"))


def failures(output: Path) -> dict[str, str]:
    path = output / "clip" / "demo" / "failures.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return {f["video"]: f["code"] for f in map(json.loads, lines)}


# ---- a full disk ----


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk for the files of a few videos; a block is 4 KiB there."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(disk)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small disk cannot be mounted here: {error}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_full_disk_stops_the_run_and_the_same_command_goes_on_when_there_is_room(
    small_disk: Path, clips: list[Path], undisturbed: dict[str, bytes]
) -> None:
    ended = rayclip(*words(clips, small_disk, "--address", "none"))
    assert ended.status == 3, ended.stderr
    assert "Traceback" not in ended.stderr
    last = ended.stderr.splitlines()[-1]
    assert last.startswith(f"rayclip: There is no space left for {small_disk}/clip/demo")
    assert "free some space, then rerun the same command" in last
    assert temporary_files(small_disk) == []
    left = arrays(small_disk)
    assert left.items() <= undisturbed.items()
    done = sum(name.endswith("_clip.npy") for name in left)
    assert 0 < done < COPIES

    subprocess.run(["mount", "-o", "remount,size=2m", str(small_disk)], check=True)
    ended = run(clips, small_disk)
    assert ended.status == 0, ended.stderr
    assert f"{done} done before" in ended.stderr
    assert arrays(small_disk) == undisturbed


# ---- what is there already ----


@pytest.mark.parametrize(
    ("naming", "on_extraction", "kind"),
    [
        ("stem", "save_numpy", "_clip"),
        ("path", "save_pickle", "_clip"),
        ("path", "save_numpy", "_timestamps_ms"),
        ("stem", "save_pickle", "_fps"),
    ],
)
def test_a_file_that_was_cut_short_is_found_and_its_video_made_again(
    clips: list[Path], tmp_path: Path, naming: str, on_extraction: str, kind: str
) -> None:
    more = ("--naming", naming, "--on-extraction", on_extraction)
    assert run(clips[:3], tmp_path, *more).status == 0
    (damaged,) = tmp_path.rglob(f"clip_01{kind}.*")
    before = damaged.read_bytes()
    damaged.write_bytes(before[:-64])
    ended = run(clips[:3], tmp_path, *more)
    assert ended.status == 0, ended.stderr
    assert "videos: 1 done, 2 done before" in ended.stderr
    assert damaged.read_bytes() == before


def test_a_file_of_another_video_is_found_and_its_video_made_again(
    clips: list[Path], tmp_path: Path
) -> None:
    longer = write_video(tmp_path / "longer.mp4", [numbered_frame(j) for j in range(9)], fps=5)
    videos = [*clips[:2], longer]
    output = tmp_path / "output"
    assert run(videos, output).status == 0
    before = arrays(output)
    folder = output / "clip" / "demo"
    shutil.copy(folder / "longer_clip.npy", folder / "clip_01_clip.npy")
    ended = run(videos, output)
    assert "videos: 1 done, 2 done before" in ended.stderr, ended.stderr
    assert arrays(output) == before


def test_what_a_dead_run_left_is_gone_even_where_nothing_is_to_be_done(
    clips: list[Path], tmp_path: Path
) -> None:
    assert run(clips[:1], tmp_path).status == 0
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        dead.wait()
    left = tmp_path / "clip" / "demo" / f".{socket.gethostname()}.{dead.pid}.{'0a' * 16}.tmp"
    left.write_bytes(b"half")
    ended = run(clips[:1], tmp_path)
    assert (ended.status, "1 done before" in ended.stderr) == (0, True)
    assert temporary_files(tmp_path) == []


def test_a_failure_that_another_run_has_mended_leaves_the_list(
    clips: list[Path], tmp_path: Path
) -> None:
    gone = missing(clips[0].parent)
    assert run([clips[0], gone], tmp_path).status == 1
    listed = tmp_path / "clip" / "demo" / "failures.jsonl"
    stale = json.loads(listed.read_text()) | {"video": str(clips[0])}
    listed.write_text(listed.read_text() + json.dumps(stale) + "\n")
    assert set(failures(tmp_path)) == {str(clips[0]), str(gone)}
    assert run([clips[0]], tmp_path).status == 0  # nothing to be done
    assert failures(tmp_path) == {str(gone): "not_found"}


# ---- two runs at once ----

WAITING_FOR_A_WORD = """
import sys
import rayclip, rayclip.model.loaded_model
print("ready", flush=True)
sys.stdin.readline()
summary = rayclip.extract(sys.argv[2:], model_name="demo", address="none",
                          on_extraction="save_numpy", output_path=sys.argv[1])
print(summary.done, summary.skipped, len(summary.failed))
"""


def test_two_runs_at_once_into_one_folder_give_what_one_gives(
    clips: list[Path], undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    videos = [*map(str, clips), str(missing(tmp_path))]
    with ExitStack() as stack:
        runs = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", WAITING_FOR_A_WORD, str(tmp_path / "output"), *order],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
            for order in (videos, videos[::-1])
        ]
        for process in runs:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in runs:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        ended = [process.communicate(timeout=120) for process in runs]
    assert [process.returncode for process in runs] == [0, 0], ended
    done, skipped, failed = zip(*(map(int, stdout.split()) for stdout, _ in ended), strict=True)
    assert all(made > 0 for made in done), "one run came after the other"
    assert (done[0] + skipped[0], done[1] + skipped[1]) == (COPIES, COPIES)
    assert failed == (1, 1)
    assert arrays(tmp_path / "output") == undisturbed
    assert temporary_files(tmp_path) == []
    assert failures(tmp_path / "output") == {videos[-1]: "not_found"}


# ---- nearly everything fails ----


def nowhere(folder: Path, count: int) -> list[Path]:
    return [folder / f"nowhere_{i:04}.mp4" for i in range(count)]


def listed(videos: Sequence[Path], folder: Path) -> list[str]:
    path = folder / "videos.txt"
    path.write_text("\n".join(map(str, videos)))
    return ["--file-with-video-paths", str(path)]


def test_a_small_folder_of_garbage_is_reported_as_such(tmp_path: Path) -> None:
    ended = run(nowhere(tmp_path, 12), tmp_path / "output")
    assert ended.status == 1
    assert len(failures(tmp_path / "output")) == 12


def test_a_run_in_which_nearly_everything_fails_is_stopped(
    clips: list[Path], tmp_path: Path
) -> None:
    videos = [*clips, *nowhere(tmp_path, 3 * WINDOW)]
    output = tmp_path / "output"
    ended = run([], output, *listed(videos, tmp_path))
    assert ended.status == 3, ended.stderr
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("rayclip: ")
    assert "of the last 200 videos failed with not_found." in last
    assert arrays(output)  # what was done before is kept
    failed = failures(output)
    assert WINDOW / 2 < len(failed) <= WINDOW

    for video in videos[COPIES:]:  # what they had in common is mended
        os.link(clips[0], video)
    first = [Path(video) for video in failed][:20]
    ended = run(first, output)
    assert ended.status == 0, ended.stderr
    assert len(failures(output)) == len(failed) - len(first)


@pytest.mark.ray
def test_on_ray_such_a_run_is_stopped_and_nothing_of_it_goes_on(
    cluster: str, tmp_path: Path
) -> None:
    videos, output = nowhere(tmp_path, 5 * WINDOW), tmp_path / "output"
    where = ["--address", cluster, "--device", "cpu"]
    ended = rayclip(*words([], output, *where, *listed(videos, tmp_path)), env=ON_LOOPBACK)
    assert ended.status == 3, ended.stderr
    assert "of the last 200 videos failed with not_found" in ended.stderr.splitlines()[-1]
    assert WINDOW <= len(failures(output)) < len(videos)
    for word in ("Traceback", "WARNING", "Error"):  # tasks that go on would say these
        assert word not in ended.stderr


def test_a_few_hundred_bad_videos_that_are_known_do_not_stop_the_next_run(tmp_path: Path) -> None:
    videos, output = nowhere(tmp_path, WINDOW + 50), tmp_path / "output"
    assert run([], output, *listed(videos, tmp_path)).status == 3
    assert len(failures(output)) == WINDOW
    ended = run([], output, *listed(videos, tmp_path))
    assert ended.status == 1, ended.stderr
    assert len(failures(output)) == len(videos)
