"""Write small test videos, and find the folder of the real ones.

Most frames of the small ones are a flat grey that encodes their number.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from numpy.typing import NDArray

Rgb = NDArray[np.uint8]

SHARED_DATA = Path(
    os.environ.get("RAYCLIP_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")
)

GREY_STEP = 8
"""Grey levels per number: more than a codec's error on a flat grey."""
MAX_NUMBERS = 31


def numbered_frame(number: int, width: int = 64, height: int = 48) -> Rgb:
    """A flat picture whose grey level encodes its number modulo :data:`MAX_NUMBERS`."""
    level = GREY_STEP * (1 + number % MAX_NUMBERS)
    return np.full((height, width, 3), level, np.uint8)


def numbered_frames(count: int, width: int = 64, height: int = 48) -> list[Rgb]:
    return [numbered_frame(number, width, height) for number in range(count)]


def textured_frames(count: int, width: int = 96, height: int = 64) -> list[Rgb]:
    """Pictures that all differ: moving coarse noise under a patch of fine noise."""
    rng = np.random.default_rng(count)
    coarse = rng.integers(0, 200, (height // 4, width // 4, 3), dtype=np.uint8)
    ground = coarse.repeat(4, axis=0).repeat(4, axis=1)
    frames = []
    for number in range(count):
        frame = np.roll(ground, (number, 2 * number), axis=(0, 1))
        frame[8:24, 8:24] += rng.integers(0, 56, (16, 16, 3), dtype=np.uint8)
        frames.append(frame)
    return frames


def number_of(rgb: Rgb) -> int:
    """The number of a decoded :func:`numbered_frame`."""
    return round(float(rgb.mean()) / GREY_STEP) - 1


def write_video(
    path: Path,
    frames: Sequence[Rgb],
    *,
    fps: int | Fraction = 10,
    codec: str = "mpeg4",
    pix_fmt: str = "yuv420p",
    container: str | None = None,
    options: dict[str, str] | None = None,
    muxing: dict[str, str] | None = None,
    times_ms: Sequence[int] | None = None,
    silence_ms: int = 0,
    orientation: dict[str, Any] | None = None,
) -> Path:
    """Write a video and return its path.

    Args:
        path: its suffix determines the container unless ``container`` is given.
        frames: uint8 ``[height, width, 3]``, all of one size.
        fps: the frame rate.
        codec: an encoder of libav.
        pix_fmt: a pixel format of that encoder.
        container: a muxer of libav.
        options: for the encoder.
        muxing: options for the muxer.
        times_ms: when each frame is shown, if not at a constant rate from zero.
        silence_ms: length of a silent audio track that starts at zero; 0 for none.
        orientation: keywords of PyAV's ``set_display_rotation``.
    """
    height, width = frames[0].shape[:2]
    with av.open(str(path), "w", format=container, options=muxing or {}) as output:
        stream: Any = output.add_stream(codec, Fraction(fps), options=options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        if times_ms is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if orientation is not None:
            stream.set_display_rotation(**orientation)
        if silence_ms:
            _write_silence(output, silence_ms)
        for number, rgb in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            if times_ms is not None:
                frame.pts, frame.time_base = times_ms[number], Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


def write_sound(path: Path, codec: str, *, cover: bool = False) -> Path:
    """Write a tenth of a second of silence, with or without a cover picture."""
    with av.open(str(path), "w") as output:
        sound: Any = output.add_stream(codec, 44_100, layout="stereo")
        if cover:
            picture = output.add_stream("mjpeg", pix_fmt="yuvj420p", width=64, height=48)
            picture.disposition = Disposition.attached_pic
            image = av.VideoFrame.from_ndarray(numbered_frame(7), format="rgb24")
            image.pts = 0
            output.mux(picture.encode(image) + picture.encode())
        for frame in _silent_frames(100, 44_100):
            output.mux(sound.encode(frame))
        output.mux(sound.encode())
    return path


def _write_silence(output: av.container.OutputContainer, milliseconds: int) -> None:
    sound = output.add_stream("pcm_s16le", 8_000, layout="mono")
    for frame in _silent_frames(milliseconds, 8_000, "s16", "mono"):
        output.mux(sound.encode(frame))
    output.mux(sound.encode())


def _silent_frames(
    milliseconds: int, rate: int, sample_format: str = "fltp", layout: str = "stereo"
) -> Iterable[av.AudioFrame]:
    for start in range(0, milliseconds * rate // 1000, 1024):
        frame = av.AudioFrame(sample_format, layout, 1024)
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        frame.sample_rate, frame.pts = rate, start
        frame.time_base = Fraction(1, rate)
        yield frame


def hide_beginning(path: Path, to: Path, pictures: int) -> Path:
    """Copy a video with an edit list that hides the first pictures, as editors trim losslessly."""
    options = {"avoid_negative_ts": "disabled"}
    with av.open(str(path)) as whole, av.open(str(to), "w", options=options) as output:
        source = whole.streams.video[0]
        stream = output.add_stream_from_template(source)
        for packet in whole.demux(source):
            if packet.size:
                assert packet.pts is not None
                assert packet.dts is not None
                assert packet.duration is not None
                packet.pts -= pictures * packet.duration
                packet.dts -= pictures * packet.duration
                packet.stream = stream
                output.mux_one(packet)
    return to


def remux(path: Path, to: Path, change: Callable[[int, bytes], bytes | None]) -> Path:
    """Copy a video with changed packets; None drops a packet."""
    with av.open(str(path)) as whole, av.open(str(to), "w") as output:
        source = whole.streams.video[0]
        stream = output.add_stream_from_template(source)
        for number, packet in enumerate(whole.demux(source)):
            content = change(number, bytes(packet)) if packet.size else None
            if content is None:
                continue
            copy = av.Packet(content)
            copy.pts, copy.dts, copy.duration = packet.pts, packet.dts, packet.duration
            copy.time_base, copy.is_keyframe = packet.time_base, packet.is_keyframe
            copy.stream = stream
            output.mux_one(copy)
    return to


def missing(folder: Path) -> Path:
    return folder / "nowhere.mp4"


def an_empty_file(folder: Path) -> Path:
    path = folder / "empty.mp4"
    path.touch()
    return path


def a_folder(folder: Path) -> Path:
    return folder
