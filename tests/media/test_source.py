"""Reading videos from disks, storages, good and bad servers, and pipes."""

from __future__ import annotations

import io
import os
import shutil
import socket
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import av
import fsspec
import pytest
from fault_proxy import Outcome, Request, run_proxy
from file_server import FileServer, serving
from plain_decoder import rgb_of
from run_cli import call
from video_factories import (
    a_folder,
    an_empty_file,
    missing,
    number_of,
    numbered_frame,
    numbered_frames,
    write_video,
)

from rayclip.errors import BadVideo, VideoError
from rayclip.io import retry
from rayclip.io.remote import BLOCK_BYTES, MAX_CACHED_BLOCKS
from rayclip.io.retry import RetryPolicy
from rayclip.io.storage_errors import is_transient
from rayclip.media.source import NO_OTHER_FILES, VideoSource, open_reader

COUNT = 12
NUMBERS = list(range(COUNT))


@pytest.fixture
def retry_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry once, without a pause."""
    monkeypatch.setattr(retry, "STORAGE", RetryPolicy(2, 60, first_pause_s=0.01))


def numbers_of(source: VideoSource, **options: Any) -> list[int]:
    """The numbers of a source's frames, see ``numbered_frame``."""
    with (
        open_reader(source, options) as file,
        av.open(file, "r", container_options=NO_OTHER_FILES) as container,
    ):
        return [number_of(rgb_of(frame)) for frame in container.decode(video=0)]


def failure_of(source: VideoSource) -> VideoError:
    with pytest.raises(VideoError) as caught:
        numbers_of(source)
    return caught.value


def index_first(path: Path) -> Path:
    """Copy an mp4 video with its index first."""
    index_first = path.with_name(f"index_first_{path.name}")
    with (
        av.open(str(path)) as old,
        av.open(str(index_first), "w", container_options={"movflags": "faststart"}) as new,
    ):
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = stream
                new.mux(packet)
    return index_first


@pytest.fixture
def mp4(tmp_path: Path) -> Path:
    """A video whose index comes last, as written by cameras and muxers."""
    return write_video(tmp_path / "a.mp4", numbered_frames(COUNT))


@pytest.fixture
def ts(tmp_path: Path) -> Path:
    return write_video(tmp_path / "a.ts", numbered_frames(COUNT), codec="mpeg2video", fps=25)


@pytest.fixture(scope="module")
def large_mov(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with its index at the end that exceeds the cache of a remote file."""
    frame_bytes = 640 * 360 * 3
    count = BLOCK_BYTES * (MAX_CACHED_BLOCKS + 1) // frame_bytes + 1
    frames = [numbered_frame(number, 640, 360) for number in range(count)]
    path = tmp_path_factory.mktemp("large") / "a.mov"
    return write_video(path, frames, codec="rawvideo", pix_fmt="rgb24")


# ---- local files ----


@pytest.mark.parametrize(
    "name",
    [
        "foo:bar.mp4",
        "http:a.mp4",
        "concat:a.mp4|a.mp4",
        "-i.mp4",
        "a%03d.mp4",
        "a%*?.mp4",
        "a\nb.mp4",
        os.fsdecode(b"not utf-8 \xff\xfe.mp4"),
    ],
    ids=ascii,
)
def test_a_name_is_only_ever_a_file_name(
    mp4: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    renamed = mp4.rename(mp4.with_name(name))
    monkeypatch.chdir(mp4.parent)
    assert numbers_of(renamed) == numbers_of(str(renamed)) == numbers_of(name) == NUMBERS


def test_a_gif_named_like_a_pattern_is_one_video(tmp_path: Path) -> None:
    for number in range(3):
        write_video(tmp_path / f"{number}.gif", numbered_frames(1), codec="gif", pix_fmt="gray")
    name = tmp_path / "%d.gif"
    write_video(tmp_path / "a.gif", numbered_frames(COUNT), codec="gif", pix_fmt="gray").rename(
        name
    )
    assert numbers_of(name) == NUMBERS


def named_pipe(folder: Path) -> Path:
    path = folder / "pipe.mp4"
    os.mkfifo(path)
    return path


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (missing, "not_found"),
        (an_empty_file, "empty_file"),
        (a_folder, "is_a_folder"),
        (named_pipe, "not_a_file"),
    ],
)
def test_a_file_that_is_not_a_video_has_a_code(
    tmp_path: Path, make: Callable[[Path], Path], code: str
) -> None:
    error = failure_of(make(tmp_path))
    assert (type(error), error.stage, error.code) == (BadVideo, "open", code)


def test_the_message_for_a_folder_says_what_to_do(tmp_path: Path) -> None:
    assert str(failure_of(tmp_path)) == (
        "this is a folder, not a video: name the videos in it, or make a video of its images"
    )


def test_a_path_through_a_file_could_not_be_read(mp4: Path) -> None:
    error = failure_of(mp4 / "b.mp4")
    assert (type(error), error.stage, error.code) == (VideoError, "read", "read_failed")


# ---- videos that name other files ----

HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n"
CONCAT = "ffconcat version 1.0\nfile {}\n"
DASH = '<?xml version="1.0"?>\n<!-- made by hand -->\n<MPD><BaseURL>{}</BaseURL></MPD>\n'


@pytest.mark.parametrize("playlist", [HLS, CONCAT, DASH])
@pytest.mark.parametrize("name", ["a.m3u8", "a.mp4"])
def test_a_playlist_is_not_a_video(ts: Path, playlist: str, name: str) -> None:
    path = ts.with_name(name)
    path.write_text(playlist.format(ts.name))
    error = failure_of(path)
    assert (type(error), error.stage, error.code) == (BadVideo, "open", "is_a_playlist")


def test_libav_opens_no_file_that_a_video_names(ts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ts.parent)
    playlist = CONCAT.format(ts.name).encode()
    with av.open(io.BytesIO(playlist)) as container:  # libav would open it without our options
        assert container.format.name == "concat"
    with pytest.raises(av.FFmpegError):
        av.open(io.BytesIO(playlist), container_options=NO_OTHER_FILES)


# ---- storages behind fsspec ----


def test_a_url_is_read_by_fsspec(mp4: Path, memory_url: str) -> None:
    with fsspec.open(f"{memory_url}/a.mp4", "wb") as file:
        file.write(mp4.read_bytes())
    assert numbers_of(f"{memory_url}/a.mp4") == numbers_of(f"file://{mp4}") == NUMBERS


@pytest.mark.parametrize(
    ("make", "code"),
    [(missing, "not_found"), (an_empty_file, "empty_file"), (a_folder, "is_a_folder")],
)
def test_a_url_fails_as_a_path_does(
    tmp_path: Path, make: Callable[[Path], Path], code: str
) -> None:
    error = failure_of(f"file://{make(tmp_path)}")
    assert (type(error), error.stage, error.code) == (BadVideo, "open", code)


def test_a_url_of_an_unknown_protocol_cannot_be_read() -> None:
    error = failure_of("carrier-pigeon://a.mp4")
    assert (type(error), error.code) == (VideoError, "read_failed")
    assert "carrier-pigeon" in str(error)


# ---- http ----


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    with serving(tmp_path) as server:
        yield server


def test_each_byte_is_requested_about_once_from_a_server_with_ranges(large_mov: Path) -> None:
    with serving(large_mov.parent) as server:
        numbers = numbers_of(server.url(large_mov))
    assert numbers == numbers_of(large_mov)
    assert server.served <= 1.1 * large_mov.stat().st_size


@pytest.mark.parametrize("ranges", [True, False])
def test_videos_are_read_from_every_server(
    mp4: Path, ts: Path, server: FileServer, ranges: bool
) -> None:
    server.ranges = ranges
    for path in (mp4, index_first(mp4), ts):
        assert numbers_of(server.url(path)) == NUMBERS


@pytest.mark.parametrize("ranges", [True, False])
def test_the_command_takes_videos_and_lists_from_every_server(
    mp4: Path, tmp_path: Path, server: FileServer, ranges: bool
) -> None:
    server.ranges = ranges
    shutil.copyfile(mp4, tmp_path / "listed.mp4")
    (tmp_path / "videos.txt").write_text(server.url(tmp_path / "listed.mp4"))
    (tmp_path / "videos.csv").write_text(f"label,path\n1,{server.url(mp4)}\n")
    demo = ["--model-name", "demo", "--address", "none", "--on-extraction", "save_numpy"]
    for place, videos in (
        (
            "there",
            ["--file-with-video-paths", server.url(tmp_path / "videos.txt"), server.url(mp4)],
        ),
        ("table", ["--file-with-video-paths", server.url(tmp_path / "videos.csv")]),
        ("here", [str(mp4)]),
    ):
        ended = call("extract", *videos, *demo, "--output-path", tmp_path / place)
        assert ended.status == 0, ended.stderr
    made = {path.parts[-4:]: path.read_bytes() for path in tmp_path.glob("*/clip/demo/*_clip.npy")}
    assert len(made) == 4
    assert len(set(made.values())) == 1


def test_a_server_without_ranges_is_read_forward(large_mov: Path) -> None:
    with serving(large_mov.parent) as server:
        server.ranges = False
        numbers = numbers_of(server.url(large_mov))
    assert numbers == numbers_of(large_mov)


@pytest.mark.usefixtures("retry_once")
@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("share", [0.01, 0.5])
def test_a_broken_connection_is_not_the_end_of_a_video(
    large_mov: Path, ranges: bool, share: float
) -> None:
    with serving(large_mov.parent) as server:
        server.ranges = ranges
        server.breaks_at = int(large_mov.stat().st_size * share)
        error = failure_of(server.url(large_mov))
    assert (type(error), error.stage, error.code) == (VideoError, "read", "read_failed")


def test_an_empty_response_is_an_empty_file(tmp_path: Path, server: FileServer) -> None:
    assert failure_of(server.url(an_empty_file(tmp_path))).code == "empty_file"


def test_a_missing_file_on_a_server_is_not_found(tmp_path: Path, server: FileServer) -> None:
    error = failure_of(server.url(missing(tmp_path)))
    assert (type(error), error.stage, error.code) == (BadVideo, "open", "not_found")


@pytest.mark.usefixtures("retry_once")
@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_failing_server_is_a_read_error(mp4: Path, server: FileServer, status: int) -> None:
    server.status = status
    error = failure_of(server.url(mp4))
    assert (type(error), error.stage, error.code) == (VideoError, "read", "read_failed")
    assert str(status) in str(error)
    assert "tried 2 times" in str(error)


@pytest.mark.parametrize("status", [401, 403])
def test_a_denied_request_is_not_retried(mp4: Path, server: FileServer, status: int) -> None:
    server.status = status
    error = failure_of(server.url(mp4))
    assert (type(error), error.stage, error.code) == (VideoError, "read", "access_denied")
    assert str(status) in str(error)
    assert "tried" not in str(error)


@pytest.mark.usefixtures("retry_once")
def test_an_unreachable_server_is_a_read_error() -> None:
    pytest.importorskip("aiohttp")
    with socket.socket() as taken:  # bound but not listening, so that nobody else can listen
        taken.bind(("127.0.0.1", 0))
        error = failure_of(f"http://127.0.0.1:{taken.getsockname()[1]}/a.mp4")
    assert (type(error), error.stage, error.code) == (VideoError, "read", "read_failed")


# ---- transient failures of storages ----


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same number of attempts, with shorter pauses."""
    monkeypatch.setattr(retry, "STORAGE", RetryPolicy(10, 60, first_pause_s=0.01))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("way", ["busy", "reset", "cut", "unanswered"])
def test_only_the_failed_range_is_requested_again(large_mov: Path, way: Outcome) -> None:
    def every_fifth(request: Request) -> Outcome:
        return way if request.number % 5 == 0 else "fine"

    with serving(large_mov.parent) as server, run_proxy(server.server_port, every_fifth) as proxy:
        numbers = numbers_of(f"{proxy.url}/{large_mov.name}")
    assert numbers == numbers_of(large_mov)
    assert proxy.count(way) > 2
    lost = proxy.count("cut", "unanswered") * BLOCK_BYTES
    assert server.served <= 1.1 * large_mov.stat().st_size + lost


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("way", ["busy", "reset", "cut", "unanswered"])
def test_opening_is_retried(mp4: Path, server: FileServer, way: Outcome, ranges: bool) -> None:
    def at_first(request: Request) -> Outcome:
        return way if request.number in (1, 2, 3, 5, 8) else "fine"

    server.ranges = ranges
    with run_proxy(server.server_port, at_first) as proxy:
        assert numbers_of(f"{proxy.url}/{mp4.name}") == NUMBERS
    assert proxy.count(way) >= 3


@pytest.mark.usefixtures("quick")
def test_an_interrupted_stream_is_a_transient_failure(
    large_mov: Path,
) -> None:
    with serving(large_mov.parent) as server:
        server.ranges = False
        server.breaks_at = large_mov.stat().st_size // 2
        assert is_transient(failure_of(server.url(index_first(large_mov))))


@pytest.mark.usefixtures("retry_once")
def test_exhausted_retries_are_a_permanent_failure(mp4: Path, server: FileServer) -> None:
    server.status = 503
    assert not is_transient(failure_of(server.url(mp4)))


# ---- file objects ----


@contextmanager
def piped(content: bytes, buffering: int = -1) -> Iterator[BinaryIO]:
    """The read end of a pipe; another thread writes to it."""
    reading, writing = os.pipe()

    def write() -> None:
        with open(writing, "wb") as file:
            file.write(content)

    with ThreadPoolExecutor(1) as thread, open(reading, "rb", buffering=buffering) as file:
        written = thread.submit(write)
        yield file
        written.result()


@pytest.mark.parametrize("buffering", [-1, 0])
@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.ts", "mpeg2video"), ("a.mkv", "mpeg4"), ("a.avi", "mpeg4"), ("a.mp4", "mpeg4")],
)
def test_a_pipe_is_read_forward(tmp_path: Path, name: str, codec: str, buffering: int) -> None:
    path = write_video(tmp_path / name, numbered_frames(COUNT), codec=codec, fps=25)
    with piped(path.read_bytes(), buffering) as pipe:
        assert numbers_of(pipe) == NUMBERS


def padded(content: bytes, padding: int) -> bytes:
    """An mp4 file with this many more bytes after its first box."""
    first = int.from_bytes(content[:4])
    return content[:first] + padding.to_bytes(4) + b"free" + bytes(padding - 8) + content[first:]


@pytest.mark.parametrize("padding", [8, 100_000])
@pytest.mark.parametrize(("first", "spooled"), [(True, False), (False, True)])
def test_a_pipe_is_only_spooled_when_the_index_comes_last(
    mp4: Path, padding: int, first: bool, spooled: bool
) -> None:
    content = padded((index_first(mp4) if first else mp4).read_bytes(), padding)
    with piped(content) as pipe, open_reader(pipe, {}) as file:
        assert file.seekable() == spooled
        assert b"".join(iter(lambda: file.read(1000), b"")) == content


def test_a_pipe_without_data_is_an_empty_file() -> None:
    with piped(b"") as pipe:
        assert failure_of(pipe).code == "empty_file"


def test_a_non_blocking_pipe_is_a_read_error() -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    with open(reading, "rb", buffering=0) as pipe, open(writing, "wb"):
        assert failure_of(pipe).code == "read_failed"


def test_a_member_of_an_archive_is_a_file_object(mp4: Path) -> None:
    packed = mp4.with_name("a.tar")
    with tarfile.open(packed, "w") as archive:
        archive.add(mp4, "a.mp4")
    with tarfile.open(packed) as archive:
        member = archive.extractfile("a.mp4")
        assert member is not None
        assert numbers_of(member) == NUMBERS  # type: ignore[arg-type]


def test_a_file_object_is_read_from_its_beginning_and_left_open(mp4: Path) -> None:
    with mp4.open("rb") as file:
        file.read()
        assert numbers_of(file) == NUMBERS
        assert not file.closed


class FailingFile(io.BytesIO):
    """A file that fails from a given byte on."""

    def __init__(self, content: bytes, at: int, error: BaseException) -> None:
        super().__init__(content)
        self._at = at
        self._error = error

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() >= self._at:
            raise self._error
        return super().read(size)


@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize(
    "reason",
    [ConnectionResetError("gone"), EOFError("cut off"), TimeoutError(), RuntimeError("gone")],
    ids=repr,
)
def test_a_failure_is_raised_once_and_never_the_end_of_a_video(
    ts: Path, capfd: pytest.CaptureFixture[str], share: float, reason: Exception
) -> None:
    content = ts.read_bytes()
    error = failure_of(FailingFile(content, int(len(content) * share), reason))
    assert (type(error), error.stage, error.code) == (VideoError, "read", "read_failed")
    assert (str(reason) or type(reason).__name__) in str(error)
    assert error.__cause__ is reason
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_an_interrupt_while_libav_reads_is_not_lost(ts: Path, share: float) -> None:
    content = ts.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        numbers_of(FailingFile(content, int(len(content) * share), KeyboardInterrupt()))


def test_a_file_that_returns_too_many_bytes_is_a_read_error(ts: Path) -> None:
    class Generous(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(None if size is None else 2 * size)

    assert failure_of(Generous(ts.read_bytes())).code == "read_failed"


def test_seeking_to_an_invalid_position_is_not_a_read_error(mp4: Path) -> None:
    with open_reader(mp4, {}) as file:
        assert file.seek(-1) == -1
        assert file.read(8) == mp4.read_bytes()[:8]


def test_arriving_bytes_are_reported_as_progress(mp4: Path) -> None:
    arrivals: list[None] = []
    with open_reader(mp4, {}, lambda: arrivals.append(None)) as file:
        before = len(arrivals)
        while file.read(1000):
            pass
    assert 0 < before < len(arrivals)
