"""``webdataset``: tar files of samples, ``{key}.npy`` and ``{key}.json`` for each video."""

from __future__ import annotations

import io
import json
import math
import tarfile
from collections.abc import Iterator
from itertools import chain
from typing import IO, Any

from rayclip.export.format import Format, Put
from rayclip.export.npy import npy_header
from rayclip.export.videos import ExportedVideo
from rayclip.output.safe_names import MAX_NAME, hashed
from rayclip.output.shard_names import row_name

MAX_KEY = MAX_NAME - len(".json")


class WebDatasetFormat(Format):
    def write_part(self, number: int, videos: Iterator[ExportedVideo], put: Put) -> None:
        first = next(videos, None)
        if first is not None:
            put(f"shard-{number:06}.tar", lambda file: _write(chain((first,), videos), file))


def sample_key(name: str) -> str:
    """Return the key of a sample. A dot would end it, so it is replaced, and marked by a hash."""
    folders, slash, stem = name.rpartition("/")
    if "." in stem:
        stem = hashed(name, stem.replace(".", "_"), MAX_KEY)
    return f"{folders}{slash}{stem}"


def _write(videos: Iterator[ExportedVideo], file: IO[bytes]) -> None:
    with tarfile.open(fileobj=file, mode="w") as archive:
        for video in videos:
            key = sample_key(video.key)
            header = npy_header(video)
            blocks = (block.reshape(-1).view("u1") for block in video.blocks())
            content = io.BufferedReader(_Chain(chain((header,), blocks)))
            _add(archive, f"{key}.npy", len(header) + video.size, content)
            description = json.dumps(_description(video)).encode()
            _add(archive, f"{key}.json", len(description), io.BytesIO(description))


def _add(archive: tarfile.TarFile, name: str, size: int, content: Any) -> None:
    member = tarfile.TarInfo(name)  # its time is 0, so the same features make the same file
    member.size = size
    archive.addfile(member, content)


def _description(video: ExportedVideo) -> dict[str, Any]:
    stored = video.stored
    columns = {} if video.columns is None else video.columns.to_pylist()[0]
    return {
        **{name: _as_json(value) for name, value in columns.items()},
        "video": row_name(stored.name),
        "fps": _as_json(stored.fps),
        "timestamps_ms": video.timestamps_ms.tolist(),
    }


def _as_json(value: Any) -> Any:
    """Return a value of a column as JSON can hold it; others become text."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(name): _as_json(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(part) for part in value]
    return value if isinstance(value, str | int | float | None) else str(value)


class _Chain(io.RawIOBase):
    """Reads blocks of bytes as one file."""

    def __init__(self, blocks: Iterator[Any]) -> None:
        self._blocks = blocks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = memoryview(next(self._blocks, b""))
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count
