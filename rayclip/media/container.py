"""Open a container, choose its video stream as ffmpeg does, and read its packets."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from rayclip.errors import BadVideo, Code
from rayclip.media.keyframes import VideoPacket
from rayclip.media.source import NO_OTHER_FILES, VideoSource, readable
from rayclip.media.watchdog import LIBAV

MAX_PIXELS = 8192 * 8192
MAX_PIXELS_TO_LOOK_AT = 2 * MAX_PIXELS  # libav may decode one picture to learn its size
ATTACHED_PICTURE = 0x400  # libavformat's AV_DISPOSITION_ATTACHED_PIC
FARTHEST_S = 30 * 3600  # a packet's times that are farther from the last are damage, as in ffmpeg
NO_TIMES = 0x80  # libavformat's AVFMT_NOTIMESTAMPS: raw streams, for which it makes times up
TIMES_MAY_JUMP = 0x200  # libavformat's AVFMT_TS_DISCONT: recordings whose clock may start again
MAX_GAP_US, MAX_STEP_BACK_US = 10_000_000, 100_000  # of such a clock; more is a jump
DEFAULT_BONUS = 5_000_000  # what ffmpeg's choice of stream adds for AV_DISPOSITION_DEFAULT
PACKETS_BONUS = 100_000_000  # and for a stream that gave packets while libav looked at the file
DEMUXING = {
    **NO_OTHER_FILES,
    "fflags": "-genpts",  # PyAV asks for invented timestamps; ffmpeg does not believe such
}


@contextmanager
def open_stream(
    source: VideoSource, storage_options: Mapping[str, Any]
) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a video for one read; its stream is ready for decoding on this thread.

    Raises:
        BadVideo: it is no video that can be decoded (stage ``open``).
        VideoError: it could not be read (stage ``read``): not the video's fault.
    """
    with readable(source, storage_options, LIBAV.moved) as file:
        begins_as_mp4 = file.peek(8)[4:] == b"ftyp"
        try:
            with LIBAV:
                container = av.open(
                    file,
                    "r",
                    metadata_errors="ignore",
                    options={"max_pixels": str(MAX_PIXELS_TO_LOOK_AT)},
                    container_options=DEMUXING,
                )
        except av.FFmpegError as error:
            if begins_as_mp4:
                raise BadVideo(
                    "open",
                    Code.TRUNCATED,
                    "it begins as an mp4, but its index is missing or damaged",
                ) from None
            raise BadVideo(
                "open", Code.NOT_A_VIDEO, f"no container that libav knows ({error.strerror})"
            ) from None
        with container:
            yield container, video_stream(container)


def start_us(container: InputContainer, stream: VideoStream) -> int:
    """When a container starts, in microseconds: its times are counted from there.

    That is where its first stream starts; of recordings, the first that is used, as with ffmpeg:
    the video and all sound.
    """
    if not container.format.flags & TIMES_MAY_JUMP:
        return container.start_time or 0
    starts = [
        round(used.start_time * used.time_base * 1_000_000)
        for used in (stream, *container.streams.audio)
        if used.start_time is not None and used.time_base
    ]
    return min(starts, default=container.start_time or 0)


def read_packets(container: InputContainer, stream: VideoStream) -> Iterator[VideoPacket]:
    """The packets of a stream from where the container is, to where it cannot be read further.

    Where the clock of a recording starts again, as where MPEG-TS files were joined, times go on
    without the jump. In other containers times that jump farther than :data:`FARTHEST_S` are taken
    away, so that one wrong bit does not have a frame repeated for years.

    Raises:
        BadVideo: they are encrypted (stage ``decode``).
        VideoError: the source could not be read (stage ``read``).
    """
    packets = container.demux(stream)
    has_times = not container.format.flags & NO_TIMES
    farthest = int(FARTHEST_S / stream.time_base) if stream.time_base else sys.maxsize
    clock = Clock(stream) if container.format.flags & TIMES_MAY_JUMP else None
    last = None
    while True:
        try:
            with LIBAV:
                packet = next(packets, None)
        except av.FFmpegError:
            return
        if packet is None or (packet.dts is None and not packet.size):
            return
        if packet.size:  # given to the decoder, an empty packet would mean the end
            if packet.has_sidedata("encryption_info"):
                raise BadVideo("decode", Code.ENCRYPTED, "the video is encrypted")
            if not has_times:
                packet.pts = packet.dts = None
            if clock is not None:
                clock.mend(packet)
            _drop_absurd_times(packet, last, farthest)
            if packet.dts is not None or packet.pts is not None:
                last = packet.pts if packet.dts is None else packet.dts
            yield packet


class Clock:
    """Takes the jumps out of a stream's times, as ffmpeg's ``ts_discontinuity_detect`` does; that
    looks at the audio, too, so that it may find a jump some milliseconds shorter or longer."""

    def __init__(self, stream: VideoStream) -> None:
        """Begin with a stream's first packet."""
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        self._time_base = stream.time_base or Fraction(1, 1)
        self._frame_us = round(1_000_000 / rate)
        self._offset = 0
        self._last_us: int | None = None
        self._next_us = 0

    def mend(self, packet: VideoPacket) -> None:
        """Shift a packet's times to where those before it lead."""
        _shift(packet, self._offset)
        if packet.dts is not None:
            dts_us = self._in_us(packet.dts)
            if self._last_us is not None:
                jump_us = dts_us - self._next_us
                back_us = self._last_us - dts_us
                if abs(jump_us) > MAX_GAP_US or back_us > MAX_STEP_BACK_US:
                    jump = round(Fraction(jump_us, 1_000_000) / self._time_base)
                    self._offset -= jump
                    _shift(packet, -jump)
                    dts_us = self._in_us(packet.dts)
            self._last_us = self._next_us = dts_us
        duration = packet.duration or 0
        self._next_us += self._in_us(duration) if duration else self._frame_us

    def _in_us(self, time: int) -> int:
        return round(time * self._time_base * 1_000_000)


def _shift(packet: VideoPacket, by: int) -> None:
    if by and packet.dts is not None:
        packet.dts += by
    if by and packet.pts is not None:
        packet.pts += by


def _drop_absurd_times(packet: VideoPacket, last: int | None, farthest: int) -> None:
    """Take from a packet the times that are too far from the last, and too long a duration."""
    if packet.duration is not None and packet.duration > farthest:
        packet.duration = 0
    if last is None:
        return
    if packet.dts is not None and abs(packet.dts - last) > farthest:
        packet.dts = None
    if packet.pts is not None and abs(packet.pts - last) > farthest:
        packet.pts = None


def video_stream(container: InputContainer) -> VideoStream:
    """The stream that ffmpeg would choose, ready for decoding on this thread.

    Raises:
        BadVideo: there is none that can be decoded (stage ``open``).
    """
    streams = [s for s in container.streams.video if not int(s.disposition) & ATTACHED_PICTURE]
    if not streams:
        raise BadVideo("open", Code.NO_VIDEO_STREAM, "the file has no video stream")
    stream = max(streams, key=_score)
    codec = stream.codec_context
    if codec is None:
        raise BadVideo("open", Code.NO_DECODER, "there is no decoder for the video stream")
    if codec.width * codec.height > MAX_PIXELS:
        size = f"{codec.width}x{codec.height}"
        raise BadVideo("open", Code.TOO_LARGE, f"{size} is more than {MAX_PIXELS} pixels a frame")
    codec.options = {"max_pixels": str(MAX_PIXELS)}  # also where the size changes in mid-stream
    codec.thread_count = 1  # threads cost CPU and save none: videos are decoded side by side
    codec.thread_type = "NONE"
    return stream


def _score(stream: VideoStream) -> int:
    """How much ffmpeg prefers a stream. That libav knows the pixel format stands for packets."""
    codec = stream.codec_context
    if codec is None:
        return 0
    return (
        codec.width * codec.height
        + DEFAULT_BONUS * (int(stream.disposition) & 1)
        + PACKETS_BONUS * (codec.pix_fmt is not None)
    )
