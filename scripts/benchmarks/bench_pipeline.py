"""Compare ``rayclip extract`` with its parts and with the reference implementation.

rayclip and the reference run as commands, on a few clips and on many. Subtracting the short run
cancels startup and shutdown. (This holds for wall time only if the short run has more clips than
rayclip decodes while its model loads, and for CPU time only if it keeps all decoding tasks busy.
Otherwise startup hides more of the long run than of the short one.)
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from math import ceil
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from rayclip.media.frame_choice import FrameChoice
from rayclip.media.frames import open_selected
from rayclip.model.openai import DEMO_WEIGHTS
from rayclip.model.preprocess import Resizing, resize

sys.path.append(str(Path(__file__).parents[1]))  # the modules that all scripts share

from bench_decode import rate_name
from bench_encode import ACTOR, FORWARD, EncodeJob, Model, measured
from bench_processes import CommandFailed, Ended, Work, run_command, with_stand_ins
from bench_ways import N_PX, Rate
from tables import number, table

DECODE, RAYCLIP, ALONE, REFERENCE = "decode alone", "rayclip", "rayclip without Ray", "reference"
TWO = "rayclip, two encoders a device"
COMMANDS = (RAYCLIP, TWO, ALONE, REFERENCE)
REFERENCE_SCRIPT = str(Path(__file__).with_name("peers") / "reference.py")
FEW = 1 / 4  # share of the clips in the short run
SUMMARY = re.compile(r"^videos: \d+ done; (\d+) frames in", re.M)
ENCODER = re.compile(r"^encoder \d+.*: \d+ frames in (\d+) batches, mean batch fill ([\d.]+)", re.M)
EXPLANATION = """\
Commands: a run of {clips} clips minus one of {few}, that is, the cost of {rest} clips.
ms: per frame. start: startup and shutdown, extrapolated to a run without clips.
CPU: user and system, of all processes of a run including Ray's, sampled every 0.1 s.
{forward}, {actor}: as in `bench.py encode`. {decode}: one process, up to the model's input.
{reference}: re-encode, then batch size 1: one process, decode and encode in turn.
{rounds}; in parentheses, the minimum and maximum of a ratio."""


@dataclass(frozen=True)
class PipelineJob:
    """What to measure.

    Attributes:
        encode: the encoder alone.
        model: the model as given to the commands.
        clips: at least two.
        rate: output frames per second.
        synthetic_frames: frames per clip, which are then not decoded; None decodes.
        fake_microseconds: how long an encoder sleeps per frame; None encodes.
    """

    encode: EncodeJob
    model: Model
    clips: Sequence[Path]
    rate: Rate
    synthetic_frames: int | None = None
    fake_microseconds: float | None = None

    @property
    def few(self) -> int:
        return ceil(len(self.clips) * FEW)

    @property
    def ways(self) -> list[str]:
        """The rows of the table that make sense for this job."""
        decodes, encodes = self.synthetic_frames is None, self.fake_microseconds is None
        fits_reference = self.encode.encoder.spec.n_px == N_PX
        is_meaningful = {
            FORWARD: encodes,
            ACTOR: encodes,
            DECODE: decodes,
            RAYCLIP: True,
            ALONE: True,
            REFERENCE: decodes and encodes and fits_reference,
        }
        return [way for way, is_shown in is_meaningful.items() if is_shown]


@dataclass(frozen=True)
class Done:
    """One measurement.

    Attributes:
        work: the work without startup and shutdown.
        run: the whole long run; None if the measurement has no startup.
    """

    work: Work
    run: Work | None = None

    @property
    def start(self) -> Work | None:
        """The startup and shutdown of the long run."""
        if self.run is None:
            return None
        part = self.run.frames / self.work.frames
        return self.run - Work(self.run.frames, self.work.wall_s * part, self.work.cpu_s * part)


Round = Mapping[str, Done]


def clips_of(videos: Sequence[Path], count: int, folder: Path) -> list[Path]:
    """Links to the videos in turn, ``count`` in total, in a new folder."""
    folder.mkdir()
    clips = []
    for place, video in enumerate(islice(cycle(videos), count)):
        clips.append(folder / f"clip{place:05}{video.suffix}")
        clips[-1].symlink_to(video.resolve())
    return clips


def rounds_of(job: PipelineJob, ways: Sequence[str], rounds: int) -> Iterator[Round]:
    """Measure every way in turn, in every round."""
    alone = measured(job.encode, [way for way in ways if way in (FORWARD, ACTOR)], rounds)
    for encoded in alone:
        done = {way: Done(work) for way, work in encoded.items()}
        if DECODE in ways:
            done[DECODE] = Done(decode(job))
        done |= {way: _subtract_start(job, RUNS[way]) for way in COMMANDS if way in ways}
        yield done


def batch_fill(job: PipelineJob) -> float:
    """The share of real frames in the batches of a run.

    The run itself is not timed; it also warms the caches of the machine.
    """
    ended = _rayclip(job, job.clips, ("--verbose",))
    encoders = [(int(batches), float(fill)) for batches, fill in ENCODER.findall(ended.stderr)]
    return sum(batches * fill for batches, fill in encoders) / sum(b for b, _ in encoders)


def decode(job: PipelineJob) -> Work:
    """Decode and resize the clips of the long run in this process."""
    n_px = job.encode.encoder.spec.n_px
    frames, started, cpu_s = 0, time.perf_counter(), time.process_time()
    for clip in job.clips[job.few :]:
        with open_selected(clip, FrameChoice(job.rate)) as wanted:
            for shown in wanted.frames:
                resize(shown.rgb(), Resizing(n_px))
                frames += len(shown.timestamps_ms)
    return Work(frames, time.perf_counter() - started, time.process_time() - cpu_s)


def _subtract_start(job: PipelineJob, run: Callable[[PipelineJob, Sequence[Path]], Ended]) -> Done:
    few, all_ = (_work(run(job, clips)) for clips in (job.clips[: job.few], job.clips))
    if all_.frames <= few.frames:
        raise CommandFailed("more clips did not yield more frames")
    return Done(all_ - few, all_)


def _work(ended: Ended) -> Work:
    summary = SUMMARY.search(ended.stderr)
    if summary is None:
        raise CommandFailed(f"the command printed no summary: {ended.stderr[-300:]}")
    return Work(int(summary[1]), ended.wall_s, ended.cpu_s)


def _rayclip(job: PipelineJob, clips: Sequence[Path], options: Sequence[str] = ()) -> Ended:
    """Run ``rayclip extract``, with the stand-ins of the job."""
    environment = with_stand_ins(job.synthetic_frames, job.fake_microseconds)
    environment.pop("RAY_ADDRESS", None)
    with TemporaryDirectory() as folder:
        listed = Path(folder, "clips.txt")
        listed.write_text("\n".join(map(str, clips)))
        words = ["-m", "rayclip", "extract", "--file-with-video-paths", str(listed)]
        words += ["--on-extraction", "save_numpy", "--output-path", f"{folder}/output"]
        words += ["--model-name", job.model.model_name, "--address", "local", *options]
        words += ["--batch-size", str(job.encode.batch_size)]
        words += ["--precision", job.encode.encoder.precision]
        if job.model.weights is not None:
            words += ["--weights", job.model.weights]
        if job.rate is not None:
            words += ["--extraction-fps", str(job.rate)]
        return run_command([sys.executable, *words], environment)


def _rayclip_alone(job: PipelineJob, clips: Sequence[Path]) -> Ended:
    return _rayclip(job, clips, ("--address", "none"))


def _rayclip_two(job: PipelineJob, clips: Sequence[Path]) -> Ended:
    on_gpu = job.encode.encoder.device == "cuda"
    return _rayclip(job, clips, ("--encoders-per-gpu" if on_gpu else "--encoders", "2"))


def _reference(job: PipelineJob, clips: Sequence[Path]) -> Ended:
    weights = job.model.weights or str(DEMO_WEIGHTS)
    with TemporaryDirectory() as output:
        words = [sys.executable, REFERENCE_SCRIPT, rate_name(job.rate), weights, output]
        return run_command([*words, *map(str, clips)], os.environ)


RUNS: Mapping[str, Callable[[PipelineJob, Sequence[Path]], Ended]] = {
    RAYCLIP: _rayclip,
    TWO: _rayclip_two,
    ALONE: _rayclip_alone,
    REFERENCE: _reference,
}


def report(job: PipelineJob, rounds: Sequence[Round], fill: float | None) -> str:
    """The table, its explanation and all ratios."""
    header = ["way", "frames", "frames/s", "wall ms", "CPU ms", "start s", "start CPU s"]
    rows = []
    for way in rounds[0]:
        works = [done[way].work for done in rounds]
        starts = [start for done in rounds if (start := done[way].start) is not None]
        rows.append(
            [
                way,
                str(works[0].frames),
                number(1000 / median(work.wall_ms for work in works), 1),
                number(median(work.wall_ms for work in works)),
                number(median(work.cpu_ms for work in works)),
                number(median(start.wall_s for start in starts) if starts else None, 1),
                number(median(start.cpu_s for start in starts) if starts else None, 1),
            ]
        )
    explanation = EXPLANATION.format(
        clips=len(job.clips),
        few=job.few,
        rest=len(job.clips) - job.few,
        forward=FORWARD,
        actor=ACTOR,
        decode=DECODE,
        reference=REFERENCE,
        rounds=f"Medians of {len(rounds)} rounds" if len(rounds) > 1 else "One round",
    )
    lines = list(_ratio_lines(rounds))
    if fill is not None:
        lines.append(f"mean batch fill, batches of {job.encode.batch_size}: {fill:.2f}")
    return "\n\n".join([table(header, rows), explanation, *(["\n".join(lines)] if lines else [])])


def _ratio_lines(rounds: Sequence[Round]) -> Iterator[str]:
    measured_ways = rounds[0].keys()
    for sentence, (ways, ratio) in RATIOS.items():
        if measured_ways >= set(ways):
            found = [ratio(*(done[way] for way in ways)) for done in rounds]
            middle, low, high = (_format_ratio(kind(found)) for kind in (median, min, max))
            yield f"{sentence}: {middle} ({low} to {high})"


def _format_ratio(ratio: float) -> str:
    return number(ratio, 3 if abs(ratio) < 10 else 0)


def _speed(whole: Done, part: Done) -> float:
    return part.work.wall_ms / whole.work.wall_ms


def _cpu_share(whole: Done, *parts: Done) -> float:
    return sum(part.work.cpu_ms for part in parts) / whole.work.cpu_ms


def _cpu_us_more(one: Done, other: Done) -> float:
    return 1000 * (one.work.cpu_ms - other.work.cpu_ms)


def _wall_of_runs(*measurements: Done) -> float:
    ours, theirs = (done.run.wall_s for done in measurements if done.run)
    return ours / theirs


def _cpu_of_runs(*measurements: Done) -> float:
    ours, theirs = (done.run.cpu_s for done in measurements if done.run)
    return ours / theirs


RATIOS: Mapping[str, tuple[tuple[str, ...], Callable[..., float]]] = {
    f"speed, {RAYCLIP} / {FORWARD}": ((RAYCLIP, FORWARD), _speed),
    f"speed, {RAYCLIP} / {ACTOR}": ((RAYCLIP, ACTOR), _speed),
    f"speed, {RAYCLIP} / {REFERENCE}": ((RAYCLIP, REFERENCE), _speed),
    f"CPU, ({DECODE} + {FORWARD}) / {RAYCLIP}": ((RAYCLIP, DECODE, FORWARD), _cpu_share),
    f"CPU, ({DECODE} + {FORWARD}) / {ALONE}": ((ALONE, DECODE, FORWARD), _cpu_share),
    f"CPU, {RAYCLIP} / {REFERENCE}": ((REFERENCE, RAYCLIP), _cpu_share),
    f"CPU us/frame, {RAYCLIP} - {ALONE}": ((RAYCLIP, ALONE), _cpu_us_more),
    f"wall of a run and its start, {RAYCLIP} / {REFERENCE}": ((RAYCLIP, REFERENCE), _wall_of_runs),
    f"CPU of a run and its start, {RAYCLIP} / {REFERENCE}": ((RAYCLIP, REFERENCE), _cpu_of_runs),
}
"""Label -> the ways that are compared, and the function that compares them."""
