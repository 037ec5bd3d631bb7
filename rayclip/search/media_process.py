"""Processes that decode and cut videos: if one crashes or hangs, nothing else is lost."""

from __future__ import annotations

import io
import os
import queue
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rayclip.errors import UsageError, VideoError
from rayclip.io.child_process import start_child
from rayclip.io.crash_log import CrashLog, Death, take_death, unrecorded_death
from rayclip.media.clips import cut
from rayclip.media.frames_at import frames_at
from rayclip.media.image_folder import as_source
from rayclip.media.watchdog import LIBAV

MAX_SILENCE_S = 60.0  # for a picture or a clip: a person is waiting
JPEG_QUALITY = 80


class MediaRequest(Protocol):
    """Something to do with a file of pictures, in a process of its own."""

    @property
    def video(self) -> str:
        """The file: a local path or an fsspec URL."""
        ...

    def answer(self, send: Callable[[Any], None]) -> None:
        """Do it, in that process.

        Args:
            send: takes a part of the answer.

        Raises:
            VideoError, UsageError, OSError: why it failed.
        """
        ...


class Part(NamedTuple):
    """A part of an answer."""

    value: Any


@dataclass(frozen=True)
class PictureRequest:
    """Pictures of one video.

    Attributes:
        video: a local path or an fsspec URL; a folder of frames ends in a slash.
        times_ms: when they are shown, in ms from the container's start.
        extraction_fps: of the extraction that has these times.
        size: the longest side of a picture in pixels.
        storage_options: passed to fsspec for a URL.
        frames_fps: the rate of its images, if it is a folder of frames.
    """

    video: str
    times_ms: tuple[float, ...]
    extraction_fps: Fraction | None
    size: int
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    frames_fps: Fraction = Fraction(1)

    def answer(self, send: Callable[[Any], None]) -> None:
        """Send pairs of a time and the bytes of a JPEG file."""
        source = as_source(self.video, self.frames_fps)
        frames = frames_at(source, self.times_ms, self.extraction_fps, self.storage_options)
        for time_ms, rgb in frames:
            send((time_ms, as_jpeg(rgb, self.size)))


@dataclass(frozen=True)
class ClipRequest:
    """A part of a video.

    Attributes:
        video: a local path or an fsspec URL; a folder of frames ends in a slash.
        start_s: in seconds from the container's start.
        end_s: when the first picture after the part is shown.
        destination: the local mp4 file to write.
        storage_options: passed to fsspec for a URL.
        frames_fps: the rate of its images, if it is a folder of frames.
    """

    video: str
    start_s: float
    end_s: float
    destination: str
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    frames_fps: Fraction = Fraction(1)

    def answer(self, send: Callable[[Any], None]) -> None:
        """Write it."""
        source = as_source(self.video, self.frames_fps)
        cut(source, self.destination, self.start_s, self.end_s, self.storage_options)


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
    _crash_log: str

    def decode(self, request: PictureRequest) -> Pictures:
        """Decode pictures; what was decoded before a failure is kept."""
        parts: list[tuple[float, bytes]] = []
        error = self.exchange(request, parts.append)
        return Pictures(dict(parts), error)

    def cut(self, request: ClipRequest) -> str | None:
        """Write a clip; returns why that failed."""
        return self.exchange(request, lambda part: None)

    def exchange(self, request: MediaRequest, receive: Callable[[Any], object]) -> str | None:
        """Send a request, and receive the parts of its answer; returns what went wrong."""
        try:
            self.start()
            self._connection.send(request)
            while self._connection.poll(MAX_SILENCE_S):
                match self._connection.recv():
                    case Part(value):
                        receive(value)
                    case str(error):
                        return error
                    case _:
                        return None
        except (EOFError, OSError):
            return f"the process that decoded it died: {self.close().reason}"
        self.close()
        return f"decoding made no progress for {MAX_SILENCE_S:.0f} s"

    @property
    def is_started(self) -> bool:
        """Whether it was started and has not died during a request since."""
        return self._process is not None

    def start(self) -> None:
        """Start the process, unless it is started; it needs a moment to import libav."""
        if self._process is None:
            child = start_child("rayclip.search.media_process", "media", is_quiet=True)
            self._process, self._connection, self._crash_log = child

    def close(self) -> Death:
        """End the process at once if it has not ended, and return how it died."""
        if self._process is None:
            return unrecorded_death(None)
        self._connection.close()
        self._process.kill()
        self._process.wait()
        self._process = None
        return take_death(self._crash_log)


class MediaPool:
    """Processes for requests from several threads. A video that killed one gets no other."""

    def __init__(self, processes: int) -> None:
        """Prepare; nothing is started.

        Args:
            processes: how many requests are answered at once.
        """
        self._processes = [MediaProcess() for _ in range(processes)]
        self._free: queue.SimpleQueue[MediaProcess] = queue.SimpleQueue()
        self._deadly: dict[tuple[str, int, int], str] = {}
        for process in self._processes:
            self._free.put(process)

    def exchange(self, request: MediaRequest, receive: Callable[[Any], object]) -> str | None:
        """Send a request as soon as a process is free; see :meth:`MediaProcess.exchange`."""
        video = request.video, *file_state(request.video)
        process = self._free.get()
        try:
            if video in self._deadly:
                return self._deadly[video]
            error = process.exchange(request, receive)
            if error is not None and not process.is_started:
                self._deadly[video] = error
            return error
        finally:
            self._free.put(process)

    def start(self) -> None:
        """Start all processes now, rather than by their first requests."""
        for process in self._processes:
            process.start()

    def close(self) -> None:
        """End the processes; running requests fail."""
        for process in self._processes:
            process.close()


def file_state(file: str) -> tuple[int, int]:
    """The size of a local file, and when it was changed; zeros for a URL, and if it is gone."""
    try:
        status = os.stat(file)
    except (OSError, ValueError):
        return 0, 0
    return status.st_size, status.st_mtime_ns


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


def _answer(request: MediaRequest, connection: Connection) -> str | None:
    """Do what is asked; returns what went wrong."""
    try:
        with LIBAV.watching(request.video):
            request.answer(lambda part: connection.send(Part(part)))
    except VideoError as error:
        return error.message
    except UsageError as error:
        return str(error)
    except OSError as error:
        return f"{error.strerror or error}"
    return None


def as_jpeg(rgb: NDArray[np.uint8], size: int) -> bytes:
    """Return a JPEG file of a picture whose longest side is at most ``size`` pixels."""
    picture = Image.fromarray(rgb)
    picture.thumbnail((size, size))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()
