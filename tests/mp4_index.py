"""Write edit lists and apertures into the index of mp4 files, as apps and cameras do."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple


class Edit(NamedTuple):
    """A part of a track that is shown.

    Attributes:
        length_ms: how long it is shown.
        begin: its start in the track, in the track's own units; -1 shows nothing.
    """

    length_ms: int
    begin: int


def write_edits(path: Path, to: Path, edits: Sequence[Edit]) -> Path:
    """Copy an mp4 file with one track and the index at its end, and add these edits."""
    rows = b"".join(struct.pack(">Iii", length, begin, 1 << 16) for length, begin in edits)
    edit_list = _box(b"edts", _box(b"elst", struct.pack(">II", 0, len(edits)) + rows))

    def in_track(track: bytes) -> bytes:
        kept = [box for kind, box in _boxes(track) if kind != b"edts"]
        return b"".join([kept[0], edit_list, *kept[1:]])

    content = path.read_bytes()
    assert content.index(b"mdat") < content.index(b"moov")  # otherwise the media data would move
    to.write_bytes(_changed(content, b"moov", lambda moov: _changed(moov, b"trak", in_track)))
    return to


def write_aperture(path: Path, to: Path, left: int, top: int, right: int, bottom: int) -> Path:
    """Copy such a file, and have its pictures cropped by this many pixels (``clap``)."""
    content = path.read_bytes()

    def in_entries(entries: bytes) -> bytes:
        entry = entries[8:]
        width, height = struct.unpack(">HH", entry[32:36])
        numbers = (
            *(width - left - right, 1, height - top - bottom, 1),
            *(left - right, 2, top - bottom, 2),  # offset of its centre from the picture's
        )
        inside = entry[8:] + _box(b"clap", struct.pack(">8i", *numbers))
        return entries[:8] + _box(entry[4:8], inside)

    change = in_entries
    for kind in (b"stsd", b"stbl", b"minf", b"mdia", b"trak", b"moov"):
        change = partial(_changed, kind=kind, change=change)
    to.write_bytes(change(content))
    return to


def _changed(content: bytes, kind: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """Change the content of the boxes of one kind in a file or a box."""
    return b"".join(
        _box(kind, change(box[8:])) if found == kind else box for found, box in _boxes(content)
    )


def _boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    offset = 0
    while offset < len(content):
        size = int.from_bytes(content[offset : offset + 4])
        yield content[offset + 4 : offset + 8], content[offset : offset + size]
        offset += size


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", len(content) + 8, kind) + content
