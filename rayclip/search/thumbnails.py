"""Pictures of moments: decoded when they are needed, and cached on the local disk."""

from __future__ import annotations

import hashlib
import os
import queue
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

from rayclip.search.cache import cache_folder
from rayclip.search.media_process import MediaProcess, PictureRequest, Pictures

CACHE_VERSION = 1  # increased whenever the same request gives another picture


class Thumbnails:
    """Decodes pictures in processes of their own. It can be called from several threads."""

    def __init__(
        self,
        extraction_fps: Fraction | None,
        size: int,
        storage_options: Mapping[str, Any],
        processes: int,
        cache: Path | None = None,
    ) -> None:
        """Prepare; nothing is started.

        Args:
            extraction_fps: of the run whose times are asked for.
            size: the longest side of a picture in pixels.
            storage_options: passed to fsspec for URLs.
            processes: how many videos are decoded at once.
            cache: the folder of the cache; None takes one below
                :func:`~rayclip.search.cache.cache_folder`.
        """
        self._fps = extraction_fps
        self._size = size
        self._storage_options = storage_options
        self._cache = cache or cache_folder() / "thumbnails"
        self._processes = [MediaProcess() for _ in range(processes)]
        self._free: queue.SimpleQueue[MediaProcess] = queue.SimpleQueue()
        for process in self._processes:
            self._free.put(process)

    def get(self, video: str, times_ms: Sequence[float]) -> Pictures:
        """Return pictures of a video: from the cache, else from the video.

        Args:
            video: a local path or an fsspec URL.
            times_ms: as in the files of the run.
        """
        files = {time: self._cache / self._key(video, time) for time in times_ms}
        cached = {time: content for time, file in files.items() if (content := _read(file))}
        missing = tuple(time for time in files if time not in cached)
        if not missing:
            return Pictures(cached)
        request = PictureRequest(video, missing, self._fps, self._size, self._storage_options)
        process = self._free.get()
        try:
            decoded = process.decode(request)
        finally:
            self._free.put(process)
        for time, content in decoded.jpegs.items():
            _write(files[time], content)
        return Pictures({**cached, **decoded.jpegs}, decoded.error)

    def close(self) -> None:
        """End the processes; running requests fail."""
        for process in self._processes:
            process.close()

    def __enter__(self) -> Thumbnails:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _key(self, video: str, time_ms: float) -> str:
        """The cached file of a picture; another one if the video has changed."""
        identity = [CACHE_VERSION, video, *_state(video), self._fps, self._size, time_ms]
        content = "\0".join(map(str, identity)).encode("utf-8", "surrogateescape")
        digest = hashlib.blake2b(content, digest_size=16).hexdigest()
        return f"{digest[:2]}/{digest}.jpg"


def _state(video: str) -> tuple[int, int]:
    try:
        status = os.stat(video)
    except (OSError, ValueError):  # a URL, or it is gone
        return 0, 0
    return status.st_size, status.st_mtime_ns


def _read(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except OSError:
        return None


def _write(file: Path, content: bytes) -> None:
    """Write a file of the cache; a cache that cannot be written only costs time."""
    temporary = file.with_name(f".{uuid.uuid4().hex}.tmp")
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        os.replace(temporary, file)
