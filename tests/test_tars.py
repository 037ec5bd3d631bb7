"""Runs whose inputs are tar files of videos, as WebDataset writes them."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import shapes
from checkpoints import save_state_dict, small_vit
from fault_proxy import Outcome, Request, run_proxy
from file_server import serving
from hostility import hostile_environment
from ray_clusters import kill_workers
from run_cli import (
    ON_LOOPBACK,
    Finished,
    alive,
    call,
    family,
    finish,
    rayclip,
    start_rayclip,
    wait_until,
)
from tar_factories import write_tar

import rayclip as package
from rayclip.io import retry
from rayclip.io.retry import RetryPolicy
from rayclip.model.openai import DEFAULT_CUSTOM_WEIGHTS

CLIPS = 3
TARS, CLIPS_PER_TAR = 8, 12  # of a longer run
BROKEN = b"not a video"


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Different videos of which no two have the same features."""
    folder = tmp_path_factory.mktemp("clips")
    scenes = [("red", "circle"), ("blue", "star"), ("green", "square")]
    for number, scene in enumerate(scenes):
        shapes.write_video(folder / f"{number}.mp4", [scene], seconds_per_scene=0.4)
    return [path.read_bytes() for path in sorted(folder.iterdir())]


@pytest.fixture
def tars(clips: list[bytes], tmp_path: Path) -> list[Path]:
    """Two tar files of three videos each; the second one also has one that is broken."""
    samples: dict[str, bytes] = {}
    for number, clip in enumerate(clips):
        samples |= {f"{number}.mp4": clip, f"{number}.json": b'{"of": %d}' % number}
    return [
        write_tar(tmp_path / "a.tar", samples),
        write_tar(tmp_path / "b.tar", {"bad.mp4": BROKEN, "bad.txt": b"broken", **samples}),
    ]


def words(inputs: Sequence[str | Path], output: Path, *others: str | Path) -> list[str | Path]:
    options = ["--on-extraction", "save_numpy", "--output-path", output, "--model-name", "demo"]
    return ["extract", *inputs, "--address", "none", *options, *others]


def extract(inputs: Sequence[str | Path], output: Path, *others: str | Path) -> Finished:
    return call(*words(inputs, output, *others))


def features(output: Path, model: str = "demo") -> dict[str, bytes]:
    """The features of each video, by its name."""
    folder = output / "clip" / model
    files = folder.rglob("*_clip.npy")
    return {str(file.relative_to(folder))[: -len("_clip.npy")]: file.read_bytes() for file in files}


def failures(output: Path) -> dict[str, str]:
    lines = (output / "clip" / "demo" / "failures.jsonl").read_text().splitlines()
    return {Path(line["video"]).name: line["code"] for line in map(json.loads, lines)}


def record(output: Path, tar: str) -> Any:
    path = output / "clip" / "demo" / "finished_tars" / f"{tar}.json"
    return json.loads(path.read_text()) if path.exists() else None


def test_videos_in_tar_files_have_the_features_of_the_same_files(
    tars: list[Path], clips: list[bytes], tmp_path: Path
) -> None:
    videos = [tmp_path / f"{number}.mp4" for number in range(CLIPS)]
    for video, clip in zip(videos, clips, strict=True):
        video.write_bytes(clip)
    extract(videos, tmp_path / "videos")
    ended = extract(tars, tmp_path / "tars")
    assert ended.status == 1, ended.stderr
    expected = features(tmp_path / "videos")
    assert len({*expected.values()}) == CLIPS
    assert features(tmp_path / "tars") == {
        f"{tar}/{name}": content for tar in "ab" for name, content in expected.items()
    }
    saved = {video.video: video for video in package.load_features(tmp_path / "tars")}
    assert (
        saved["a/1"].clip.tobytes() == np.load(tmp_path / "videos/clip/demo/1_clip.npy").tobytes()
    )


def test_a_broken_video_is_one_failure_and_finished_tar_files_are_not_read_again(
    tars: list[Path], tmp_path: Path
) -> None:
    output = tmp_path / "output"
    ended = extract(tars, output)
    assert (ended.status, failures(output)) == (1, {"bad.mp4": "not_a_video"})
    assert "videos: 6 done, 1 failed" in ended.stderr
    assert record(output, "a") == {"videos": 3, "failures": []}
    assert record(output, "b")["videos"] == 4
    before = features(output)
    for tar in tars:
        tar.write_bytes(b"")
    ended = extract(tars, output)
    assert ended.status == 1
    assert "videos: 0 done, 6 done before, 1 failed before, in finished tar files" in ended.stderr
    assert features(output) == before
    assert call("failures", output).stdout == f"{tars[1]}\n"


def test_failures_in_finished_tar_files_are_listed_even_if_the_run_was_killed_before_it_did(
    tars: list[Path], tmp_path: Path
) -> None:
    output = tmp_path / "output"
    extract(tars, output)
    (output / "clip" / "demo" / "failures.jsonl").unlink()
    assert extract(tars, output).status == 1
    assert failures(output) == {"bad.mp4": "not_a_video"}


def test_a_video_that_is_no_longer_in_its_tar_file_is_no_failure(
    tars: list[Path], clips: list[bytes], tmp_path: Path
) -> None:
    output = tmp_path / "output"
    extract(tars, output)
    write_tar(tars[1], {"0.mp4": clips[0]})
    assert extract(tars, output, "--overwrite").status == 0
    assert failures(output) == {}


@pytest.mark.parametrize("on_extraction", ["save_numpy", "save_parquet"])
def test_features_that_were_removed_from_finished_tar_files_are_extracted_again(
    on_extraction: str, tars: list[Path], tmp_path: Path
) -> None:
    output, options = tmp_path / "output", ["--on-extraction", on_extraction]
    extract(tars, output, *options)
    files = output.rglob("*_clip.npy" if on_extraction == "save_numpy" else "*.parquet")
    next(files).unlink()
    remaining = Counter(Path(video.video).parent.stem for video in package.load_features(output))
    (damaged,) = (tar for tar in tars if remaining[tar.stem] < CLIPS)
    (whole,) = {*tars} - {damaged}
    whole.write_bytes(b"")  # it is not read
    ended = extract(tars, output, *options)
    lost = 2 * CLIPS - remaining.total()
    assert f"{lost} done, {remaining.total()} done before, 1 failed" in ended.stderr
    assert len(list(package.load_features(output))) == 2 * CLIPS
    assert "0 done, 6 done before, 1 failed before" in extract(tars, output, *options).stderr


def test_other_settings_are_refused_even_if_no_video_in_finished_tar_files_has_features(
    tmp_path: Path,
) -> None:
    tar = write_tar(tmp_path / "a.tar", {"0.mp4": BROKEN})
    assert extract([tar], tmp_path).status == 1
    ended = extract([tar], tmp_path, "--extraction-fps", "1")
    assert ended.status == 2
    assert "extraction_fps=None (now 1)" in ended.stderr


@pytest.mark.parametrize(
    ("kind", "changed"), [("save_numpy", ["--every", "2"]), ("save_parquet", [])]
)
def test_overwrite_refuses_if_features_in_other_unfinished_tar_files_cannot_stay(
    kind: str, changed: list[str], tars: list[Path], tmp_path: Path
) -> None:
    output, content = tmp_path / "output", tars[1].read_bytes()
    tars[1].write_bytes(content[: 2 * len(content) // 3])
    options = ["--on-extraction", kind]
    assert extract(tars, output, *options).status == 1
    done = len(list(package.load_features(output)))
    assert done > CLIPS
    ended = extract(tars[:1], output, *options, *changed, "--overwrite")
    assert ended.status == 2, ended.stderr
    assert "holds other videos" in ended.stderr
    assert len(list(package.load_features(output))) == done
    assert extract(tars, output, *options, *changed, "--overwrite").status == 1


def test_status_says_how_many_tar_files_are_left(tars: list[Path], tmp_path: Path) -> None:
    output, listed = tmp_path / "output", tmp_path / "tars.txt"
    extract(tars[:1], output)
    listed.write_text("".join(f"{tar}\n" for tar in tars))
    ended = call("status", output, "--file-with-video-paths", listed)
    assert "1 of 2 tar files listed" in ended.stdout


def test_texts_beside_a_video_are_columns(tars: list[Path], tmp_path: Path) -> None:
    extract(tars, tmp_path, "--on-extraction", "save_parquet")
    rows = [
        row
        for file in tmp_path.glob("clip/demo/*.parquet")
        for row in pq.read_table(file, columns=["video", "json", "txt"]).to_pylist()
    ]
    assert sorted(rows, key=lambda row: row["video"]) == [
        {"video": f"{tar}/{number}.mp4", "json": f'{{"of": {number}}}', "txt": None}
        for tar in tars
        for number in range(CLIPS)
    ]


@pytest.mark.parametrize("on_extraction", ["save_numpy", "save_parquet"])
def test_exported_videos_are_in_a_folder_of_their_tar_file(
    on_extraction: str, tars: list[Path], tmp_path: Path
) -> None:
    extract(tars, tmp_path, "--on-extraction", on_extraction)
    target = tmp_path / "export"
    assert call("export", tmp_path, target, "--format", "npz").status == 0
    names = {str(path.relative_to(target)) for path in target.rglob("*.npz")}
    assert names == {f"{tar}/{number}.npz" for tar in "ab" for number in range(CLIPS)}


def test_pictures_of_videos_in_tar_files_need_these_as_files(
    tars: list[Path], clips: list[bytes], tmp_path: Path
) -> None:
    output, unpacked = tmp_path / "output", tmp_path / "unpacked"
    extract(tars[:1], output)
    for number, clip in enumerate(clips):
        (unpacked / "a").mkdir(parents=True, exist_ok=True)
        (unpacked / "a" / f"{number}.mp4").write_bytes(clip)
    asked = ["search", output, "a red circle"]
    assert "name the folder of the videos with --videos" in call(*asked).stderr
    assert "cannot be found" not in call(*asked, "--videos", unpacked).stderr


@pytest.mark.parametrize("on_extraction", ["save_numpy", "save_parquet"])
def test_a_tar_file_that_was_cut_is_continued_when_it_is_whole(
    on_extraction: str, tars: list[Path], tmp_path: Path
) -> None:
    tar, output = tars[0], tmp_path / "output"
    content = tar.read_bytes()
    tar.write_bytes(content[: 2 * len(content) // 3])
    options = ["--on-extraction", on_extraction]
    ended = extract([tar], output, *options)
    assert (ended.status, failures(output)) == (1, {"a.tar": "tar_damaged"})
    assert record(output, "a") is None
    done = len(list(package.load_features(output)))
    assert 0 < done < CLIPS
    if on_extraction == "save_parquet":
        assert call("compact", output).status == 0  # the rows are in other shards from now on
    tar.write_bytes(content)
    ended = extract([tar], output, *options)
    assert ended.status == 0, ended.stderr
    assert f"{CLIPS - done} done, {done} done before" in ended.stderr
    assert failures(output) == {}
    assert sorted(Path(v.video).stem for v in package.load_features(output)) == ["0", "1", "2"]


def test_overwrite_extracts_finished_tar_files_again_and_leaves_others(
    tars: list[Path], clips: list[bytes], tmp_path: Path
) -> None:
    output = tmp_path / "output"
    extract(tars, output)
    before = features(output)
    write_tar(tars[0], {"0.mp4": clips[2]})
    assert extract(tars[:1], output, "--overwrite").status == 0
    others = {name: content for name, content in before.items() if name.startswith("b/")}
    assert features(output) == {"a/0": before["a/2"], **others}
    assert record(output, "a")["videos"] == 1


def test_a_model_that_is_added_later_is_the_only_one_that_encodes(
    tars: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    weights = tmp_path / DEFAULT_CUSTOM_WEIGHTS
    weights.parent.mkdir(parents=True)
    save_state_dict(small_vit(), weights)
    output = tmp_path / "output"
    extract(tars[:1], output)
    times = {path: path.stat().st_mtime_ns for path in output.rglob("*_clip.npy")}
    ended = extract(tars, output, "--model-name", "custom")
    assert ended.status == 1, ended.stderr
    assert [*features(output)] == [*features(output, "custom")]
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_videos_of_the_same_name_in_a_tar_file_do_not_replace_one_another(
    clips: list[bytes], tmp_path: Path
) -> None:
    tar = write_tar(tmp_path / "a.tar", {"same.mp4": clips[0], "same.mov": clips[1]})
    for _ in range(2):
        assert extract([tar], tmp_path).status == 1
        assert failures(tmp_path) == {"same.mov": "same_name"}
    assert "1: same_name 1" in call("status", tmp_path).stdout


def test_members_of_one_name_are_one_video_and_failures_that_are_recorded(
    clips: list[bytes], tmp_path: Path
) -> None:
    tar = write_tar(tmp_path / "a.tar", {"same.mp4": BROKEN, "other.mp4": clips[0]})
    with tarfile.open(tar, "a") as archive:
        header = tarfile.TarInfo("same.mp4")
        header.size = len(clips[1])
        archive.addfile(header, io.BytesIO(clips[1]))
    extract([tar], tmp_path)
    tar.write_bytes(b"")
    assert "0 done, 1 done before" in extract([tar], tmp_path).stderr


def test_tar_files_and_videos_are_runs_of_their_own(tars: list[Path], tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(BROKEN)
    ended = extract([tmp_path / "a.mp4", tars[0]], tmp_path / "output")
    assert ended.status == 2
    assert f"{tars[0]} is a tar file, but {tmp_path / 'a.mp4'} is not" in ended.stderr


def test_a_folder_of_tar_files_is_not_named_like_one(clips: list[bytes], tmp_path: Path) -> None:
    """Names of videos in them could be read in two ways."""
    (tmp_path / "b.tar").mkdir()
    tar = write_tar(tmp_path / "b.tar" / "a.tar", {"0.mp4": clips[0]})
    ended = extract([tar], tmp_path / "output")
    assert ended.status == 2
    assert f"{tar} is in {tar.parent}, which is named like a tar file" in ended.stderr


def test_a_list_of_tar_files_has_no_ranges(tars: list[Path], tmp_path: Path) -> None:
    listed = tmp_path / "tars.csv"
    listed.write_text(f"path,start_s\n{tars[0]},5\n")
    ended = extract([], tmp_path, "--file-with-video-paths", listed)
    assert ended.status == 2
    assert f"{tars[0]}#t=5 is a part of a tar file" in ended.stderr
    ended = extract([], tmp_path, "--file-with-video-paths", listed, "--ignore-ranges")
    assert ended.status == 0, ended.stderr


@pytest.mark.parametrize("overwrite", [False, True])
def test_their_features_are_not_mixed_in_a_folder_with_those_of_files(
    overwrite: bool, tars: list[Path], clips: list[bytes], tmp_path: Path
) -> None:
    video, output = tmp_path / "video.mp4", tmp_path / "output"
    video.write_bytes(clips[0])
    options = ["--overwrite"] if overwrite else []
    for first, second in (([video], tars), (tars, [video])):
        extract(first, output)
        before = features(output)
        ended = extract(second, output, *options)
        assert ended.status == 2, ended.stderr
        assert "of_tars=" in ended.stderr
        assert features(output) == before
        shutil.rmtree(output)


def test_arrays_are_printed_in_the_order_of_the_tar_files(
    clips: list[bytes], tmp_path: Path
) -> None:
    numbers = range(6)
    tars = [
        write_tar(tmp_path / f"{n}.tar", {f"{m}.mp4": clips[0] for m in range(6 - n)})
        for n in numbers
    ]
    ended = call("extract", *tars, "--address", "none", "--model-name", "demo")
    assert ended.status == 0, ended.stderr
    names = [line for line in ended.stdout.splitlines() if line.endswith(".mp4")]
    assert names == [f"{tars[n]}/{m}.mp4" for n in numbers for m in range(6 - n)]


def test_each_byte_is_read_about_once_and_finished_ones_are_skipped_after_a_kill(
    clips: list[bytes], tmp_path: Path
) -> None:
    """Over HTTP; the command is killed when some are finished."""
    samples: dict[str, bytes] = {}
    for number in range(CLIPS_PER_TAR):
        samples |= {f"{number}.mp4": clips[0], f"{number}.jpg": bytes(100_000)}
    samples["5.mp4"] = BROKEN
    tars = [write_tar(tmp_path / f"{number}.tar", samples) for number in range(TARS)]
    size = tars[0].stat().st_size
    output = tmp_path / "output"
    with serving(tmp_path) as server:
        urls = [server.url(tar) for tar in tars]
        assert extract(urls, tmp_path / "undisturbed").status == 1
        assert TARS * size <= server.served <= 1.05 * TARS * size
        with start_rayclip(*words(urls, output)) as running:
            wait_until(lambda: record(output, "0"), "a finished tar file", running)
            running.kill()
            wait_until(lambda: not alive(family(running)[1:]), "the end of the worker")
        finished = sum(record(output, str(number)) is not None for number in range(TARS))
        assert finished < TARS, "the kill came too late to prove anything"
        times = {path: path.stat().st_mtime_ns for path in output.rglob("*_clip.npy")}
        server.served = 0
        ended = extract(urls, output)
        assert ended.status == 1, ended.stderr
        assert server.served <= 1.05 * (TARS - finished) * size
    assert features(output) == features(tmp_path / "undisturbed")
    assert len(features(output)) == TARS * (CLIPS_PER_TAR - 1)
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_a_crash_costs_one_video_or_a_tar_file_that_went_with_it_and_the_others_are_done(
    clips: list[bytes], tmp_path: Path
) -> None:
    first = {"0.mp4": clips[0], "crash.mp4": clips[1], "1.mp4": clips[1], "2.mp4": clips[2]}
    second = {f"{number}.mp4": clip for number, clip in enumerate(clips)}
    tars = [
        write_tar(tmp_path / "a.tar", first),
        write_tar(tmp_path / "b.tar", second),
        write_tar(tmp_path / "c.tar", {"0.mp4": clips[0], "gone.mp4": clips[1]}),
    ]
    output = tmp_path / "output"
    environment = hostile_environment(tmp_path, videos_per_task=1)
    ended = rayclip(*words(tars, output, "--max-attempts", "2"), env=environment)
    assert ended.status == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    assert failures(output) == {"crash.mp4": "worker_crashed", "c.tar": "not_found"}
    assert {f"{tar}/{n}" for tar in "ab" for n in range(3)} <= features(output).keys()
    assert [record(output, tar)["videos"] for tar in "ab"] == [4, 3]


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("way", ["busy", "cut"])
def test_storage_that_fails_for_a_moment_costs_no_video(
    ranges: bool, way: Outcome, clips: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for policy in ("STORAGE", "RESTART"):
        monkeypatch.setattr(retry, policy, RetryPolicy(10, 60, first_pause_s=0.01))
    samples = {f"{number}.mp4": clip for number, clip in enumerate(clips)}
    write_tar(tmp_path / "a.tar", {**samples, "last.bin": bytes(10_000_000)})

    def at_first(request: Request) -> Outcome:
        return way if request.number in (1, 2, 4, 5) else "fine"

    with serving(tmp_path) as server, run_proxy(server.server_port, at_first) as proxy:
        server.ranges = ranges
        ended = extract([f"{proxy.url}/a.tar"], tmp_path / "output")
    assert ended.status == 0, ended.stderr
    assert proxy.count(way) >= 3
    assert f"videos: {CLIPS} done;" in ended.stderr
    assert len(features(tmp_path / "output")) == CLIPS


@pytest.mark.ray
def test_on_ray_a_killed_decoding_worker_costs_no_video_and_changes_no_bit(
    clips: list[bytes], cluster: str, tmp_path: Path
) -> None:
    samples = {f"{number}.mp4": clips[number % CLIPS] for number in range(CLIPS_PER_TAR)}
    samples["bad.mp4"] = BROKEN
    tars = [write_tar(tmp_path / f"{number}.tar", samples) for number in range(4)]
    assert extract(tars, tmp_path / "undisturbed").status == 1
    output = tmp_path / "output"
    command = words(tars, output, "--address", cluster, "--device", "cpu")
    with start_rayclip(*command, env=ON_LOOPBACK) as running:
        wait_until(lambda: len(features(output)) >= 3, "three videos", running)
        assert not record(output, "3"), "the kill comes too late to prove anything"
        kill_workers(cluster, "ray::MapBatches", running)
        ended = finish(running)
    assert ended.status == 1, ended.stderr
    assert failures(output) == {"bad.mp4": "not_a_video"}
    assert features(output) == features(tmp_path / "undisturbed")
    assert [record(output, str(n))["videos"] for n in range(4)] == [CLIPS_PER_TAR + 1] * 4
