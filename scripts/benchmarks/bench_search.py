"""Measure searches: exact ones beside a bare loop, an index, and how often answers are right.

python scripts/benchmarks/bench_search.py speed FOLDER --videos 1000 --frames 1000
python scripts/benchmarks/bench_search.py index FOLDER
python scripts/benchmarks/bench_search.py drawn FOLDER --videos 30
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from drawn_collection import is_right, picture_of, write_collection
from numpy.typing import NDArray
from shapes import LABELS

import rayclip
from rayclip.commands.search import SearchRequest, json_moments, search
from rayclip.output.open_run import RecordedRun, one_model_folder, open_run
from rayclip.search.index import index_location, open_index, update_index
from rayclip.search.moments import Query, moments

DIM = 512
LATENT = 64
ROUNDS = 5
TOP = 10
TOLERANCE = 0.001
FORMATS = ("numpy", "pickle", "parquet")


class Features:
    """Features that lie as CLIP's do: a common mean, few directions, scenes that move little.

    Texts lie apart from pictures: the cosine of a text and its best picture is about 0.3.
    """

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)
        self._spread = 1 / np.sqrt(1 + np.arange(LATENT))
        self._directions = self.rng.standard_normal((LATENT, DIM)) / np.sqrt(DIM)
        means = self.rng.standard_normal((2, DIM)) / np.sqrt(DIM)
        self._pictures, self._texts = 2.0 * means[0], 3.5 * means[1]

    def video(self, frames: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """The features of a video with scenes of about 40 frames, and their latent places."""
        scenes = self.rng.standard_normal((frames // 40 + 1, LATENT)) * self._spread
        steps = 0.05 * self.rng.standard_normal((frames, LATENT)) * self._spread
        latent = np.repeat(scenes, 40, axis=0)[:frames] + np.cumsum(steps, axis=0)
        noise = 0.2 * self.rng.standard_normal((frames, DIM)) / np.sqrt(DIM)
        clip = 10 * (self._pictures + latent @ self._directions + noise)
        return clip.astype(np.float32), latent

    def text(self, latent: NDArray[np.float64]) -> NDArray[np.float32]:
        """The normalised feature of a text about a picture."""
        noise = 0.2 * self.rng.standard_normal(DIM) / np.sqrt(DIM)
        vector = self._texts + 0.5 * latent @ self._directions + noise
        return (vector / np.linalg.norm(vector)).astype(np.float32)


def write_features(folder: Path, videos: int, frames: int) -> None:
    """Write a collection in float32 and in float16, and texts; what is there is kept."""
    if (folder / "texts.npy").exists():
        return
    features, texts = Features(), []
    for dtype in ("float32", "float16"):
        (folder / dtype / "clip/ViT-B_32").mkdir(parents=True)
        run = {"model_name": "ViT-B/32", "dim": DIM, "feature_dtype": dtype}
        (folder / dtype / "clip/ViT-B_32/run.json").write_text(json.dumps(run))
    for number in range(videos):
        clip, latent = features.video(frames)
        texts.append(features.text(latent[frames // 2]))
        for dtype in ("float32", "float16"):
            name = folder / dtype / f"clip/ViT-B_32/video-{number:06}"
            np.save(f"{name}_fps.npy", np.array(25.0))
            np.save(f"{name}_timestamps_ms.npy", np.arange(frames) * 200.0)
            np.save(f"{name}_clip.npy", clip.astype(dtype))
    np.save(folder / "texts.npy", np.stack(texts))


def open_features(folder: Path, dtype: str) -> RecordedRun:
    return open_run(one_model_folder(str(folder / dtype), None, {}), {})


def bare_loop(folder: Path, dtype: str, query: NDArray[np.float32]) -> float:
    """The highest product, as simply as it can be had."""
    best = -np.inf
    for path in sorted((folder / dtype / "clip/ViT-B_32").glob("*_clip.npy")):
        clip = np.load(path, mmap_mode="r")
        best = max(best, float((clip.astype(np.float32, copy=False) @ query).max()))
    return best


class Took(NamedTuple):
    """Seconds of a call, and those of the processor, which other programs hardly change."""

    wall_s: float
    cpu_s: float


def timed(call: Callable[[], object]) -> Took:
    start, cpu_start = time.perf_counter(), time.process_time()
    call()
    return Took(time.perf_counter() - start, time.process_time() - cpu_start)


def measure_speed(folder: Path, videos: int, frames: int) -> None:
    write_features(folder, videos, frames)
    query = np.load(folder / "texts.npy")[0]
    for dtype in ("float32", "float16"):
        recorded = open_features(folder, dtype)

        def ours(recorded: RecordedRun = recorded) -> object:
            return moments(recorded.folder, [Query("text", query)], TOP)

        pairs = [
            (timed(lambda dtype=dtype: bare_loop(folder, dtype, query)), timed(ours))
            for _ in range(ROUNDS + 1)
        ][1:]  # the first round fills the page cache
        for clock in Took._fields:
            took = [(getattr(bare, clock), getattr(mine, clock)) for bare, mine in pairs]
            ratios = [mine / bare for bare, mine in took]
            print(
                f"{dtype}, {clock}: bare loop {statistics.median(bare for bare, _ in took):.3f}, "
                f"search {statistics.median(mine for _, mine in took):.3f}, ratio "
                f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            )
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


def measure_index(folder: Path) -> None:
    folder_, run = open_features(folder, "float32")
    took = timed(lambda: update_index(folder_, run, lambda frames: None, print)).wall_s
    location = index_location(folder_)
    size = sum(path.stat().st_size for path in location.rglob("*") if path.is_file())
    opening = timed(lambda: open_index(location, run)).wall_s
    index = open_index(location, run)
    assert index is not None
    print(f"{index.frames} frames: built in {took:.0f} s, {size / 2**20:.0f} MB, ", end="")
    print(f"opened in {opening * 1000:.0f} ms")
    texts = np.load(folder / "texts.npy")[:200]
    clips = sorted((folder / "float32/clip/ViT-B_32").glob("*_clip.npy"))
    cosines = np.concatenate([_cosines(np.load(path), texts) for path in clips])
    tenth = np.sort(cosines, axis=0)[-TOP]
    took_ms, hits = [], []
    for number, text in enumerate(texts):
        start = time.perf_counter()
        found = index.nearest_files(text, TOP * 64)[1][:TOP]
        took_ms.append(1000 * (time.perf_counter() - start))
        hits.append(float(np.mean(found >= tenth[number] - TOLERANCE)))
    print(
        f"recall@{TOP} {np.mean(hits):.4f} (worst of {len(texts)}: {min(hits):.1f}), look-up "
        f"{statistics.median(took_ms):.1f} ms (at most {max(took_ms):.1f})"
    )


def _cosines(clip: NDArray[np.float32], texts: NDArray[np.float32]) -> NDArray[np.float32]:
    cosines: NDArray[np.float32] = clip @ texts.T / np.linalg.norm(clip, axis=1, keepdims=True)
    return cosines


def measure_drawn(folder: Path, videos: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    scenes = write_collection(folder / "videos", videos)
    for seed, label in enumerate(LABELS):
        picture_of(label, seed).save(folder / f"{label}.png")
    pictures = [str(folder / f"{label}.png") for label in LABELS]
    for name in FORMATS:
        rayclip.extract(
            folder / "videos",
            model_name="demo",
            extraction_fps=5,
            on_extraction=f"save_{name}",
            output_path=folder / name,
            address="none",
        )
        for kind, texts, files in (("texts", LABELS, []), ("pictures", [], pictures)):
            request = SearchRequest(str(folder / name), texts, files, 1, None, None, None)
            answers = json_moments(search(request, {}))
            right = sum(is_right(a, Path(a["query"]).stem, scenes, 0.2) for a in answers)
            print(f"{name}, {kind}: {right} of {len(LABELS)} right")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["speed", "index", "drawn"])
    parser.add_argument("folder", type=Path, help="for the collection")
    parser.add_argument("--videos", type=int, default=1000)
    parser.add_argument("--frames", type=int, default=1000, help="of each video")
    arguments = parser.parse_args()
    if arguments.what == "speed":
        measure_speed(arguments.folder, arguments.videos, arguments.frames)
    elif arguments.what == "index":
        measure_index(arguments.folder)
    else:
        (arguments.folder / "videos").mkdir(parents=True, exist_ok=True)
        measure_drawn(arguments.folder, arguments.videos)


if __name__ == "__main__":
    main()
