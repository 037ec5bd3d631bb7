"""Ways from a video to the inputs of CLIP ("squares"): rayclip's and those of other packages.

A way yields one square per output frame; a frame at several ticks yields the same array again.
Every way decodes on one thread, since threads do not save CPU time. Only x264, in
:func:`reference`, uses ffmpeg's default number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from importlib import import_module
from itertools import chain, groupby, pairwise, repeat
from math import ceil, floor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import av
import av.filter
import numpy as np
from av.container import OutputContainer
from av.video.frame import PictureType
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image

from rayclip.media.container import select_video_stream
from rayclip.media.frame_choice import FrameChoice
from rayclip.media.frames import open_selected
from rayclip.media.orientation import upright_rgb
from rayclip.model import preprocess
from rayclip.model.preprocess import Resizing, placement, resize

Square = NDArray[np.uint8]
"""uint8 ``[224, 224, 3]``, not yet normalised."""
Squares = Iterator[Square]
Rate = Fraction | None
"""Output frames per second; None for every frame of the video."""

N_PX = 224
RESIZING = Resizing(N_PX)
HALF = Fraction(1, 2)
CHUNK_FRAMES = 16  # for packages that return many frames at once: 100 MB at 1920x1080


@dataclass(frozen=True)
class Way:
    """A way and its requirements.

    Attributes:
        squares: yields the squares of a video at a rate.
        packages: modules to import; ``prepare`` fails if one is missing.
    """

    squares: Callable[[Path, Rate], Squares]
    packages: tuple[str, ...] = ()

    def prepare(self) -> None:
        """The one-time work of a worker: import packages and resize a first picture."""
        for package in self.packages:
            module = import_module(package)
            for limit in ("set_num_threads", "setNumThreads"):  # of torch, of OpenCV
                getattr(module, limit, lambda _: None)(1)
        resize(np.full((2 * N_PX, 2 * N_PX, 3), 128, np.uint8), RESIZING)


def rayclip(path: Path, rate: Rate) -> Squares:
    """The steps of rayclip's decoder before it sends squares to an encoder."""
    with open_selected(path, FrameChoice(rate)) as wanted:
        for shown in wanted.frames:
            square = resize(shown.rgb(), RESIZING)
            yield from repeat(square, len(shown.timestamps_ms))


def rayclip_by_pillow(path: Path, rate: Rate) -> Squares:
    """rayclip without its C library, as with ``RAYCLIP_NO_EXTENSION``."""
    with patch.object(preprocess, "is_available", lambda: False):
        yield from rayclip(path, rate)


def plain_square(rgb: NDArray[np.uint8]) -> Square:
    """OpenAI's preprocessing, used by all but rayclip: resize the whole picture, then crop."""
    box = placement(rgb.shape[1], rgb.shape[0], RESIZING)
    image = Image.fromarray(rgb).resize((box.width, box.height), Image.Resampling.BICUBIC)
    return np.asarray(image.crop((box.left, box.top, box.left + N_PX, box.top + N_PX)))


def everything(path: Path, rate: Rate) -> Squares:
    """Decode every frame; convert and resize those that rayclip would select."""
    with av.open(str(path)) as container:
        stream = select_video_stream(container)
        frames = container.decode(stream)
        if rate is None:
            shown: Iterator[tuple[Any, int]] = ((frame, 1) for frame in frames)
        else:
            ticks_per_unit = Fraction(stream.time_base or 0) * rate
            start = round(Fraction(container.start_time or 0, av.time_base) / stream.time_base)
            shown = _select(frames, lambda pts: floor((pts - start) * ticks_per_unit + HALF))
        for frame, times in shown:
            yield from repeat(plain_square(upright_rgb(frame)), times)


def _select(frames: Iterator[Any], nearest_tick: Callable[[int], int]) -> Iterator[tuple[Any, int]]:
    """The frames that are the last one at or before a tick, and the number of such ticks."""
    for frame, following in pairwise(chain(frames, [None])):
        end = frame.pts + frame.duration if following is None else following.pts
        times = nearest_tick(end) - nearest_tick(frame.pts)
        if times > 0:
            yield frame, times


def reference(path: Path, rate: Rate) -> Squares:
    """What video_features does: re-encode at the rate with ffmpeg, and read the copy with OpenCV.

    Audio is skipped, which ffmpeg would encode as well.
    """
    if rate is None:
        yield from _read_all(path)
        return
    with TemporaryDirectory() as folder:
        copy = Path(folder) / "copy.mp4"
        with av.open(str(copy), "w") as output:
            _reencode(path, rate, output)
        yield from _read_all(copy)


def _reencode(path: Path, rate: Fraction, output: OutputContainer) -> None:
    """``ffmpeg -i path -filter:v fps=fps=rate output``."""
    with av.open(str(path)) as container:
        stream = select_video_stream(container)
        encoder = av.Codec("libx264", "w")
        known_formats = "|".join(known.name for known in encoder.video_formats or ())
        graph = av.filter.Graph()
        graph.link_nodes(
            graph.add_buffer(template=stream),
            graph.add("fps", f"fps={rate}"),
            graph.add("format", known_formats),
            graph.add("buffersink"),
        ).configure()
        target: VideoStream | None = None
        for frame in chain(container.decode(stream), [None]):
            graph.vpush(frame)
            for picture in _pulled(graph):
                target = target or _add_stream(output, picture, rate)
                picture.pict_type = PictureType.NONE  # x264 decides, not the source
                output.mux(target.encode(picture))
        if target is not None:
            output.mux(target.encode())


def _pulled(graph: av.filter.Graph) -> Iterator[av.VideoFrame]:
    """The frames that the graph has ready."""
    while True:
        try:
            yield graph.vpull()
        except (BlockingIOError, EOFError):
            return


def _add_stream(output: OutputContainer, picture: av.VideoFrame, rate: Fraction) -> VideoStream:
    stream = output.add_stream("libx264", rate, options={"crf": "23", "preset": "medium"})
    stream.width, stream.height = picture.width, picture.height
    stream.pix_fmt = picture.format.name
    stream.codec_context.thread_count = 0  # x264's default, as in ffmpeg
    return stream


def opencv(path: Path, rate: Rate) -> Squares:
    """Grab every frame with OpenCV, and retrieve those nearest to the ticks."""
    import cv2

    if rate is None:
        yield from _read_all(path)
        return
    with _capture(path) as capture:
        frames, fps = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), capture.get(cv2.CAP_PROP_FPS)
        grabbed = 0
        for number, times in groupby(nearest_frames(frames, fps, rate)):
            while grabbed <= number:
                if not capture.grab():
                    return
                grabbed += 1
            _, bgr = capture.retrieve()
            yield from repeat(_square_of_bgr(bgr), len(list(times)))


def _read_all(path: Path) -> Squares:
    with _capture(path) as capture:
        while True:
            success, bgr = capture.read()
            if not success:
                return
            yield _square_of_bgr(bgr)


@contextmanager
def _capture(path: Path) -> Iterator[Any]:
    import cv2

    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    try:
        if not capture.isOpened():
            raise ValueError("OpenCV cannot open it")
        yield capture
    finally:
        capture.release()


def _square_of_bgr(bgr: NDArray[np.uint8]) -> Square:
    import cv2

    return plain_square(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))


def torchcodec(path: Path, rate: Rate) -> Squares:
    """Request the frames at the ticks from torchcodec."""
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(str(path), dimension_order="NHWC", num_ffmpeg_threads=1, device="cpu")
    if rate is None:
        for numbers in _chunks(range(len(decoder))):
            yield from _squares(decoder.get_frames_at(list(numbers)).data.numpy())
        return
    start, end = decoder.metadata.begin_stream_seconds, decoder.metadata.end_stream_seconds
    for ticks in _chunks(range(ceil(start * rate), ceil(end * rate))):
        seconds = [float(tick / rate) for tick in ticks]
        yield from _squares(decoder.get_frames_played_at(seconds).data.numpy())


def decord(path: Path, rate: Rate) -> Squares:
    """Request the frames nearest to the ticks from decord."""
    from decord import VideoReader, cpu

    reader = VideoReader(str(path), ctx=cpu(0), num_threads=1)
    frames = len(reader)
    fps = reader.get_avg_fps()
    wanted = range(frames) if rate is None else nearest_frames(frames, fps, rate)
    for numbers in _chunks(wanted):
        yield from _squares(reader.get_batch(list(numbers)).asnumpy())


def nearest_frames(frames: int, fps: float, rate: Fraction) -> list[int]:
    """The number of the frame nearest to each tick, for a video of a constant ``fps``."""
    ticks = max(1, round(frames / fps * rate))
    return [min(round(tick * fps / rate), frames - 1) for tick in range(ticks)]


def _chunks(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    return (numbers[n : n + CHUNK_FRAMES] for n in range(0, len(numbers), CHUNK_FRAMES))


def _squares(rgbs: NDArray[np.uint8]) -> Squares:
    """The squares of pictures: uint8 ``[n, height, width, 3]``."""
    return map(plain_square, rgbs)


RAYCLIP, BY_PILLOW, EVERYTHING, REFERENCE = "rayclip", "by Pillow", "everything", "reference"

WAYS = {
    RAYCLIP: Way(rayclip),
    BY_PILLOW: Way(rayclip_by_pillow),
    EVERYTHING: Way(everything),
    REFERENCE: Way(reference, ("cv2",)),
    "opencv": Way(opencv, ("cv2",)),
    "torchcodec": Way(torchcodec, ("torch", "torchcodec")),
    "decord": Way(decord, ("decord",)),
}
"""Column name -> way."""
