"""The throughput of a cluster if only rayclip and Ray themselves cost time, and how it scales.

The nodes are raylets on this machine that declare a GPU each. Frames are generated in advance, and
encoders sleep for each frame. Each run has its own driver process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

import psutil

from rayclip.errors import RayclipError

sys.path.append(str(Path(__file__).parents[1]))  # the modules that all scripts share

from bench_processes import with_stand_ins
from simulated_nodes import SimulatedNodes
from tables import number, table

BEGIN, END = 0.3, 0.8  # the measured share of the videos, without startup and shutdown
TASKS = "tasks"
KINDS = {
    "ray::MapBatches": TASKS,
    "ray::StreamingRepartition": TASKS,
    "ray::IDLE": TASKS,  # the title of a worker between two tasks
    "ray::Encoder": "encoders",
    "ray::ControlActor": "control actor",
    "raylet": "raylets",
    "gcs_server": "Ray's head (GCS)",
}
STORE = 2**30  # bytes of a node's object store: small for a GPU node, but nothing spills
PERIOD_S = 0.2  # between two counts of finished videos
OTHERS = "Ray's other processes"
DRIVER = "driver"


@dataclass(frozen=True)
class ClusterJob:
    """The run to measure.

    Attributes:
        videos: videos per node.
        frames: frames per video.
        microseconds: how long an encoder sleeps per frame.
        cpus: CPUs that each node declares.
        batch_size: frames per forward pass.
        clips: a folder of real clips, used in turn; None for synthetic frames.
    """

    videos: int
    frames: int
    microseconds: float
    cpus: int
    batch_size: int
    clips: str | None = None


@dataclass(frozen=True)
class Cost:
    """The cost of the middle part of a run.

    Attributes:
        nodes: number of nodes.
        videos: videos finished in this part.
        wall_s: wall time of this part.
        cpu_s: CPU seconds of this part, by kind of process.
        driver_mb: peak private memory of the driver in the whole run.
        whole_s: wall time of the whole run.
    """

    nodes: int
    videos: int
    wall_s: float
    cpu_s: dict[str, float]
    driver_mb: float
    whole_s: float

    @property
    def rate(self) -> float:
        """Videos per second."""
        return self.videos / self.wall_s


def measured(job: ClusterJob, nodes: Sequence[int], rounds: int) -> Iterator[Cost]:
    """Yield a run on a new cluster of each size, in every round."""
    for _ in range(rounds):
        for count in nodes:
            yield _run(job, count)


def _run(job: ClusterJob, nodes: int) -> Cost:
    """A run in its own process, since a process can use only one of these clusters."""
    ended = subprocess.run(
        [sys.executable, __file__, "cluster", json.dumps(asdict(job)), str(nodes)],
        env=with_stand_ins(job.frames if job.clips is None else None, job.microseconds),
        stdout=subprocess.PIPE,
        text=True,
    )
    if ended.returncode:
        raise RayclipError(f"A run on {nodes} nodes ended with {ended.returncode}.")
    return Cost(**json.loads(ended.stdout.splitlines()[-1]))


def report(job: ClusterJob, costs: Sequence[Cost]) -> str:
    """Two tables: throughput, and CPU time by kind of process."""
    sizes = sorted({run.nodes for run in costs})
    by_size = {size: [run for run in costs if run.nodes == size] for size in sizes}
    rates = {size: median(run.rate for run in runs) for size, runs in by_size.items()}
    smallest = sizes[0]
    rows, cpu_rows = [], []
    kinds = [DRIVER, *dict.fromkeys(KINDS.values()), OTHERS]
    for size, runs in by_size.items():
        efficiency = rates[size] / rates[smallest] * smallest / size
        rows.append(
            [
                str(size),
                str(runs[0].videos),
                number(rates[size], 1),
                number(efficiency),
                number(median(run.driver_mb for run in runs), 0),
                number(median(run.whole_s for run in runs), 1),
            ]
        )
        each = [median(1000 * run.cpu_s.get(k, 0) / run.videos for run in runs) for k in kinds]
        cpu_rows.append([str(size), *(number(ms) for ms in each), number(sum(each))])
    what = f"clips of {job.clips}" if job.clips else f"{job.frames} synthetic frames per video"
    header = ["nodes", "videos", "videos/s", "efficiency", "driver MB", "total s"]
    return "\n\n".join(
        [
            f"{what}; an encoder sleeps {job.microseconds:g} us per frame; simulated nodes of "
            f"{job.cpus} CPUs and 1 GPU; {len(costs) // len(sizes)} round(s); between "
            f"{BEGIN:.0%} and {END:.0%} of a run",
            table(header, rows),
            "CPU ms per video:",
            table(["nodes", *kinds, "total"], cpu_rows),
        ]
    )


# ---- the process that starts the cluster ----


def _run_on_cluster(job: ClusterJob, nodes: int) -> Cost:
    cluster = SimulatedNodes(nodes, job.cpus, gpus=1, store=STORE)
    try:
        with TemporaryDirectory(dir="/dev/shm" if job.clips is None else None) as folder:
            return _measure(job, nodes, cluster, Path(folder))
    finally:
        cluster.close()


def _measure(job: ClusterJob, nodes: int, cluster: SimulatedNodes, folder: Path) -> Cost:
    listed = folder / "videos.txt"
    count = job.videos * nodes
    with listed.open("w") as file:
        file.writelines(f"{name}\n" for name in _names(job, count, folder))
    started = time.monotonic()
    words = [listed, cluster.address, job.batch_size, folder / "output"]
    driver = subprocess.Popen(
        [sys.executable, __file__, "driver", *map(str, words)], stdout=subprocess.PIPE, text=True
    )
    features = folder / "output" / "clip" / "demo"
    begin, end = (_wait_for(driver, features, count * share) for share in (BEGIN, END))
    stdout, _ = driver.communicate()
    if driver.returncode:
        raise RayclipError("The driver failed.")
    return Cost(
        nodes,
        end.finished - begin.finished,
        end.at - begin.at,
        {kind: end.cpu_s[kind] - begin.cpu_s[kind] for kind in end.cpu_s},
        json.loads(stdout.splitlines()[-1])["peak_mb"],
        time.monotonic() - started,
    )


def _names(job: ClusterJob, count: int, folder: Path) -> Iterator[str]:
    clips = sorted(Path(job.clips).iterdir()) if job.clips else []
    (folder / "videos").mkdir()
    for place in range(count):
        if not clips:
            yield f"/nowhere/videos/{place:08}.mp4"
            continue
        clip = clips[place % len(clips)]
        link = folder / "videos" / f"{place:08}{clip.suffix}"
        link.symlink_to(clip.resolve())
        yield str(link)


class _Moment(NamedTuple):
    """The finished videos and the CPU seconds of all processes at one time."""

    at: float
    finished: int
    cpu_s: Counter[str]


def _wait_for(driver: subprocess.Popen[str], features: Path, videos: float) -> _Moment:
    """Wait until this many videos are finished.

    Files are counted, since results arrive a task at a time.
    """
    while (finished := _finished(features)) < videos:
        if driver.poll() is not None:
            raise RayclipError("The driver ended early.")
        time.sleep(PERIOD_S)
    used: Counter[str] = Counter(dict.fromkeys([*KINDS.values(), OTHERS], 0.0))
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            words, times = process.cmdline(), process.cpu_times()
            name = Path(words[0]).name if words else ""
            kind = next((kind for start, kind in KINDS.items() if name.startswith(start)), OTHERS)
            used[DRIVER if process.pid == driver.pid else kind] += times.user + times.system
    return _Moment(time.monotonic(), finished, used)


def _finished(features: Path) -> int:
    with suppress(FileNotFoundError), os.scandir(features) as entries:
        return sum(entry.name.endswith("_clip.npy") for entry in entries)
    return 0


# ---- the driver process ----


def _drive(listed: str, address: str, batch_size: int, output: str) -> None:
    from bench_lists import private_mb

    from rayclip.run import run_extraction
    from rayclip.settings import Settings

    results, peak_mb = 0, 0.0

    def on_result(*_: object) -> None:
        nonlocal results, peak_mb
        results += 1
        if results % 100 == 0:
            peak_mb = max(peak_mb, private_mb())

    settings = Settings(
        file_with_video_paths=listed,
        model_name="demo",
        batch_size=batch_size,
        address=address,
        on_extraction="save_numpy",
        output_path=output,
    )
    summary = run_extraction(settings, on_result)
    print(json.dumps({"peak_mb": peak_mb}), flush=True)
    if summary.failed:
        raise SystemExit(f"{len(summary.failed)} videos failed: {summary.failed[0]}")


if __name__ == "__main__":
    if sys.argv[1] == "driver":
        listed, address, batch_size, output = sys.argv[2:]
        _drive(listed, address, int(batch_size), output)
    else:
        cost = _run_on_cluster(ClusterJob(**json.loads(sys.argv[2])), int(sys.argv[3]))
        print(json.dumps(asdict(cost)))
