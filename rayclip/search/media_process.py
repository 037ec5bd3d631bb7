"""A process that decodes and cuts videos: one that crashes or hangs it costs nothing else."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rayclip.errors import VideoError
from rayclip.io.crash_log import CrashLog, take_death
from rayclip.media.clips import cut
from rayclip.media.frames_at import frames_at
from rayclip.media.watchdog import LIBAV

MAX_SILENCE_S = 60.0  # for a picture or a clip: a person is waiting
JPEG_QUALITY = 80

PROGRAM = """
import sys
sys.path[:] = {path!r}
from rayclip.search.media_process import main
main({descriptor}, {crash_log!r})
"""


@dataclass(frozen=True)
class PictureRequest:
    """Pictures of one video.

    Attributes:
        video: a local path or an fsspec URL.
        times_ms: when they are shown, in ms from the container's start.
        extraction_fps: of the extraction that has these times.
        size: the longest side of a picture in pixels.
        storage_options: passed to fsspec for a URL.
    """

    video: str
    times_ms: tuple[float, ...]
    extraction_fps: Fraction | None
    size: int
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class ClipRequest:
    """A part of a video.

    Attributes:
        video: a local path or an fsspec URL.
        start_s: in seconds from the container's start.
        end_s: when the first picture after the part is shown.
        destination: the local mp4 file to write.
        storage_options: passed to fsspec for a URL.
    """

    video: str
    start_s: float
    end_s: float
    destination: str
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Pictures:
    """The pictures of a video.

    Attributes:
        jpegs: the bytes of JPEG files, by time in ms; times that could not be decoded are missing.
        error: why some are missing; None if none is, or the video shows nothing then.
    """

    jpegs: dict[float, bytes]
    error: str | None = None


class MediaProcess:
    """The other end of the process. It is started by the first request, and again after a death."""

    _process: subprocess.Popen[bytes] | None = None
    _connection: Connection

    def decode(self, request: PictureRequest) -> Pictures:
        """Decode pictures; what was decoded before a failure is kept."""
        jpegs: dict[float, bytes] = {}
        return Pictures(jpegs, self._exchange(request, jpegs))

    def cut(self, request: ClipRequest) -> str | None:
        """Write a clip; returns why that failed."""
        return self._exchange(request, {})

    def _exchange(
        self, request: PictureRequest | ClipRequest, jpegs: dict[float, bytes]
    ) -> str | None:
        """Send a request, and receive pictures until its end; returns what went wrong."""
        try:
            if self._process is None:
                self._start()
            self._connection.send(request)
            while self._connection.poll(MAX_SILENCE_S):
                match self._connection.recv():
                    case (float(time_ms), bytes(jpeg)):
                        jpegs[time_ms] = jpeg
                    case str(error):
                        return error
                    case _:
                        return None
        except (EOFError, OSError):
            self.close()
            return f"the process that decoded it died: {take_death(self._crash_log).reason}"
        self.close()
        return f"decoding made no progress for {MAX_SILENCE_S:.0f} s"

    def close(self) -> None:
        """End the process at once."""
        if self._process is not None:
            self._connection.close()
            self._process.kill()
            self._process.wait()
            self._process = None

    def _start(self) -> None:
        name = f"rayclip-media-{uuid.uuid4().hex}"
        self._crash_log = os.path.join(tempfile.gettempdir(), name)
        self._connection, other_end = Pipe()
        descriptor = other_end.fileno()
        program = PROGRAM.format(path=sys.path, descriptor=descriptor, crash_log=self._crash_log)
        with other_end:
            self._process = subprocess.Popen(
                [sys.executable, "-c", program],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # libav's complaints about a video
                pass_fds=[descriptor],
                start_new_session=True,  # the terminal's signals are for the command
            )


def main(descriptor: int, crash_log: str) -> NoReturn:
    """Decode pictures for the process at the other end of a connection until it closes that.

    Args:
        descriptor: of the connection's socket.
        crash_log: path of the log that says how this process died.
    """
    log = CrashLog(crash_log)
    connection = Connection(descriptor)
    with suppress(EOFError, OSError):
        while True:
            request = connection.recv()
            with log.tracking(request.video):
                connection.send(_answer(request, connection))
    log.close()
    os._exit(0)


def _answer(request: PictureRequest | ClipRequest, connection: Connection) -> str | None:
    """Do what is asked; returns what went wrong."""
    try:
        with LIBAV.watching(request.video):
            if isinstance(request, ClipRequest):
                cut(
                    request.video,
                    request.destination,
                    request.start_s,
                    request.end_s,
                    request.storage_options,
                )
            else:
                _send_pictures(request, connection)
    except VideoError as error:
        return error.message
    except OSError as error:
        return f"{error.strerror or error}"
    return None


def _send_pictures(request: PictureRequest, connection: Connection) -> None:
    frames = frames_at(
        request.video, request.times_ms, request.extraction_fps, request.storage_options
    )
    for time_ms, rgb in frames:
        connection.send((time_ms, as_jpeg(rgb, request.size)))


def as_jpeg(rgb: NDArray[np.uint8], size: int) -> bytes:
    """Return a JPEG file of a picture whose longest side is at most ``size`` pixels."""
    picture = Image.fromarray(rgb)
    picture.thumbnail((size, size))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()
