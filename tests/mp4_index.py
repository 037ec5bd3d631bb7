"""What apps and cameras write into the index of mp4 and mov files: edit lists and apertures."""

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
        begin: where it begins in the track, in the track's own units; -1 shows nothing meanwhile.
    """

    length_ms: int
    begin: int


def write_edits(path: Path, to: Path, edits: Sequence[Edit]) -> Path:
    """A copy of an mp4 file that has one track and its index at the end, with these edits."""
    rows = b"".join(struct.pack(">Iii", length, begin, 1 << 16) for length, begin in edits)
    edit_list = _box(b"edts", _box(b"elst", struct.pack(">II", 0, len(edits)) + rows))

    def in_track(track: bytes) -> bytes:
        kept = [box for kind, box in _boxes(track) if kind != b"edts"]
        return b"".join([kept[0], edit_list, *kept[1:]])

    content = path.read_bytes()
    assert content.index(b"mdat") < content.index(b"moov")  # what follows the index may move
    to.write_bytes(_changed(content, b"moov", lambda moov: _changed(moov, b"trak", in_track)))
    return to


def write_aperture(path: Path, to: Path, left: int, top: int, right: int, bottom: int) -> Path:
    """A copy of such a file whose pictures are to be cropped by so many pixels (``clap``)."""
    content = path.read_bytes()

    def in_entries(entries: bytes) -> bytes:
        entry = entries[8:]
        width, height = struct.unpack(">HH", entry[32:36])
        numbers = (
            *(width - left - right, 1, height - top - bottom, 1),
            *(left - right, 2, top - bottom, 2),  # how far its centre is from that of the picture
        )
        inside = entry[8:] + _box(b"clap", struct.pack(">8i", *numbers))
        return entries[:8] + _box(entry[4:8], inside)

    change = in_entries
    for kind in (b"stsd", b"stbl", b"minf", b"mdia", b"trak", b"moov"):
        change = partial(_changed, kind=kind, change=change)
    to.write_bytes(change(content))
    return to


def _changed(content: bytes, kind: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """The boxes of a file or of a box, with another content of those of one kind."""
    return b"".join(
        _box(kind, change(box[8:])) if found == kind else box for found, box in _boxes(content)
    )


def _boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 0
    while place < len(content):
        size = int.from_bytes(content[place : place + 4])
        yield content[place + 4 : place + 8], content[place : place + size]
        place += size


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", len(content) + 8, kind) + content
