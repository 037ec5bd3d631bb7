"""How many videos a second a cluster does where only the machinery costs anything, and how many
more it does with more nodes.

The nodes are raylets of this machine that say they have a GPU each. Frames are ready, and encoders
sleep for every frame. Each run has a process of its own as its driver, which tells what it took.
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
from pretended_nodes import PretendedNodes
from tables import number, table

BEGIN, END = 0.3, 0.8  # of the videos: what is measured lies between, without start and end
TASKS = "tasks"
KINDS = {
    "ray::MapBatches": TASKS,
    "ray::StreamingRepartition": TASKS,
    "ray::IDLE": TASKS,  # what it is called between two of them
    "ray::Encoder": "encoders",
    "ray::ControlActor": "control actor",
    "raylet": "raylets",
    "gcs_server": "Ray's head (GCS)",
}
STORE = 2**30  # bytes of a node's objects: little for a node with a GPU, and enough not to spill
PERIOD_S = 0.2  # between two looks at what is finished
OTHERS = "Ray's other processes"
DRIVER = "driver"


@dataclass(frozen=True)
class ClusterJob:
    """What is to be measured.

    Attributes:
        videos: of a run on one node; as many times more on more.
        frames: of each.
        microseconds: that an encoder sleeps for a frame.
        cpus: that each node says it has.
        batch_size: frames per forward pass.
        clips: a folder of real clips, taken in turn; None takes ready frames.
    """

    videos: int
    frames: int
    microseconds: float
    cpus: int
    batch_size: int
    clips: str | None = None


@dataclass(frozen=True)
class Took:
    """What the middle of a run took.

    Attributes:
        nodes: of the cluster.
        videos: between the two moments.
        wall_s: from the one to the other.
        cpu_s: CPU seconds of all processes together, by what they do.
        driver_mb: the most private memory of the driver, from beginning to end.
        whole_s: from the beginning of the run to its end.
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


def measured(job: ClusterJob, nodes: Sequence[int], rounds: int) -> Iterator[Took]:
    """A run on a cluster of each size, for every round; clusters are started for each."""
    for _ in range(rounds):
        for count in nodes:
            yield _one(job, count)


def _one(job: ClusterJob, nodes: int) -> Took:
    """A run in a process of its own, with a cluster of its own: Ray connects only once to one."""
    ended = subprocess.run(
        [sys.executable, __file__, "cluster", json.dumps(asdict(job)), str(nodes)],
        env=with_stand_ins(job.frames if job.clips is None else None, job.microseconds),
        stdout=subprocess.PIPE,
        text=True,
    )
    if ended.returncode:
        raise RayclipError(f"A run on {nodes} nodes ended with {ended.returncode}.")
    return Took(**json.loads(ended.stdout.splitlines()[-1]))


def report(job: ClusterJob, took: Sequence[Took]) -> str:
    """Two tables: how fast, and what the CPU time went to."""
    sizes = sorted({one.nodes for one in took})
    by_size = {size: [one for one in took if one.nodes == size] for size in sizes}
    rates = {size: median(one.rate for one in runs) for size, runs in by_size.items()}
    smallest = sizes[0]
    rows, costs = [], []
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
        costs.append([str(size), *(number(ms) for ms in each), number(sum(each))])
    what = f"clips of {job.clips}" if job.clips else f"ready frames, {job.frames} a video"
    header = ["nodes", "videos", "videos/s", "efficiency", "driver MB", "all, s"]
    return "\n\n".join(
        [
            f"{what}; an encoder sleeps {job.microseconds:g} us a frame; nodes of {job.cpus} CPUs "
            f"and 1 GPU, pretended; {len(took) // len(sizes)} round(s); between {BEGIN:.0%} and "
            f"{END:.0%} of a run",
            table(header, rows),
            "CPU ms a video:",
            table(["nodes", *kinds, "together"], costs),
        ]
    )


# ---- the process with the cluster ----


def _with_a_cluster(job: ClusterJob, nodes: int) -> Took:
    cluster = PretendedNodes(nodes, job.cpus, gpus=1, store=STORE)
    try:
        with TemporaryDirectory(dir="/dev/shm" if job.clips is None else None) as folder:
            return _watched(job, nodes, cluster, Path(folder))
    finally:
        cluster.close()


def _watched(job: ClusterJob, nodes: int, cluster: PretendedNodes, folder: Path) -> Took:
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
    begun, ended = (_moment(driver, features, count * share) for share in (BEGIN, END))
    stdout, _ = driver.communicate()
    if driver.returncode:
        raise RayclipError("The driver failed.")
    return Took(
        nodes,
        ended.finished - begun.finished,
        ended.at - begun.at,
        {kind: ended.cpu_s[kind] - begun.cpu_s[kind] for kind in ended.cpu_s},
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
    """When so many videos were finished, and what all processes had used by then."""

    at: float
    finished: int
    cpu_s: Counter[str]


def _moment(driver: subprocess.Popen[str], features: Path, videos: float) -> _Moment:
    """Wait until so many videos are finished: the files tell, results come in groups."""
    while (finished := _finished(features)) < videos:
        if driver.poll() is not None:
            raise RayclipError("The driver ended too early.")
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


# ---- the process with the driver ----


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
    summary = run_extraction(settings, on_result, show=False)
    print(json.dumps({"peak_mb": peak_mb}), flush=True)
    if summary.failed:
        raise SystemExit(f"{len(summary.failed)} videos failed: {summary.failed[0]}")


if __name__ == "__main__":
    if sys.argv[1] == "driver":
        listed, address, batch_size, output = sys.argv[2:]
        _drive(listed, address, int(batch_size), output)
    else:
        took = _with_a_cluster(ClusterJob(**json.loads(sys.argv[2])), int(sys.argv[3]))
        print(json.dumps(asdict(took)))
