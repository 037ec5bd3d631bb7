"""CPU time from a video to the inputs of the model."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import mean
from typing import Any

import av
from bench_measure import Cost, Failed, Job, measure
from bench_ways import BY_PILLOW, EVERYTHING, RAYCLIP, REFERENCE, WAYS, Rate, Way
from tables import number, table

from rayclip.errors import BadVideo, UsageError
from rayclip.media.container import select_video_stream
from rayclip.media.frame_choice import parse_fps

NATIVE = "native"
PACKAGES = (
    "av",
    "pillow",
    "torch",
    "opencv-python-headless",
    "opencv-python",
    "torchcodec",
    "decord",
)
"""Packages whose versions are saved with the numbers."""
RATIOS = {
    "rayclip/reference": (RAYCLIP, REFERENCE),
    "rayclip/by Pillow": (RAYCLIP, BY_PILLOW),
    "rayclip/everything": (RAYCLIP, EVERYTHING),
}
"""Column heading -> the two ways that it compares."""
USUAL_RATES = (1, 5)  # frames per second, minimum and maximum; the summary is about these
EXPLANATION = """\
Columns of ways: CPU milliseconds per feature, user and system, of the process with all its threads,
in the cheapest of {rounds}. Every way decodes on one thread; reference re-encodes with x264 on
ffmpeg's default threads, except at native rate. by Pillow: rayclip without its C library. frames:
the number that rayclip returns."""


@dataclass(frozen=True)
class BenchVideo:
    """A video to measure on.

    Attributes:
        path: the file.
        codec: libav's name of the codec.
        size: ``WIDTHxHEIGHT`` in pixels.
    """

    path: Path
    codec: str
    size: str


@dataclass(frozen=True)
class Row:
    """The costs of all ways for one video at one rate."""

    video: BenchVideo
    rate: Rate
    costs: dict[str, Cost | Failed]

    @property
    def name(self) -> str:
        rate = NATIVE if self.rate is None else f"{self.rate} fps"
        return f"{self.video.path.name} at {rate}"

    def ms(self, way: str) -> float | None:
        """CPU milliseconds per feature; None if the way failed."""
        cost = self.costs[way]
        return cost.ms_each if isinstance(cost, Cost) else None

    def ratio(self, name: str) -> float | None:
        """One of :data:`RATIOS`; None if one of its ways failed."""
        upper, lower = (self.ms(way) for way in RATIOS[name])
        return upper / lower if upper is not None and lower is not None else None

    def made(self, way: str) -> int | None:
        """The number of squares from a way; None if it failed."""
        cost = self.costs[way]
        return cost.made if isinstance(cost, Cost) else None


def describe(path: Path) -> BenchVideo:
    """Read the codec and size of a video.

    Raises:
        UsageError: it is not a video.
    """
    try:
        with av.open(str(path)) as container:
            codec = select_video_stream(container).codec_context
            return BenchVideo(path, codec.codec.canonical_name, f"{codec.width}x{codec.height}")
    except (OSError, av.FFmpegError) as error:
        raise UsageError(f"{path} cannot be opened: {error.strerror}.") from None
    except BadVideo as error:
        raise UsageError(f"{path} cannot be measured: {error}.") from None


def measured(videos: Iterable[BenchVideo], rates: Sequence[Rate], rounds: int) -> Iterator[Row]:
    """Yield a row for each video at each rate; the ways alternate in every round."""
    import_module("torch")  # once here instead of in every forked process
    for video in videos:
        for rate in rates:
            jobs = {
                name: Job(way.prepare, partial(_count, way, video.path, rate))
                for name, way in WAYS.items()
            }
            yield Row(video, rate, measure(jobs, rounds))


def _count(way: Way, path: Path, rate: Rate) -> int:
    return sum(1 for _ in way.squares(path, rate))


def report(rows: Sequence[Row], rounds: int) -> str:
    """The table, its explanation, notes on failures, and a summary line."""
    header = ["file", "codec", "size", "fps", "frames", *RATIOS, *WAYS]
    cells = [
        [
            row.video.path.name,
            row.video.codec,
            row.video.size,
            rate_name(row.rate),
            str(row.made(RAYCLIP) or "-"),
            *(number(row.ratio(name)) for name in RATIOS),
            *(number(row.ms(way), 1) for way in WAYS),
        ]
        for row in rows
    ]
    explanation = EXPLANATION.format(rounds=f"{rounds} rounds" if rounds > 1 else "one round")
    parts = [table(header, cells), explanation, "\n".join(notes(rows)), summary(rows)]
    return "\n\n".join(part for part in parts if part)


def notes(rows: Sequence[Row]) -> list[str]:
    """A line for each failure and for each differing number of frames."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        for way, cost in row.costs.items():
            if isinstance(cost, Failed):
                found.setdefault(f"{way}: {cost.reason}", []).append(row)
            elif cost.made != row.made(RAYCLIP):
                found.setdefault(f"{way}: returns {cost.made} frames", []).append(row)
    return [
        note
        if len(affected) == len(rows)
        else f"{note} ({', '.join(row.name for row in affected)})"
        for note, affected in found.items()
    ]


def summary(rows: Sequence[Row]) -> str:
    """Mean and maximum of every ratio, over the usual rates."""
    low, high = USUAL_RATES
    usual = [row for row in rows if row.rate is not None and low <= row.rate <= high]
    parts = []
    for name in RATIOS:
        ratios = [ratio for row in usual if (ratio := row.ratio(name)) is not None]
        if ratios:
            parts.append(f"{name} mean {mean(ratios):.2f}, max {max(ratios):.2f}")
    return f"At {low} to {high} fps: {'; '.join(parts) or 'nothing to compare'}."


def as_json(rows: Sequence[Row], rounds: int) -> dict[str, Any]:
    """All numbers, with the machine and the versions of packages."""
    return {
        "machine": {"system": platform.platform(), "cores": os.cpu_count()},
        "packages": dict(_versions()),
        "rounds": rounds,
        "rows": [
            {
                "file": row.video.path.name,
                "codec": row.video.codec,
                "size": row.video.size,
                "extraction_fps": rate_name(row.rate),
                "ratios": {name: row.ratio(name) for name in RATIOS},
                "ways": {
                    way: {**asdict(cost), "ms_per_feature": row.ms(way)}
                    for way, cost in row.costs.items()
                },
            }
            for row in rows
        ],
    }


def draw(rows: Sequence[Row], file: Path) -> None:
    """Draw the milliseconds of every way as bars: a panel per rate, a group of bars per video."""
    from matplotlib.figure import Figure

    rates = list(dict.fromkeys(row.rate for row in rows))
    ways = [way for way in WAYS if any(row.ms(way) is not None for row in rows)]
    figure = Figure(figsize=(10, 3 * len(rates)), layout="constrained")
    for rate, axes in zip(rates, figure.subplots(len(rates), squeeze=False)[:, 0], strict=True):
        panel = [row for row in rows if row.rate == rate]
        for position, way in enumerate(ways):
            places = [group + (position + 0.5) / (len(ways) + 1) for group in range(len(panel))]
            heights = [row.ms(way) or 0 for row in panel]
            axes.bar(places, heights, width=1 / (len(ways) + 1), label=way)
        middles = [group + 0.5 * len(ways) / (len(ways) + 1) for group in range(len(panel))]
        axes.set_xticks(middles, [f"{row.video.path.stem}\n{row.video.size}" for row in panel])
        axes.set_ylabel("CPU ms per feature")
        axes.set_title("every frame" if rate is None else f"{rate} fps", loc="left")
    named = figure.axes[0].get_legend_handles_labels()
    figure.legend(*named, loc="outside upper center", ncols=len(ways), fontsize="small")
    figure.savefig(file)


def rate_name(rate: Rate) -> str:
    return NATIVE if rate is None else str(rate)


def parse_rate(name: str) -> Rate:
    """Parse a rate from the command line.

    Raises:
        UsageError: it is not a rate.
    """
    try:
        return None if name == NATIVE else parse_fps(name)
    except ValueError as error:
        raise UsageError(f"--extraction-fps {name}: {error}; or use {NATIVE}.") from None


def _versions() -> Iterator[tuple[str, str]]:
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            yield package, version(package)
