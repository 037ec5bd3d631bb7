"""A storage that fails: an S3 server on loopback, behind a proxy that loses requests."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import output_folders
import pyarrow.parquet as pq
import pytest
import shard_folders
from fault_proxy import FaultProxy, Outcome, Request, always_fine, every_tenth, run_proxy
from run_cli import Finished, call
from video_factories import numbered_frame, write_video

from rayclip.io import retry
from rayclip.io.remote import BLOCK_BYTES

pytest.importorskip("s3fs")
moto = pytest.importorskip("moto.server")

COPIES = 8
BUCKET = "bucket"
NOT_CACHED: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "STORAGE", replace(retry.STORAGE, first_pause_s=0.01))


@pytest.fixture(scope="module")
def s3() -> Iterator[int]:
    """The port of an S3 server."""
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server.get_host_and_port()[1]
    server.stop()


@pytest.fixture
def proxy(s3: int) -> Iterator[FaultProxy]:
    """The way to that server, with an empty bucket behind it; it is well until a test says else."""
    with run_proxy(s3) as proxy:
        fs = storage(proxy)
        if fs.exists(BUCKET):
            fs.rm(BUCKET, recursive=True)
        fs.mkdir(BUCKET)
        proxy.outcomes.clear()
        yield proxy


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Seven small videos, and one of several parts of a remote file."""
    folder = tmp_path_factory.mktemp("clips")
    small = [
        write_video(folder / f"clip_{i:02}.mp4", [numbered_frame(i + j) for j in range(6)], fps=5)
        for i in range(COPIES - 1)
    ]
    side = 512
    frames = [numbered_frame(number, side, side) for number in range(3 * BLOCK_BYTES // side**2)]
    return [*small, write_video(folder / "long.mov", frames, codec="rawvideo", pix_fmt="rgb24")]


@pytest.fixture(scope="module")
def undisturbed(clips: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a run on local disks."""
    output = tmp_path_factory.mktemp("undisturbed")
    assert call(*extract(clips, output)).status == 0
    return {path.name: path.read_bytes() for path in output.glob("clip/demo/*.npy")}


def options(proxy: FaultProxy) -> dict[str, Any]:
    return {"key": "a key", "secret": "a secret", "endpoint_url": proxy.url}


def storage(proxy: FaultProxy) -> Any:
    return fsspec.filesystem("s3", **options(proxy), **NOT_CACHED)


def extract(videos: Sequence[Path | str], output: Path | str) -> list[Path | str]:
    words: list[Path | str] = ["extract", *videos, "--model-name", "demo", "--address", "none"]
    return [*words, "--on-extraction", "save_numpy", "--output-path", output]


def run(proxy: FaultProxy, videos: Sequence[Path | str], output: Path | str) -> Finished:
    return call(*extract(videos, output), "--storage-options", json.dumps(options(proxy)))


def uploaded(proxy: FaultProxy, clips: Sequence[Path]) -> list[str]:
    """The videos, on the storage."""
    fs = storage(proxy)
    for clip in clips:
        fs.put_file(str(clip), f"{BUCKET}/videos/{clip.name}")
    proxy.outcomes.clear()
    return [f"s3://{BUCKET}/videos/{clip.name}" for clip in clips]


def files(proxy: FaultProxy) -> dict[str, bytes]:
    """Names and contents of all that a run left, without its record."""
    proxy.choose_outcome = always_fine
    fs = storage(proxy)
    paths = fs.find(f"{BUCKET}/features")
    return {p.rpartition("/")[2]: fs.cat_file(p) for p in paths if not p.endswith("run.json")}


def test_one_request_in_ten_fails_and_every_video_has_the_features_of_a_local_run(
    proxy: FaultProxy, clips: list[Path], undisturbed: dict[str, bytes]
) -> None:
    videos = uploaded(proxy, clips)
    proxy.choose_outcome = every_tenth
    ended = run(proxy, videos, f"s3://{BUCKET}/features")
    assert ended.status == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    lost = proxy.count("busy", "reset", "cut", "unanswered")
    assert abs(lost - len(proxy.outcomes) / 10) < 1
    assert len({outcome for _, outcome in proxy.outcomes}) == 5, "not every way to fail was tried"
    assert files(proxy) == undisturbed
    assert not storage(proxy).list_multipart_uploads(BUCKET)


@pytest.mark.parametrize("outcome", ["cut", "unanswered"])
def test_a_large_file_that_cannot_be_uploaded_is_not_there_at_all(
    proxy: FaultProxy, outcome: Outcome, clips: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rayclip.io import atomic_write

    monkeypatch.setattr(atomic_write, "SPOOL_BYTES", 0)
    monkeypatch.setattr(retry, "STORAGE", replace(retry.STORAGE, attempts=2))
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)

    def features_only(request: Request) -> Outcome:
        return outcome if request.method == "PUT" and "_clip.npy" in request.path else "fine"

    proxy.choose_outcome = features_only
    ended = run(proxy, clips[:2], f"s3://{BUCKET}/features")
    assert ended.status == 1, ended.stderr
    left = files(proxy)
    failed = [json.loads(line) for line in left.pop("failures.jsonl").splitlines()]
    assert [(f["stage"], f["code"]) for f in failed] == [("write", "write_failed")] * 2
    if outcome != "unanswered":  # for then the file has come, and whole
        assert not [name for name in left if "_clip" in name]


def expiring(when: Callable[[Request], bool]) -> Callable[[Request], Outcome]:
    """Credentials that are too old from the first request on that is so."""
    expired: list[Request] = []

    def choose_outcome(request: Request) -> Outcome:
        if when(request):
            expired.append(request)
        return "expired" if expired else "fine"

    return choose_outcome


def test_credentials_that_expire_while_features_are_written_stop_the_run_and_it_goes_on_later(
    proxy: FaultProxy, clips: list[Path], undisturbed: dict[str, bytes]
) -> None:
    proxy.choose_outcome = expiring(
        lambda request: request.method == "PUT" and "clip_05_timestamps" in request.path
    )
    began = time.monotonic()
    ended = run(proxy, clips, f"s3://{BUCKET}/features")
    assert time.monotonic() - began < 60
    assert ended.status == 3, ended.stderr
    last = ended.stderr.splitlines()[-1]
    assert last.startswith(f"rayclip: The credentials for s3://{BUCKET}/features/clip/demo were")
    assert "the ExpiredToken of a test" in last
    assert "renew them, then rerun the same command" in last
    assert "Traceback" not in ended.stderr
    left = files(proxy)
    assert left.items() <= undisturbed.items()
    done = sum(name.endswith("_clip.npy") for name in left)
    assert 0 < done < COPIES

    ended = run(proxy, clips, f"s3://{BUCKET}/features")
    assert ended.status == 0, ended.stderr
    assert f"{done} done before" in ended.stderr
    assert files(proxy) == undisturbed


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_credentials_that_expire_while_videos_are_read_stop_the_run(
    proxy: FaultProxy,
    clips: list[Path],
    undisturbed: dict[str, bytes],
    tmp_path: Path,
    method: str,
) -> None:
    """S3 gives no reason when it is asked for a file's size, and one when it is asked for bytes."""
    videos = uploaded(proxy, clips[:6])
    proxy.choose_outcome = expiring(
        lambda request: request.method == method and request.path.endswith("clip_03.mp4")
    )
    began = time.monotonic()
    ended = run(proxy, videos, tmp_path)
    assert time.monotonic() - began < 60
    assert ended.status == 3, ended.stderr
    last = ended.stderr.splitlines()[-1]
    assert re.match(r"rayclip: The credentials for s3://.*/clip_0\d\.mp4 were refused", last)
    assert "the ExpiredToken of a test" in last
    assert len(list(tmp_path.glob("clip/demo/*_clip.npy"))) < len(videos)

    proxy.choose_outcome = always_fine
    ended = run(proxy, videos, tmp_path)
    assert ended.status == 0, ended.stderr
    for path in tmp_path.glob("clip/demo/*.npy"):
        assert path.read_bytes() == undisturbed[path.name]


def test_credentials_that_are_too_old_from_the_beginning_are_one_sentence(
    proxy: FaultProxy, clips: list[Path]
) -> None:
    proxy.choose_outcome = lambda request: "expired"
    ended = run(proxy, clips, f"s3://{BUCKET}/features")
    assert (ended.status, len(ended.stderr.splitlines())) == (3, 1), ended.stderr
    assert "the ExpiredToken of a test" in ended.stderr


def test_a_file_that_may_not_be_read_is_that_videos_failure_alone(
    proxy: FaultProxy, clips: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fault_proxy

    monkeypatch.setitem(fault_proxy.ANSWERS, "expired", (403, "AccessDenied"))
    videos = uploaded(proxy, clips[:4])
    proxy.choose_outcome = lambda request: "expired" if "clip_01" in request.path else "fine"
    ended = run(proxy, [*videos, f"s3://{BUCKET}/videos/nowhere.mp4"], tmp_path)
    assert ended.status == 1, ended.stderr
    lines = (tmp_path / "clip" / "demo" / "failures.jsonl").read_text().splitlines()
    failed = {
        f["video"].rpartition("/")[2]: (f["stage"], f["code"]) for f in map(json.loads, lines)
    }
    assert failed == {
        "clip_01.mp4": ("read", "access_denied"),
        "nowhere.mp4": ("open", "not_found"),
    }


def test_features_on_a_storage_that_were_cut_short_are_made_again(
    proxy: FaultProxy, clips: list[Path], undisturbed: dict[str, bytes]
) -> None:
    output = f"s3://{BUCKET}/features"
    assert run(proxy, clips[:3], output).status == 0
    name = f"{BUCKET}/features/clip/demo/clip_01_clip.npy"
    fs = storage(proxy)
    fs.pipe_file(name, fs.cat_file(name)[:-4])
    ended = run(proxy, clips[:3], output)
    assert (ended.status, "1 done, 2 done before" in ended.stderr) == (0, True), ended.stderr
    assert fs.cat_file(name) == undisturbed["clip_01_clip.npy"]


def rows(proxy: FaultProxy) -> dict[str, bytes]:
    """The features in the shards of a run, each video once."""
    proxy.choose_outcome = always_fine
    fs = storage(proxy)
    found = [
        row
        for path in fs.find(f"{BUCKET}/features")
        if path.endswith(".parquet")
        for row in pq.ParquetFile(fs.open(path)).read().to_pylist()
    ]
    assert len({row["video"] for row in found}) == len(found), "a video is there twice"
    return {Path(row["video"]).stem: np.array(row["clip"], np.float32).tobytes() for row in found}


def to_shards(proxy: FaultProxy, videos: Sequence[Path | str]) -> Finished:
    words = extract(videos, f"s3://{BUCKET}/features")
    words[words.index("save_numpy")] = "save_parquet"
    return call(*words, "--storage-options", json.dumps(options(proxy)))


def test_shards_are_put_on_a_storage_that_fails_and_joined_there(
    proxy: FaultProxy, clips: list[Path], undisturbed: dict[str, bytes]
) -> None:
    def often_busy(request: Request) -> Outcome:
        return "busy" if request.number % 6 == 4 else "fine"

    videos = uploaded(proxy, clips)
    for count in (3, 6, COPIES):  # each run puts shards
        proxy.choose_outcome = often_busy
        ended = to_shards(proxy, videos[:count])
        assert ended.status == 0, ended.stderr
    assert "2 done, 6 done before" in ended.stderr
    assert proxy.count("busy") > 5
    made = rows(proxy)
    assert len(made) == COPIES
    assert all(undisturbed[f"{name}_clip.npy"].endswith(clip) for name, clip in made.items())

    proxy.choose_outcome = often_busy
    where = f"s3://{BUCKET}/features"
    ended = call("compact", where, "--storage-options", json.dumps(options(proxy)))
    assert ended.status == 0, ended.stderr
    assert f"{COPIES} videos, {COPIES} shards are now 1" in ended.stdout
    assert rows(proxy) == made


def test_a_shard_that_cannot_be_put_is_a_failure_of_each_of_its_videos(
    proxy: FaultProxy, clips: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "STORAGE", replace(retry.STORAGE, attempts=2))
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)

    def no_shard(request: Request) -> Outcome:
        return "cut" if request.method == "PUT" and ".parquet" in request.path else "fine"

    proxy.choose_outcome = no_shard
    ended = to_shards(proxy, clips[:2])
    assert ended.status == 1, ended.stderr
    left = files(proxy)
    failed = [json.loads(line) for line in left.pop("failures.jsonl").splitlines()]
    assert [(f["stage"], f["code"]) for f in failed] == [("write", "write_failed")] * 2
    assert not left


@pytest.mark.parametrize("way", ["prefix", "pattern", "list"])
def test_a_prefix_a_pattern_and_a_list_on_a_storage_give_the_features_of_a_local_run(
    proxy: FaultProxy,
    clips: list[Path],
    undisturbed: dict[str, bytes],
    tmp_path: Path,
    way: str,
) -> None:
    videos = uploaded(proxy, clips[:2])
    storage(proxy).pipe_file(f"{BUCKET}/videos/notes.txt", b"no video")
    table = "".join(f"{video},1\n" for video in videos)
    storage(proxy).pipe_file(f"{BUCKET}/list.csv", f"url,label\n{table}".encode())
    given = {
        "prefix": [f"s3://{BUCKET}/videos"],
        "pattern": [f"s3://{BUCKET}/*/clip_0[0-1].mp4"],
        "list": ["--file-with-video-paths", f"s3://{BUCKET}/list.csv", "--path-column", "url"],
    }[way]
    ended = run(proxy, given, tmp_path)
    assert ended.status == 0, ended.stderr
    made = {path.name: path.read_bytes() for path in tmp_path.glob("clip/demo/*.npy")}
    assert {name for name in made if name.endswith("_clip.npy")} == {
        f"clip_{number:02}_clip.npy" for number in range(2)
    }
    assert made.items() <= undisturbed.items()


def test_a_prefix_without_videos_is_one_sentence(proxy: FaultProxy) -> None:
    ended = run(proxy, [f"s3://{BUCKET}/nothing/"], f"s3://{BUCKET}/features")
    assert ended.status == 2, ended.stderr
    (last,) = [line for line in ended.stderr.splitlines() if not line.endswith(" ...")]
    assert last.startswith(f"rayclip: The folder s3://{BUCKET}/")


@pytest.mark.parametrize("kind", ["files", "shards"])
def test_an_export_survives_failing_requests_and_equals_a_local_one(
    kind: str, proxy: FaultProxy, tmp_path: Path
) -> None:
    if kind == "shards":
        shard_folders.save(shard_folders.a_run(tmp_path / "out"), "cat.mp4", "dog.mp4", "ox.mp4")
    else:
        folder = output_folders.a_run(tmp_path / "out", naming="path")
        for name in ("cat", "a/dog", "ox"):
            output_folders.commit(folder, name)
    fs = storage(proxy)
    fs.put(f"{tmp_path}/out/", f"{BUCKET}/out/", recursive=True)
    how = ["--format", "npz", "--normalize"]
    assert call("export", tmp_path / "out", tmp_path / "target", *how).status == 0
    proxy.choose_outcome = every_tenth
    words = ["export", f"s3://{BUCKET}/out", f"s3://{BUCKET}/target", *how]
    words += ["--storage-options", json.dumps(options(proxy))]
    ended = call(*words)
    assert (ended.status, ended.stderr) == (0, "")
    assert "3 videos written" in ended.stdout
    assert "0 videos written" in call(*words).stdout
    proxy.choose_outcome = always_fine
    fs.invalidate_cache()
    local = {path.name: path for path in tmp_path.glob("target/**/*.npz")}
    assert len(local) == 3
    for path in local.values():
        name = path.relative_to(tmp_path / "target")
        assert fs.cat_file(f"{BUCKET}/target/{name}") == path.read_bytes()
