"""The bytes of videos for a browser: files as they are, and parts that are converted for it."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rayclip.errors import UsageError
from rayclip.media.preview import VideoFacts
from rayclip.search.media_process import MediaPool, file_state
from rayclip.serve.requests import FactsRequest, PreviewRequest

PREVIEW_S = 30.0
MAX_PREVIEWS = 64  # a few megabytes each
MEDIA_TYPES = {
    "mov": "video/mp4",
    "mp4": "video/mp4",
    "matroska": "video/webm",
    "webm": "video/webm",
    "ogg": "video/ogg",
}
OTHER = "application/octet-stream"  # browsers play nothing of it


class CannotShow(Exception):
    """A video cannot be shown; the message says why."""


class Playback:
    """What is known of files, and the parts that were converted. Methods block."""

    def __init__(self, folder: Path, pool: MediaPool, storage_options: Mapping[str, Any]) -> None:
        """Prepare.

        Args:
            folder: for converted parts; it exists.
            pool: the processes that open videos.
            storage_options: passed to fsspec for URLs.
        """
        self._folder = folder
        self._pool = pool
        self._storage_options = storage_options
        self._types: dict[tuple[str, int, int], str] = {}
        self._previews: OrderedDict[Path, None] = OrderedDict()

    def known_type(self, path: str) -> str | None:
        """Return the media type of a file that was opened before; None otherwise."""
        return self._types.get((path, *file_state(path)))

    def media_type(self, path: str) -> str:
        """Return the media type of a file, which must open as a video.

        Raises:
            CannotShow: it does not.
        """
        state = path, *file_state(path)
        facts: list[VideoFacts] = []
        error = self._pool.exchange(FactsRequest(path, self._storage_options), facts.append)
        if error is not None:
            raise CannotShow(error)
        names = facts[0].container.split(",")
        found = next((MEDIA_TYPES[name] for name in names if name in MEDIA_TYPES), OTHER)
        self._types[state] = found
        return found

    def known_preview(self, path: str, start_s: float) -> Path | None:
        """Return a part that was converted before; None otherwise."""
        file = self._preview(path, start_s)
        return file if file in self._previews else None

    def preview(self, path: str, start_s: float) -> Path:
        """Convert :data:`PREVIEW_S` of a video to an mp4 file that every browser plays.

        Raises:
            CannotShow: it cannot be decoded there.
        """
        file = self._preview(path, start_s)
        if file in self._previews:  # it was converted while this request waited
            return file
        temporary = file.with_suffix(".tmp")
        request = PreviewRequest(
            path, start_s, start_s + PREVIEW_S, os.fspath(temporary), self._storage_options
        )
        error = self._pool.exchange(request, lambda sign_of_life: None)
        if error is not None:
            temporary.unlink(missing_ok=True)
            raise CannotShow(error)
        os.replace(temporary, file)
        self._previews[file] = None
        while len(self._previews) > MAX_PREVIEWS:
            oldest, _ = self._previews.popitem(last=False)
            oldest.unlink(missing_ok=True)
        return file

    def _preview(self, path: str, start_s: float) -> Path:
        identity = "\0".join(map(str, (path, *file_state(path), start_s)))
        content = identity.encode("utf-8", "surrogateescape")
        return self._folder / f"{hashlib.blake2b(content, digest_size=16).hexdigest()}.mp4"


def check_found(path: str | None) -> str:
    """Return the path; raises UsageError if there is none."""
    if path is None:
        raise UsageError("This video was not found below the folders of videos.")
    return path
