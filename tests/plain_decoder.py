"""A plain decoder as the reference, independent of rayclip's decoder."""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_right
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from rayclip.errors import BadVideo, Code
from rayclip.media.container import open_stream, read_packets, start_us
from rayclip.media.cropping import crop_function
from rayclip.media.decoding import decode_all, timed_frames
from rayclip.media.frame_choice import FrameChoice, evenly_spaced, parse_fps
from rayclip.media.frames import iter_frames, open_selected
from rayclip.media.orientation import upright_rgb
from rayclip.media.segments import Segment
from rayclip.media.timestamps import BestEffortTimestamp
from rayclip.media.video import VideoSource

NO_TIMES = 0x80  # libavformat's AVFMT_NOTIMESTAMPS

_converter = VideoReformatter()
_md5s: dict[str, str] = {}


@dataclass(frozen=True)
class Plain:
    """All frames of a video from a plain decoder: ``(pts, duration, digest)``."""

    frames: list[tuple[int, int, str]]
    time_base: Fraction
    start_us: int
    keyframes: tuple[bool, ...] = ()

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
            (tick, self.frames[bisect_right(firsts, tick) - 1][2])
            for tick in range(firsts[0], max(firsts[-1], end))
        ]
        return ticks or [(0, self.frames[0][2])]

    def selected(self, choice: FrameChoice) -> list[tuple[float, str]]:
        """The times in ms and pictures of any choice, from its definition."""
        start, end = choice.start, choice.end
        times = [nearest((pts * self.time_base) * 1_000_000) - self.start_us for pts in self.pts]
        start_us = -math.inf if start is None else round(start * 1_000_000)
        end_us = math.inf if end is None else round(end * 1_000_000)
        if choice.fps is not None:
            return self._ticks_in_range(choice.fps, start, times, start_us, end_us)
        over = next((number for number, us in enumerate(times) if us >= end_us), len(times))
        inside = [
            (native, is_keyframe)
            for number, (native, is_keyframe, us) in enumerate(
                zip(self.native(), self.keyframes, times, strict=True)
            )
            if start_us <= us and number < over
        ]
        if choice.keyframes:
            found = [native for native, is_keyframe in inside if is_keyframe]
            return found or ([] if choice.has_range else self.native()[:1])
        numbers = range(0, len(inside), choice.every or 1)
        if choice.total is not None:
            numbers = evenly_spaced(len(inside), choice.total)
        return [inside[number][0] for number in numbers]

    def _ticks_in_range(
        self, fps: Fraction, start: float | None, times: list[int], start_us: float, end_us: float
    ) -> list[tuple[float, str]]:
        first_us = 0 if start is None else int(start_us)
        offset = nearest(-Fraction(self.start_us, 1_000_000) / self.time_base)
        moved = Fraction(first_us, 1_000_000)
        begins = list(accumulate(self.pts, max))  # times never go back
        rounded = [nearest(((pts + offset) * self.time_base - moved) * fps) for pts in begins]
        last, duration, _ = self.frames[-1]
        gap = last - self.frames[-2][0] if len(self.frames) > 1 else 0
        if duration == 1 and gap > 2:  # ffmpeg takes it for libavformat's guess
            duration = gap
        final = last + (duration or gap or 1)
        final_us = nearest(final * self.time_base * 1_000_000) - self.start_us
        until = nearest(((final + offset) * self.time_base - moved) * fps)
        until = max(until, rounded[-1])
        begin_us = list(accumulate(times, max))
        visible = [number for number, us in enumerate(begin_us) if us < end_us]
        if final_us >= end_us or len(visible) < len(self.frames):  # on the screen until the end
            until = math.ceil((int(end_us) - first_us) * fps / 1_000_000)
        if not visible:
            return []
        first = rounded[0] if start is None else max(0, rounded[0])
        ticks = [
            (
                float((moved + tick / fps) * 1000),
                self.frames[[number for number in visible if rounded[number] <= tick][-1]][2],
            )
            for tick in range(first, until)
        ]
        ends = [*begin_us[1:], final_us]
        stand_ins = [number for number in visible if start is None or ends[number] > start_us]
        return ticks or [(float(moved * 1000), self.frames[number][2]) for number in stand_ins[:1]]

    @property
    def pts(self) -> list[int]:
        return [pts for pts, _, _ in self.frames]

    def native(self) -> list[tuple[float, str]]:
        start = Fraction(self.start_us, 1000)
        return [
            (float(pts * self.time_base * 1000 - start), digest) for pts, _, digest in self.frames
        ]


def nearest(value: Fraction) -> int:
    """The nearest integer, halves away from zero."""
    whole = int(abs(value) + Fraction(1, 2))
    return whole if value >= 0 else -whole


def rgb_of(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """The pixels of a decoded frame, uint8 ``[height, width, 3]``.

    ``frame.to_ndarray`` would start the threads of a new converter for each frame.
    """
    return _converter.reformat(frame, format="rgb24", threads=1).to_ndarray()


def digest_of(rgb: NDArray[np.uint8]) -> str:
    """What tells pictures apart; processors compute SHA-256 several times as fast as MD5."""
    return hashlib.sha256(np.ascontiguousarray(rgb)).hexdigest()


def md5_of(rgb: NDArray[np.uint8]) -> str:
    """The MD5 that ffmpeg's tables have, computed once for each picture."""
    digest = digest_of(rgb)
    if digest not in _md5s:
        _md5s[digest] = hashlib.md5(np.ascontiguousarray(rgb)).hexdigest()
    return _md5s[digest]


def decode_plainly(path: Path) -> Plain:
    """Decode everything; packets that do not decode are skipped."""
    with av.open(str(path), container_options={"fflags": "-genpts"}) as container:
        stream = container.streams.video[0]
        has_times = not container.format.flags & NO_TIMES
        stream.codec_context.thread_count = 1
        guess = BestEffortTimestamp()
        rate = stream.guessed_rate or Fraction(25)
        frames: list[tuple[int, int, str]] = []
        keyframes = []
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
                digest = digest_of(rgb_of(frame))
                frames.append((pts, frame.duration or 0, digest))
                keyframes.append(bool(frame.key_frame))
        return Plain(frames, stream.time_base, container.start_time or 0, tuple(keyframes))


def decode_fully(path: Path) -> Plain:
    """Decode everything of any file, by the stream, clock and orientation that rayclip uses."""
    with open_stream(path, {}) as (container, stream):
        rate = stream.guessed_rate or stream.average_rate or Fraction(25)
        decoded = decode_all(stream.codec_context, read_packets(container, stream))
        crop = crop_function(stream) or (lambda frame: frame)
        frames, keyframes = [], []
        for timed in timed_frames(decoded, stream.time_base, rate):
            digest = digest_of(upright_rgb(crop(timed.frame)))
            frames.append((timed.pts, timed.duration, digest))
            keyframes.append(bool(timed.frame.key_frame))
        start = start_us(container, stream)
        return Plain(frames, stream.time_base, start, tuple(keyframes))


def ticks_of(source: VideoSource, rate: str) -> list[tuple[int, str]]:
    """The ticks and pictures that rayclip yields."""
    fps = parse_fps(rate)
    return [(round(ms * fps / 1000), digest_of(rgb)) for ms, rgb in iter_frames(source, rate)]


def selected_of(path: Path, choice: FrameChoice) -> list[tuple[float, str]]:
    """The times in ms and pictures that rayclip yields; none if a range has no frame."""
    asked = vars(choice).copy()
    names = {"fps": "extraction_fps", "total": "extraction_total"}
    options: Any = {names.get(name, name): value for name, value in asked.items()}
    try:
        return [(ms, digest_of(rgb)) for ms, rgb in iter_frames(path, **options)]
    except BadVideo as error:
        if error.code != Code.EMPTY_RANGE:
            raise
        return []


def segments_of(path: Path, segments: list[Segment], rate: str | None) -> list[tuple[float, str]]:
    """The times in ms and pictures of segments that are decoded separately."""
    choice = FrameChoice(None if rate is None else parse_fps(rate))
    return joined_segments(path, segments, choice)


def joined_segments(
    path: Path, segments: list[Segment], choice: FrameChoice
) -> list[tuple[float, str]]:
    """The same for any choice."""
    found = []
    for segment in segments:
        with open_selected(path, choice, segment=segment) as wanted:
            for selected in wanted.frames:
                digest = digest_of(selected.rgb())
                found += [(ms, digest) for ms in selected.timestamps_ms]
    return found
