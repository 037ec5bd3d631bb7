"""rayclip and other ways to features of the same videos: time, CPU time and which frames.

Every way is a command, measured with its start, and saves the features of each video.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
from bench_encode import Model
from bench_environments import python_with, with_ffmpeg
from bench_measure import Failed
from bench_processes import CommandFailed, run_command
from bench_right_frames import Expected, Features, expected_frames
from bench_videos import make_videos

import rayclip
from rayclip.errors import RayclipError

sys.path.append(str(Path(__file__).parents[1]))  # the modules that all scripts share

from tables import number, table

SMALL, LARGE = (854, 480), (1920, 1080)
LONGER = 4  # how much longer the large videos are
PATTERN = (SMALL, SMALL, SMALL, LARGE)
ENCODING = "h264_gop250"
HEADER = ["way", "frames/s", "wall s", "CPU s", "frames", "right", "off by ms", "at most"]
EXPLANATION = """\
{videos} videos at {fps} fps, which are {frames} frames; {rounds}. Time and CPU time are those of
whole commands with their start and all processes. right: rows that show the frame that ffmpeg's
filter `fps={fps}` shows at this place. off by: how far in the video the shown frame is from that
one, the median and the maximum."""


@dataclass(frozen=True)
class PeersJob:
    """What to measure.

    Attributes:
        videos: the videos, of different names.
        fps: frames per second.
        model: the model as given to rayclip; its weights are given to all.
        environments: the folder of the virtual environments.
        limit_s: seconds after which a way is stopped.
    """

    videos: Sequence[Path]
    fps: int
    model: Model
    environments: Path
    limit_s: float

    @cached_property
    def expected(self) -> dict[str, Expected]:
        """What each video has; videos may be links to one file, which is read once."""
        model = rayclip.load_clip(self.model.model_name, self.model.weights)
        files = {video.stem: video.resolve() for video in self.videos}
        found = {file: expected_frames(file, self.fps, model) for file in set(files.values())}
        return {stem: found[file] for stem, file in files.items()}


@dataclass(frozen=True)
class Run:
    """A run of a way.

    Attributes:
        wall_s, cpu_s: wall and CPU seconds.
        features: by the stem of the video.
    """

    wall_s: float
    cpu_s: float
    features: Mapping[str, Features]

    @property
    def frames(self) -> int:
        return sum(map(len, self.features.values()))


@dataclass(frozen=True)
class Peer:
    """Another way: a script in the folder ``peers``.

    Attributes:
        script: its name.
        package: the requirement that its environment has.
        words: its first arguments.
    """

    script: str
    package: str
    words: tuple[str, ...] = ()

    def run(self, job: PeersJob, output: Path) -> Run:
        python = python_with(self.package, job.environments)
        script = Path(__file__).with_name("peers") / self.script
        words = [python, str(script), *self.words, str(job.fps), str(job.model.weights)]
        words += [str(output), *map(str, job.videos)]
        ended = run_command(words, with_ffmpeg(python), job.limit_s)
        features = {file.stem: np.load(file) for file in output.glob("*.npy")}
        return Run(ended.wall_s, ended.cpu_s, features)


@dataclass(frozen=True)
class Extract:
    """``rayclip extract``.

    Attributes:
        options: further options.
    """

    options: tuple[str, ...] = ()

    def run(self, job: PeersJob, output: Path) -> Run:
        words = [sys.executable, "-m", "rayclip", "extract", *map(str, job.videos)]
        words += ["--extraction-fps", str(job.fps), "--model-name", job.model.model_name]
        words += ["--weights", str(job.model.weights), "--on-extraction", "save_numpy"]
        words += ["--output-path", str(output), *self.options]
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        ended = run_command(words, environment, job.limit_s)
        features = {row.video: row.clip for row in rayclip.load_features(output)}
        return Run(ended.wall_s, ended.cpu_s, features)


ALONE = "rayclip without Ray"
WAYS: Mapping[str, Peer | Extract] = {
    "rayclip": Extract(),
    ALONE: Extract(("--address", "none")),
    "rayclip on Ray": Extract(("--address", "local")),
    "torchcodec and a loop": Peer("torchcodec_loop.py", "torchcodec==0.17.0"),
    "Ray Data": Peer("ray_data.py", "decord==0.6.0"),
    "Daft": Peer("daft_frames.py", "daft==0.7.26", ("0",)),
    "Daft, file by file": Peer("daft_frames.py", "daft==0.7.26", ("1",)),
    "reference": Peer("reference.py", "opencv-python-headless==5.0.0.93"),
}
"""Row name -> way."""
Runs = dict[str, "list[Run] | Failed"]


def make_clips(count: int, seconds: float, folder: Path) -> list[Path]:
    """Three small videos for each large one, which is :data:`LONGER` times as long."""
    sizes = list(islice(cycle(PATTERN), count))
    made = {}
    for width, height in set(sizes):
        length = seconds * (LONGER if (width, height) == LARGE else 1)
        home = folder / f"{height}p_{length:g}s"
        made[width, height] = make_videos(home, (width, height), length, [ENCODING])[0]
    return [made[size] for size in sizes]


def measured(job: PeersJob, ways: Sequence[str], rounds: int) -> Iterator[Runs]:
    """Run every way in turn in every round; yield what is known after each round.

    A way that failed is not repeated.
    """
    found: Runs = {way: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            runs = found[way]
            if isinstance(runs, list):
                with TemporaryDirectory() as output:
                    try:
                        run = WAYS[way].run(job, Path(output))
                        if not run.frames:
                            raise CommandFailed("it saved no features")
                        runs.append(run)
                    except RayclipError as error:
                        found[way] = Failed(str(error))
        yield found


def report(job: PeersJob, found: Runs) -> str:
    """The table, its explanation and the reasons of failures."""
    rows = [[way, *_cells(job, runs)] for way, runs in found.items()]
    failures = [f"{way}: {runs.reason}" for way, runs in found.items() if isinstance(runs, Failed)]
    rounds = max((len(runs) for runs in found.values() if isinstance(runs, list)), default=0)
    explanation = EXPLANATION.format(
        videos=len(job.videos),
        fps=job.fps,
        frames=sum(len(expected.right) for expected in job.expected.values()),
        rounds=f"medians of {rounds} rounds" if rounds > 1 else "one round",
    )
    return "\n\n".join([table(HEADER, rows), explanation, *failures])


def _cells(job: PeersJob, runs: list[Run] | Failed) -> list[str]:
    if isinstance(runs, Failed):
        return [number(None)] * (len(HEADER) - 1)
    wall_s, cpu_s = (median(getattr(run, name) for run in runs) for name in ("wall_s", "cpu_s"))
    features = runs[0].features  # the other rounds have the same
    expected = job.expected
    offsets = np.concatenate([expected[stem].offsets_ms(rows) for stem, rows in features.items()])
    ticks = sum(len(one.right) for one in expected.values())
    return [
        number(runs[0].frames / wall_s, 1),
        number(wall_s, 1),
        number(cpu_s, 1),
        str(runs[0].frames),
        f"{np.count_nonzero(offsets == 0) / ticks:.1%}",
        number(float(np.median(offsets)), 0),
        number(float(offsets.max()), 0),
    ]


def draw(found: Runs, file: Path) -> None:
    """Draw wall and CPU seconds of every way that did not fail as bars."""
    from matplotlib.figure import Figure

    done = {way: runs for way, runs in found.items() if isinstance(runs, list)}
    figure = Figure(figsize=(10, 0.8 + 0.4 * len(done)), layout="constrained")
    panels = zip(figure.subplots(1, 2, sharey=True), ("wall_s", "cpu_s"), strict=True)
    for axes, name in panels:
        for way, runs in done.items():
            seconds = median(getattr(run, name) for run in runs)
            colour = "tab:blue" if isinstance(WAYS[way], Extract) else "tab:grey"
            bar = axes.barh(way, seconds, color=colour)
            axes.bar_label(bar, fmt="%.0f", padding=2)
        axes.set_xlabel({"wall_s": "seconds", "cpu_s": "CPU seconds"}[name])
        axes.margins(x=0.12)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].invert_yaxis()
    figure.savefig(file)
