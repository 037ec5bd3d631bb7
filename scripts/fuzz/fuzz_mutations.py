"""Ways to damage a file. Each is a pure function of the bytes and a random generator."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

HEAD = 4096  # bytes at both ends of a file, where headers and indexes are
MAX_FLIPS = 64
MAX_SPLICES = 4
ODD_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
HOLDS_BOXES = {
    *(b"moov", b"trak", b"mdia", b"minf", b"dinf", b"stbl", b"edts", b"mvex", b"moof", b"traf"),
    *(b"udta",),
}


@dataclass
class Box:
    """A box of an mp4 file: its kind, and its content as bytes or nested boxes."""

    kind: bytes
    content: bytes | list[Box]

    def __bytes__(self) -> bytes:
        body = self.content if isinstance(self.content, bytes) else _joined(self.content)
        return struct.pack(">I", 8 + len(body)) + self.kind + body


def flip_bytes(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """Change up to 64 bytes, half of them near the ends."""
    damaged = bytearray(data)
    for _ in range(rng.randint(1, MAX_FLIPS)):
        damaged[_place(len(data), rng)] ^= rng.randint(1, 255)
    return bytes(damaged)


def put_odd_numbers(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """Set some four-byte numbers, such as sizes and counts, to extreme values."""
    damaged = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        place, order = _place(len(data), rng), rng.choice("<>")
        damaged[place : place + 4] = struct.pack(f"{order}I", rng.choice(ODD_NUMBERS))
    return bytes(damaged)


def truncate(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """Cut off the end, the middle or the beginning."""
    start, end = sorted(rng.randint(0, len(data)) for _ in range(2))
    return rng.choice([data[:end], data[:end], data[:start] + data[end:], data[start:]])


def splice(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """Delete, duplicate, swap or replace boxes by those of another file.

    For mp4 files these are real boxes, and the sizes of their parents are corrected. For other
    files they are pieces of random length.
    """
    boxes, other_format = parse_boxes(data), parse_boxes(other)
    if boxes is None:
        return _splice_pieces(data, other, rng)
    for _ in range(rng.randint(1, MAX_SPLICES)):
        _splice_list(rng.choice(_lists(boxes)), _all(other_format or boxes), rng)
    return _joined(boxes)


MUTATIONS: Mapping[str, Callable[[bytes, bytes, random.Random], bytes]] = {
    "flipped bytes": flip_bytes,
    "odd numbers": put_odd_numbers,
    "truncated": truncate,
    "spliced": splice,
}
"""Name -> function of the file, another file and a random generator."""


def parse_boxes(data: bytes) -> list[Box] | None:
    """The boxes of an mp4 file; None for other files."""
    return _parse_boxes(data) if data[4:8] == b"ftyp" else None


def _parse_boxes(data: bytes) -> list[Box] | None:
    """The boxes; None unless they cover all bytes."""
    boxes, place = [], 0
    while place < len(data):
        size = int.from_bytes(data[place : place + 4], "big")
        if not 8 <= size <= len(data) - place:
            return None
        kind, body = data[place + 4 : place + 8], data[place + 8 : place + size]
        inner = _parse_boxes(body) if kind in HOLDS_BOXES else None
        boxes.append(Box(kind, body if inner is None else inner))
        place += size
    return boxes


def _joined(boxes: list[Box]) -> bytes:
    return b"".join(map(bytes, boxes))


def _lists(boxes: list[Box]) -> list[list[Box]]:
    """All lists of sibling boxes."""
    inner = [
        found for box in boxes if isinstance(box.content, list) for found in _lists(box.content)
    ]
    return [boxes, *inner] if boxes else inner


def _all(boxes: list[Box]) -> list[Box]:
    return [box for beside in _lists(boxes) for box in beside]


def _splice_list(boxes: list[Box], other_format: list[Box], rng: random.Random) -> None:
    if not boxes:
        return
    place = rng.randrange(len(boxes))
    match rng.randrange(4):
        case 0:
            del boxes[place]
        case 1:
            boxes.insert(rng.randint(0, len(boxes)), boxes[place])
        case 2:
            partner = rng.randrange(len(boxes))
            boxes[place], boxes[partner] = boxes[partner], boxes[place]
        case _:
            same_kind = [box for box in other_format if box.kind == boxes[place].kind]
            boxes[place] = rng.choice(same_kind or other_format)


def _splice_pieces(data: bytes, other: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.randint(1, MAX_SPLICES)):
        start, end = _piece(data, rng)
        from_start, from_end = _piece(other, rng)
        lost = data[:start] + data[end:]
        twice = data[:end] + data[start:]
        exchanged = data[:start] + other[from_start:from_end] + data[end:]
        data = rng.choice([lost, twice, exchanged])
    return data


def _piece(data: bytes, rng: random.Random) -> tuple[int, int]:
    start = rng.randint(0, len(data))
    return start, min(len(data), start + rng.choice([16, 256, HEAD]))


def _place(size: int, rng: random.Random) -> int:
    """A random offset; in half of the cases near one of the ends."""
    near = min(size, HEAD)
    anywhere = rng.randrange(size)
    return rng.choice([anywhere, anywhere, rng.randrange(near), size - 1 - rng.randrange(near)])
