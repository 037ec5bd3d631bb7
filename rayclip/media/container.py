"""Open a container, select its video stream as ffmpeg does, and read its packets."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import av
from av.container import InputContainer
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from rayclip.errors import BadVideo, Code
from rayclip.io.remote import BLOCK_BYTES
from rayclip.media.keyframes import VideoPacket
from rayclip.media.source import NO_OTHER_FILES, VideoSource, open_reader
from rayclip.media.watchdog import LIBAV

MAX_PIXELS = 8192 * 8192
MAX_PROBE_PIXELS = 2 * MAX_PIXELS  # while opening, libav may decode a picture to learn its size
ATTACHED_PICTURE = 0x400  # libavformat's AV_DISPOSITION_ATTACHED_PIC
MAX_TIME_JUMP_S = 30 * 3600  # a longer jump of a packet's times is damage, as in ffmpeg
NO_TIMESTAMPS = 0x80  # libavformat's AVFMT_NOTIMESTAMPS: raw streams, whose times it makes up
MAY_BE_DISCONTINUOUS = 0x200  # libavformat's AVFMT_TS_DISCONT: recordings whose clock may restart
MAX_GAP_US, MAX_STEP_BACK_US = 10_000_000, 100_000  # of such a clock; more is a jump
DEFAULT_BONUS = 5_000_000  # added by ffmpeg's stream selection for AV_DISPOSITION_DEFAULT
PACKETS_BONUS = 100_000_000  # and for a stream of which libav read packets while probing
DEMUXER_OPTIONS = {
    **NO_OTHER_FILES,
    "fflags": "-genpts",  # PyAV asks for generated timestamps; ffmpeg does not use those
}


@contextmanager
def open_stream(
    source: VideoSource, storage_options: Mapping[str, Any], block_bytes: int = BLOCK_BYTES
) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a video for one read; its stream is ready for decoding on this thread.

    Args:
        source: a local path, an fsspec URL or a binary file object.
        storage_options: passed to fsspec for URLs.
        block_bytes: how much of a remote file is requested at a time.

    Raises:
        BadVideo: not a decodable video (stage ``open``).
        VideoError: the source could not be read (stage ``read``).
    """
    with open_reader(source, storage_options, LIBAV.report_progress, block_bytes) as file:
        starts_like_mp4 = file.peek(8)[4:] == b"ftyp"
        try:
            with LIBAV:
                container = av.open(
                    file,
                    "r",
                    metadata_errors="ignore",
                    options={"max_pixels": str(MAX_PROBE_PIXELS)},
                    container_options=DEMUXER_OPTIONS,
                )
        except av.FFmpegError as error:
            if starts_like_mp4:
                raise BadVideo(
                    "open",
                    Code.TRUNCATED,
                    "it starts like an mp4, but its index is missing or damaged",
                ) from None
            raise BadVideo(
                "open", Code.NOT_A_VIDEO, f"not a container that libav knows ({error.strerror})"
            ) from None
        with container:
            yield container, select_video_stream(container)


def start_us(container: InputContainer, stream: VideoStream) -> int:
    """A container's start time in microseconds; output times count from it.

    This is the start of its first stream. In recordings only the selected video and all audio
    streams count, as in ffmpeg.
    """
    if not container.format.flags & MAY_BE_DISCONTINUOUS:
        return container.start_time or 0
    starts = [
        round(used.start_time * used.time_base * 1_000_000)
        for used in (stream, *container.streams.audio)
        if used.start_time is not None and used.time_base
    ]
    return min(starts, default=container.start_time or 0)


def read_packets(container: InputContainer, stream: VideoStream) -> Iterator[VideoPacket]:
    """Yield the packets of a stream from the current position, until no more can be read.

    If the clock of a recording restarts, as in joined MPEG-TS files, times continue without the
    jump. In other containers, times that jump by more than :data:`MAX_TIME_JUMP_S` are dropped.
    Otherwise one flipped bit could repeat a frame for years of output.

    Raises:
        BadVideo: the packets are encrypted (stage ``decode``).
        VideoError: the source could not be read (stage ``read``).
    """
    packets = container.demux(stream)
    has_times = not container.format.flags & NO_TIMESTAMPS
    max_jump = int(MAX_TIME_JUMP_S / stream.time_base) if stream.time_base else sys.maxsize
    clock = JumpRemover(stream) if container.format.flags & MAY_BE_DISCONTINUOUS else None
    last = None
    while True:
        try:
            with LIBAV:
                packet = next(packets, None)
        except av.FFmpegError:
            return
        if packet is None or (packet.dts is None and not packet.size):
            return
        if packet.size:  # a decoder takes an empty packet for the end of the stream
            if packet.has_sidedata("encryption_info"):
                raise BadVideo("decode", Code.ENCRYPTED, "the video is encrypted")
            if not has_times:
                packet.pts = packet.dts = None
            if clock is not None:
                clock.correct(packet)
            _drop_implausible_times(packet, last, max_jump)
            if packet.dts is not None or packet.pts is not None:
                last = packet.pts if packet.dts is None else packet.dts
            yield packet


class JumpRemover:
    """Removes jumps from a stream's times, as ffmpeg's ``ts_discontinuity_detect`` does.

    ffmpeg considers the audio, too, so a jump may differ from ffmpeg's by some milliseconds.
    """

    def __init__(self, stream: VideoStream) -> None:
        """Prepare for a stream's first packet."""
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        self._time_base = stream.time_base or Fraction(1, 1)
        self._frame_us = round(1_000_000 / rate)
        self._offset = 0
        self._last_us: int | None = None
        self._next_us = 0

    def correct(self, packet: VideoPacket) -> None:
        """Shift a packet's times so that they continue those of earlier packets."""
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


def _drop_implausible_times(packet: VideoPacket, last: int | None, max_jump: int) -> None:
    """Remove times that are too far from the last packet's, and a duration that is too long."""
    if packet.duration is not None and packet.duration > max_jump:
        packet.duration = 0
    if last is None:
        return
    if packet.dts is not None and abs(packet.dts - last) > max_jump:
        packet.dts = None
    if packet.pts is not None and abs(packet.pts - last) > max_jump:
        packet.pts = None


def select_video_stream(container: InputContainer) -> VideoStream:
    """The stream that ffmpeg would select, ready for decoding on this thread.

    Raises:
        BadVideo: no video stream can be decoded (stage ``open``).
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
    codec.options = {"max_pixels": str(MAX_PIXELS)}  # the size may also change in mid-stream
    codec.thread_count = 1  # threads only add CPU time: videos are decoded in parallel anyway
    codec.thread_type = "NONE"
    return stream


def _score(stream: VideoStream) -> int:
    """ffmpeg's preference for a stream. A known pixel format means that packets were read."""
    codec = stream.codec_context
    if codec is None:
        return 0
    return (
        codec.width * codec.height
        + DEFAULT_BONUS * (int(stream.disposition) & 1)
        + PACKETS_BONUS * (codec.pix_fmt is not None)
    )


def no_frames_error(container: InputContainer, codec: VideoCodecContext) -> BadVideo:
    """Why no frame of a stream could be decoded."""
    if container.format.name == "webp_pipe":
        return BadVideo(
            "decode",
            Code.ANIMATED_WEBP,
            "this is an animated WebP, which libav cannot decode: make a video or a GIF of it",
        )
    if not codec.width:
        return BadVideo(
            "decode",
            Code.NO_SIZE,
            "no frame could be decoded: the video stream has no size, or one of more than "
            f"{MAX_PIXELS} pixels a frame",
        )
    return BadVideo("decode", Code.NO_FRAMES, "no frame could be decoded")
