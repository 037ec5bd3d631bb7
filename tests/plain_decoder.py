"""A plain decoder as the reference, independent of rayclip's decoder."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import Any

import av

from rayclip.media.frames import iter_frames, open_selected
from rayclip.media.sampling import FrameChoice, parse_fps
from rayclip.media.segments import Segment
from rayclip.media.timestamps import BestEffortTimestamp
from rayclip.media.video import VideoSource

NO_TIMES = 0x80  # libavformat's AVFMT_NOTIMESTAMPS


@dataclass(frozen=True)
class Plain:
    """All frames of a video from a plain decoder: ``(pts, duration, md5)``."""

    frames: list[tuple[int, int, str]]
    time_base: Fraction
    start_us: int

    def at(self, rate: str) -> list[tuple[int, str]]:
        """The ticks of a rate, each with the last frame whose nearest tick is not after it."""
        fps = parse_fps(rate)
        offset = nearest(-Fraction(self.start_us, 1_000_000) / self.time_base)
        times = accumulate((pts for pts, _, _ in self.frames), max)  # times never go back
        firsts = [nearest((pts + offset) * self.time_base * fps) for pts in times]
        last, duration, _ = self.frames[-1]
        gap = last - self.frames[-2][0] if len(self.frames) > 1 else 0
        if duration == 1 and gap > 2:  # ffmpeg takes it for libavformat's guess
            duration = gap
        end = nearest((last + offset + (duration or gap or 1)) * self.time_base * fps)
        ticks = [
            (
                tick,
                [
                    md5
                    for first, (_, _, md5) in zip(firsts, self.frames, strict=True)
                    if first <= tick
                ][-1],
            )
            for tick in range(firsts[0], max(firsts[-1], end))
        ]
        return ticks or [(0, self.frames[0][2])]

    def native(self) -> list[tuple[float, str]]:
        start = Fraction(self.start_us, 1000)
        return [(float(pts * self.time_base * 1000 - start), md5) for pts, _, md5 in self.frames]


def nearest(value: Fraction) -> int:
    """The nearest integer, halves away from zero."""
    whole = int(abs(value) + Fraction(1, 2))
    return whole if value >= 0 else -whole


def md5_of(rgb: Any) -> str:
    return hashlib.md5(rgb.tobytes()).hexdigest()


def decode_plainly(path: Path) -> Plain:
    """Decode everything; packets that do not decode are skipped."""
    with av.open(str(path), container_options={"fflags": "-genpts"}) as container:
        stream = container.streams.video[0]
        has_times = not container.format.flags & NO_TIMES
        stream.codec_context.thread_count = 1
        guess = BestEffortTimestamp()
        rate = stream.guessed_rate or Fraction(25)
        frames: list[tuple[int, int, str]] = []
        for packet in container.demux(stream):
            if packet.dts is not None and not packet.size:
                continue
            try:
                decoded = stream.codec_context.decode(packet if packet.size else None)
            except av.FFmpegError:
                continue
            for frame in decoded:
                pts = guess.update(frame.pts, frame.dts) if has_times else None
                if pts is None:
                    pts = frames[-1][0] + round(1 / rate / stream.time_base) if frames else 0
                md5 = md5_of(frame.to_ndarray(format="rgb24"))
                frames.append((pts, frame.duration or 0, md5))
        return Plain(frames, stream.time_base, container.start_time or 0)


def ticks_of(source: VideoSource, rate: str) -> list[tuple[int, str]]:
    """The ticks and pictures that rayclip yields."""
    fps = parse_fps(rate)
    return [(round(ms * fps / 1000), md5_of(rgb)) for ms, rgb in iter_frames(source, rate)]


def segments_of(path: Path, segments: list[Segment], rate: str | None) -> list[tuple[float, str]]:
    """The times in ms and pictures of segments that are decoded separately."""
    choice = FrameChoice(None if rate is None else parse_fps(rate))
    found = []
    for segment in segments:
        with open_selected(path, choice, segment=segment) as wanted:
            for selected in wanted.frames:
                md5 = md5_of(selected.rgb())
                found += [(ms, md5) for ms in selected.timestamps_ms]
    return found
