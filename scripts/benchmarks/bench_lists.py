"""The cost of a long list to the driver, before and during the run.

The measurement has its own process, so that its peak memory is correct.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from bench_processes import with_stand_ins

from rayclip.errors import RayclipError
from rayclip.inputs.selection import Inputs
from rayclip.inputs.tables import DELIMITERS
from rayclip.inputs.videos import iter_rows, iter_videos
from rayclip.io.listing import StoredFile
from rayclip.model.models import describe
from rayclip.output.array_folder import ArrayFolder, Extraction, model_folder
from rayclip.output.done import FEATURES, FPS, TIMESTAMPS
from rayclip.output.formats import file_format
from rayclip.output.run_record import run_record
from rayclip.output.safe_names import output_name
from rayclip.plan import Target, plan_files
from rayclip.report.results import VideoResult
from rayclip.run import run_extraction
from rayclip.settings import Settings

NPY = file_format("save_numpy", "float32")
WARM_UP = 200  # results before the cost per video is measured


@dataclass(frozen=True)
class Lists:
    """What to measure.

    Attributes:
        videos: length of the list, with paths of about 60 bytes.
        done: number of videos that are done.
        real: whether the output folder exists, with three small files per done video. Otherwise
            its listing is synthetic: processing it takes time, but requests do not.
        suffix: format of the list.
        extra_columns: whether the list has three more columns, which are carried along.
        results: videos of a real run on Ray, of one synthetic frame each; 0 for no run.
    """

    videos: int
    done: int
    real: bool = False
    suffix: str = ".txt"
    extra_columns: bool = False
    results: int = 0


@dataclass(frozen=True)
class Phase:
    """A part of a run: wall seconds, CPU seconds, and peak private memory until its end in MB."""

    name: str
    wall_s: float
    cpu_s: float
    peak_mb: float


def measured(job: Lists) -> list[Phase]:
    """Measure every phase in a new process.

    Raises:
        RayclipError: that process failed; it printed the reason.
    """
    ended = subprocess.run(
        [sys.executable, __file__, json.dumps(asdict(job))],
        env=with_stand_ins(frames=1, microseconds=1),
        stdout=subprocess.PIPE,
        text=True,
    )
    if ended.returncode:
        raise RayclipError(f"The measurement ended with {ended.returncode}.")
    return [Phase(**phase) for phase in json.loads(ended.stdout.splitlines()[-1])]


def report(job: Lists, phases: list[Phase]) -> str:
    """A table."""
    where = "in a real folder" if job.real else "in a synthetic listing"
    lines = [
        f"{job.videos:,} videos in a {job.suffix} list, {job.done:,} of them done, {where}",
        "",
        "| phase | s | CPU s | peak MB |",
        "| --- | ---: | ---: | ---: |",
    ]
    for phase in phases:
        lines.append(
            f"| {phase.name} | {phase.wall_s:.1f} | {phase.cpu_s:.2f} | {phase.peak_mb:.0f} |"
        )
    return "\n".join(lines)


def video_path(number: int) -> str:
    """A path of 60 bytes."""
    return f"s3://bucket/kinetics700/train/class{number % 700:04}/{number:012}.mp4"


class _Stopwatch:
    """Records phases as they end."""

    def __init__(self) -> None:
        self.phases: list[Phase] = []
        self._peak = 0.0
        threading.Thread(target=self._watch, daemon=True).start()
        self._restart()

    def record(self, name: str, parts: float = 1.0) -> None:
        wall = (time.perf_counter() - self._started) / parts
        cpu = (time.process_time() - self._cpu) / parts
        self.phases.append(Phase(name, wall, cpu, max(self._peak, private_mb())))
        self._restart()

    def _restart(self) -> None:
        self._started, self._cpu = time.perf_counter(), time.process_time()

    def _watch(self) -> None:
        while True:
            self._peak = max(self._peak, private_mb())
            time.sleep(0.05)


def private_mb() -> float:
    """The private memory of this process, without Ray's object store."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("this kernel does not report RssAnon")


def _listing(done: int) -> Iterator[StoredFile]:
    """The files of finished videos of one frame each, as a storage might list them."""
    sizes = {
        FEATURES: NPY.overhead[2] + 4 * 64,
        FPS: NPY.overhead[0] + 8,
        TIMESTAMPS: NPY.overhead[1] + 8,
    }
    for number in range(done):
        stem = output_name(video_path(number), "stem")
        for kind, size in sizes.items():
            yield StoredFile(f"{stem}{kind}.npy", size, 0.0)


def _write_list(path: Path, videos: int, extra_columns: bool) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyarrow import csv

    if path.suffix == ".txt":
        with path.open("w") as file:
            file.writelines(f"{video_path(number)}\n" for number in range(videos))
        return
    writer: Any = None
    with path.open("wb") as file:
        for start in range(0, videos, 2**20):
            numbers = range(start, min(videos, start + 2**20))
            columns: dict[str, list[Any]] = {"path": [video_path(number) for number in numbers]}
            if extra_columns:
                columns["label"] = [number % 700 for number in numbers]
                columns["split"] = ["train" if number % 10 else "test" for number in numbers]
                columns["caption"] = [f"a video of class {n % 700}, no. {n}" for n in numbers]
            table = pa.table(columns)
            if path.suffix == ".jsonl":
                file.writelines(json.dumps(row).encode() + b"\n" for row in table.to_pylist())
                continue
            if writer is None and path.suffix == ".parquet":
                writer = pq.ParquetWriter(file, table.schema)
            elif writer is None:
                options = csv.WriteOptions(delimiter=DELIMITERS[path.suffix])
                writer = csv.CSVWriter(file, table.schema, write_options=options)
            writer.write_table(table)
        if writer is not None:
            writer.close()


def _measure(job: Lists, folder: Path) -> list[Phase]:
    """Measure all phases; this runs in the new process."""
    listed = folder / f"videos{job.suffix}"
    _write_list(listed, job.videos, job.extra_columns)
    settings = Settings(
        file_with_video_paths=str(listed),
        model_name="demo",
        device="cpu",
        on_extraction="save_numpy",
        output_path=str(folder / "out"),
    )
    spec = describe("demo")
    output = ArrayFolder(model_folder(settings.output_path, "demo"), spec.dim, {}, NPY)
    output.prepare()
    record = run_record(settings, spec)
    output.write_run(record)
    if job.real:
        one = Extraction(np.zeros((1, spec.dim), np.float32), np.zeros(1), 25.0)
        root = Path(output.url)
        output.commit("one", one)
        contents = {
            kind: (root / f"one{kind}.npy").read_bytes() for kind in (FEATURES, FPS, TIMESTAMPS)
        }
        for number in range(job.done):
            for kind, content in contents.items():
                (root / f"{output_name(video_path(number), 'stem')}{kind}.npy").write_bytes(content)
    else:
        ArrayFolder.files = lambda self: _listing(job.done)  # type: ignore[method-assign]
    name = partial(output_name, naming="stem")

    watch = _Stopwatch()
    watch.record("(start)")
    for _ in iter_videos(settings):
        pass
    watch.record("one pass over the list")
    for _ in output.files():
        pass
    watch.record("the listing")
    inputs = Inputs(partial(iter_videos, settings), partial(iter_rows, settings, job.extra_columns))
    plan = plan_files(inputs, name, [Target(output, record)], overwrite=False)
    watch.record("the plan: one pass and the listing")
    for _ in plan.videos.blocks():
        pass
    watch.record("the second pass, into blocks")
    if job.results:
        _run(settings, job.results, watch)
    return watch.phases


class _Stop(Exception):
    pass


def _run(settings: Settings, results: int, watch: _Stopwatch) -> None:
    """A real run on Ray, stopped after some results."""
    count = 0

    def on_result(result: VideoResult, zero_shot: Any) -> None:
        nonlocal count
        count += 1
        if count == 1:
            watch.record("rayclip extract, to the first result")
        if count == WARM_UP:
            watch.record(f"to result {WARM_UP}")
        if count == WARM_UP + results:
            watch.record("each further 1,000 videos", results / 1000)
            raise _Stop

    with suppress(_Stop):
        run_extraction(settings, on_result)


if __name__ == "__main__":
    with TemporaryDirectory() as temporary:
        phases = _measure(Lists(**json.loads(sys.argv[1])), Path(temporary))
    print(json.dumps([asdict(phase) for phase in phases]))
