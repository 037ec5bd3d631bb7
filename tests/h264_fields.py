"""Write H.264 whose pictures are pairs of fields, one packet each, as in broadcasts.

No available encoder writes such streams, so these are written bit by bit: uncompressed flat
macroblocks, and macroblocks copied from the previous picture.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

WIDTH, HEIGHT = 4, 2  # of a field, in macroblocks
MACROBLOCKS = WIDTH * HEIGHT
GROUP = 8
DELIMITER = b"\0\0\0\1\x09\xf0"
I_PCM, I_PCM_AMONG_P = 25, 30  # mb_type


class Unit:
    """Builds a NAL unit."""

    def __init__(self, header: int) -> None:
        self._header = header
        self._bits: list[int] = []

    def u(self, *values: int, bits: int = 1) -> Unit:
        """Append numbers of this many bits each."""
        for value in values:
            self._bits += [value >> bit & 1 for bit in reversed(range(bits))]
        return self

    def ue(self, *values: int) -> Unit:
        """Append Exp-Golomb codes."""
        for value in values:
            self.u(0, bits=(value + 1).bit_length() - 1)
            self.u(value + 1, bits=(value + 1).bit_length())
        return self

    def grey(self, level: int) -> Unit:
        """Append the samples of a macroblock; ``level`` must not imitate a start code."""
        self._bits += [0] * (-len(self._bits) % 8)
        return self.u(*[level] * 384, bits=8)

    def finished(self) -> bytes:
        """The unit with its start code and emulation prevention."""
        self.u(1)
        content = np.packbits(self._bits).tobytes()
        for last in range(4):
            content = content.replace(bytes([0, 0, last]), bytes([0, 0, 3, last]))
        return b"\0\0\0\1" + bytes([self._header]) + content


def parameters() -> bytes:
    """Parameter sets: main profile, frames may be pairs of fields, no B pictures."""
    sequence = Unit(0x67).u(77, 0, 30, bits=8).ue(0, 0, 2, 1).u(0).ue(WIDTH - 1, HEIGHT - 1)
    sequence.u(0, 0, 1, 0, 0)
    picture = Unit(0x68).ue(0, 0).u(0, 0).ue(0, 0, 0).u(0).u(0, bits=2).ue(0, 0, 0).u(1, 0, 0)
    return sequence.finished() + picture.finished()


def field(number: int, bottom: bool) -> bytes:
    """One field of a picture: intra-coded at the start of a GOP, otherwise a modified copy."""
    position = number % GROUP
    level = 30 + 13 * number % 190
    is_start, is_intra = position == 0 and not bottom, position == 0
    unit = Unit(0x65 if is_start else 0x61).ue(0, 7 if is_intra else 5, 0).u(position, bits=4)
    unit.u(1, bottom)
    if is_start:
        unit.ue(number // GROUP % 2).u(0, 0)
    else:
        unit.u(*[0] * (1 if is_intra else 3))
    unit.ue(0, 1)
    if is_intra:
        for _ in range(MACROBLOCKS):
            unit.ue(I_PCM).grey(level)
        return unit.finished()
    block = number % (MACROBLOCKS - 1)
    return unit.ue(block, I_PCM_AMONG_P).grey(level).ue(MACROBLOCKS - 1 - block).finished()


def write_fields(path: Path, pictures: int) -> Path:
    """Write an MPEG-TS file at 25 pictures per second, 64 x 64 pixels."""
    raw = path.with_suffix(".h264")
    head = [parameters(), *(field(n, bottom) for n in range(8) for bottom in (False, True))]
    raw.write_bytes(b"".join(head))
    with av.open(str(raw)) as source, av.open(str(path), "w", format="mpegts") as output:
        stream: Any = output.add_stream_from_template(source.streams.video[0])
        for number in range(pictures):
            for bottom in (False, True):
                is_start = number % GROUP == 0 and not bottom
                content = DELIMITER + (parameters() if is_start else b"") + field(number, bottom)
                packet = av.Packet(content)
                packet.pts = packet.dts = 90_000 + 3600 * number + 1800 * bottom
                packet.time_base, packet.is_keyframe = Fraction(1, 90_000), is_start
                packet.stream = stream
                output.mux_one(packet)
    raw.unlink()
    return path
