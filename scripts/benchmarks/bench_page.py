"""Measure the page: a list of moments from a million frames, and thirty pictures of it.

python scripts/benchmarks/bench_search.py speed FOLDER    # writes the features
python scripts/benchmarks/bench_page.py lists FOLDER
python scripts/benchmarks/bench_page.py pictures FOLDER   # writes videos
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import av
import numpy as np
import psutil
import uvicorn

from rayclip.output.array_folder import ArrayFolder, model_folder
from rayclip.output.rows import Extraction
from rayclip.serve.collection import video_id
from rayclip.serve.guard import Guard
from rayclip.serve.listening import listen
from rayclip.serve.server import open_page

ROUNDS = 7
PICTURES = 30
CONNECTIONS = 6  # that a browser opens to a host
WIDTH, HEIGHT, FPS, SECONDS = 1280, 720, 25, 60


@contextmanager
def served(output: Path, videos: Sequence[str]) -> Iterator[str]:
    """A page on loopback; gives its address, with the token."""
    listening = listen("127.0.0.1", 0)
    port = listening.getsockname()[1]
    with open_page(str(output), None, videos, {}) as page:
        app = Guard(page.app(), "token", port)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield f"http://127.0.0.1:{port}/"
        server.should_exit = True
        thread.join()


async def let_in(address: str) -> aiohttp.ClientSession:
    session = aiohttp.ClientSession(
        address,
        cookie_jar=aiohttp.CookieJar(unsafe=True),
        connector=aiohttp.TCPConnector(limit=CONNECTIONS),
    )
    async with session.get("/", params={"token": "token"}) as answer:
        assert answer.status == 200, await answer.text()
    return session


def measure_lists(folder: Path) -> None:
    """Look for frames like one of the collection: this is a search without the text encoder."""
    for dtype in ("float32", "float16"):
        with served(folder / dtype, []) as address:
            walls, cpus = asyncio.run(ask_for_lists(address))
        print(f"{dtype}: list in {spread(walls)} s, {spread(cpus)} s of processor time")


async def ask_for_lists(address: str) -> tuple[list[float], list[float]]:
    """Seconds of each request, and seconds of the processor."""
    walls, cpus = [], []
    async with await let_in(address) as session:
        for number in range(ROUNDS):
            place = f"{video_id(f'video-{100 * number:06}')}@20.0"
            start, cpu = time.perf_counter(), time.process_time()
            async with session.get("/", params={"like": place}) as answer:
                assert (await answer.text()).count("data-start") == PICTURES
            walls.append(time.perf_counter() - start)
            cpus.append(time.process_time() - cpu)
    return walls, cpus


def measure_pictures(folder: Path) -> None:
    """Ask for one picture of each of thirty videos, which are in no cache."""
    videos = [folder / "videos" / f"video-{number:02}.mp4" for number in range(PICTURES)]
    write_videos(videos)
    output = folder / "pictures"
    write_features(output, videos)
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    rng = np.random.default_rng(0)

    async def ask(address: str) -> tuple[float, float, float]:
        processes = psutil.Process().children()
        async with await let_in(address) as session:
            await asyncio.sleep(3)  # the processes have imported libav
            before, start = cpu_of(processes), time.perf_counter()

            async def one(video: Path) -> float:
                seconds = {"t": str(0.2 * rng.integers(0, 5 * SECONDS - 10))}
                path = f"/thumbnails/{video_id(video.stem)}"
                async with session.get(path, params=seconds) as answer:
                    assert answer.status == 200, await answer.text()
                    await answer.read()
                return time.perf_counter() - start

            took = await asyncio.gather(*map(one, videos))
            return min(took), max(took), cpu_of(processes) - before

    rounds = []
    for _ in range(ROUNDS):
        shutil.rmtree(folder / "cache", ignore_errors=True)
        with served(output, [str(folder / "videos")]) as address:
            rounds.append(asyncio.run(ask(address)))
    first, every, cpu = zip(*rounds, strict=True)
    print(f"first picture in {spread(first)} s, {PICTURES} in {spread(every)} s, ", end="")
    print(f"{spread(cpu)} s of processor time for all")


def cpu_of(processes: Sequence[psutil.Process]) -> float:
    times = [process.cpu_times() for process in processes]
    return sum(each.user + each.system for each in times)


def spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def write_videos(files: Sequence[Path]) -> None:
    """Write copies of one video of moving noise, with the groups of pictures of x264's defaults."""
    files[0].parent.mkdir(parents=True, exist_ok=True)
    if not files[0].exists():
        rng = np.random.default_rng(0)
        coarse = rng.integers(0, 255, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
        picture = coarse.repeat(8, axis=0).repeat(8, axis=1)
        with av.open(str(files[0]), "w") as output:
            stream = output.add_stream("libx264", FPS, options={"preset": "veryfast"})
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            for number in range(FPS * SECONDS):
                moved = np.roll(picture, (number, 2 * number), axis=(0, 1))
                frame = av.VideoFrame.from_ndarray(moved, format="rgb24")
                frame.pts = number
                output.mux(stream.encode(frame))
            output.mux(stream.encode())
    for file in files[1:]:
        if not file.exists():
            shutil.copy(files[0], file)


def write_features(output: Path, videos: Sequence[Path]) -> None:
    folder = ArrayFolder(model_folder(str(output), "demo"), 64, {})
    folder.prepare()
    run = {"model_name": "demo", "dim": 64, "feature_dtype": "float32", "extraction_fps": "5"}
    folder.write_run(run)
    times_ms = np.arange(5 * SECONDS) * 200.0
    for video in videos:
        clip = np.ones((len(times_ms), 64), np.float32)
        folder.commit(video.stem, Extraction(clip, times_ms, float(FPS)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("measure", choices=["lists", "pictures"])
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    measure = measure_lists if arguments.measure == "lists" else measure_pictures
    measure(arguments.folder)


if __name__ == "__main__":
    main()
