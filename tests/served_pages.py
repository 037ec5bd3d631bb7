"""The page of an output folder, as the server builds it, and its server on a thread."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
import uvicorn
from drawn_collection import Scene, write_collection
from run_cli import call
from starlette.testclient import TestClient

from rayclip.serve.collection import video_id
from rayclip.serve.guard import Guard
from rayclip.serve.listening import listen
from rayclip.serve.server import open_page

TOKEN = "the-token"
FPS = 5


@dataclass(frozen=True)
class Drawn:
    """Videos of coloured shapes, and their features.

    Attributes:
        videos: the folder of the videos.
        output: the output folder of the run.
        scenes: what the videos show.
    """

    videos: Path
    output: Path
    scenes: Sequence[Scene]

    @property
    def features(self) -> Path:
        """The folder of the model."""
        return self.output / "clip" / "demo"

    def copy(self, folder: Path) -> Drawn:
        """A copy of all files that a test may change."""
        shutil.copytree(self.videos, folder / "videos", symlinks=True)
        shutil.copytree(self.output, folder / "features")
        return Drawn(folder / "videos", folder / "features", self.scenes)

    def add_features(self, name: str, of: str = "drawn-00") -> str:
        """Save the features of another video under a name; returns its ID."""
        for file in self.features.glob(f"{of}_*.npy"):
            shutil.copy(file, self.features / file.name.replace(of, name, 1))
        return video_id(name)


def draw(folder: Path) -> Drawn:
    """Make three videos, one of which no browser plays, and extract their features."""
    videos, output = folder / "videos", folder / "features"
    videos.mkdir(parents=True)
    scenes = write_collection(videos, videos=3, scenes=4, seed=3)
    write_avi(videos / "drawn-02.mp4", videos / "drawn-02.avi")
    (videos / "drawn-02.mp4").unlink()
    extract(videos, output, "save_numpy")
    return Drawn(videos, output, scenes)


def extract(videos: Path, output: Path, on_extraction: str) -> None:
    settings = ["--model-name", "demo", "--extraction-fps", str(FPS), "--address", "none"]
    saving = ["--on-extraction", on_extraction, "--output-path", output]
    ended = call("extract", videos, *settings, *saving)
    assert ended.status == 0, ended.stderr


def write_avi(source: Path, destination: Path) -> None:
    with av.open(str(source)) as video, av.open(str(destination), "w") as output:
        shown = video.streams.video[0]
        stream = output.add_stream("mpeg4", shown.average_rate, width=shown.width)
        stream.height, stream.pix_fmt, stream.bit_rate = shown.height, "yuv420p", 2_000_000
        for number, frame in enumerate(video.decode(video=0)):
            copy = av.VideoFrame.from_ndarray(frame.to_ndarray(format="rgb24"), format="rgb24")
            copy.pts, copy.time_base = number, 1 / shown.average_rate
            output.mux(stream.encode(copy))
        output.mux(stream.encode())


@contextmanager
def guarded(output: Path, roots: Sequence[Path], port: int) -> Iterator[Guard]:
    """The application, with its processes, which end after it."""
    with open_page(str(output), None, [*map(str, roots)], {}) as page:
        yield Guard(page.app(), TOKEN, port)


@contextmanager
def client_of(output: Path, roots: Sequence[Path]) -> Iterator[TestClient]:
    """A client that was let in."""
    with guarded(output, roots, 80) as app:
        origin = {"Origin": "http://127.0.0.1"}
        with TestClient(app, "http://127.0.0.1", headers=origin) as client:
            assert client.get("/", params={"token": TOKEN}).status_code == 200
            yield client


@contextmanager
def served(output: Path, roots: Sequence[Path]) -> Iterator[str]:
    """A server on loopback; gives its address, with the token."""
    listening = listen("127.0.0.1", 0)
    port = listening.getsockname()[1]
    with guarded(output, roots, port) as app:
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{port}/?token={TOKEN}"
        finally:
            server.should_exit = True
            thread.join()
            listening.close()
