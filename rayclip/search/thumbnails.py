"""Pictures of moments: decoded when they are needed, and cached on the local disk."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

from rayclip.search.cache import cache_folder
from rayclip.search.media_process import MediaPool, PictureRequest, Pictures, file_state

CACHE_VERSION = 1  # increased whenever the same request gives another picture


class Thumbnails:
    """Decodes pictures in processes of their own. It can be called from several threads."""

    def __init__(
        self,
        extraction_fps: Fraction | None,
        size: int,
        storage_options: Mapping[str, Any],
        pool: MediaPool,
        cache: Path | None = None,
        frames_fps: Fraction = Fraction(1),
    ) -> None:
        """Prepare; nothing is started.

        Args:
            extraction_fps: of the run whose times are asked for.
            size: the longest side of a picture in pixels.
            storage_options: passed to fsspec for URLs.
            pool: the processes; whoever made it closes it.
            cache: the folder of the cache; None takes one below
                :func:`~rayclip.search.cache.cache_folder`.
            frames_fps: of the run, for folders of frames.
        """
        self._frames_fps = frames_fps
        self._fps = extraction_fps
        self._size = size
        self._storage_options = storage_options
        self._cache = cache or cache_folder() / "thumbnails"
        self._pool = pool

    def get(self, video: str, times_ms: Sequence[float]) -> Pictures:
        """Return pictures of a video: from the cache, else from the video.

        Args:
            video: a local path or an fsspec URL.
            times_ms: as in the files of the run.
        """
        cached = {time: content for time in times_ms if (content := self.cached(video, time))}
        missing = tuple(time for time in times_ms if time not in cached)
        if not missing:
            return Pictures(cached)
        request = PictureRequest(
            video, missing, self._fps, self._size, self._storage_options, self._frames_fps
        )
        decoded: list[tuple[float, bytes]] = []
        error = self._pool.exchange(request, decoded.append)
        for time, content in decoded:
            _write(self._file(video, time), content)
        return Pictures({**cached, **dict(decoded)}, error)

    def cached(self, video: str, time_ms: float) -> bytes | None:
        """Return a picture from the cache; None if it is not there."""
        return _read(self._file(video, time_ms))

    def _file(self, video: str, time_ms: float) -> Path:
        """The cached file of a picture; another one if the video has changed."""
        identity = [CACHE_VERSION, video, *file_state(video), self._fps, self._size, time_ms]
        identity += [self._frames_fps] if video.endswith("/") else []
        content = "\0".join(map(str, identity)).encode("utf-8", "surrogateescape")
        digest = hashlib.blake2b(content, digest_size=16).hexdigest()
        return self._cache / digest[:2] / f"{digest}.jpg"


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
