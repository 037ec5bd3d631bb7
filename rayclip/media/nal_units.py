"""The NAL units of H.264 and HEVC packets, and the bits in them."""

from __future__ import annotations

from collections.abc import Iterator

START_CODE = b"\0\0\1"
EMULATION_PREVENTION = b"\0\0\3"
HEAD_BYTES = 16  # of a unit: enough for the numbers that are read of a slice


def h264_length_size(extradata: bytes) -> int:
    """Bytes of the lengths before NAL units, as mp4 and Matroska have them; 0 for start codes."""
    return (extradata[4] & 3) + 1 if len(extradata) > 6 and extradata[0] == 1 else 0


def hevc_length_size(extradata: bytes) -> int:
    """As :func:`h264_length_size`."""
    in_hvcc = len(extradata) > 22 and extradata[:3] not in (START_CODE, b"\0\0\0")
    return (extradata[21] & 3) + 1 if in_hvcc else 0


def nal_units(data: bytes, length_size: int, most: int = HEAD_BYTES) -> Iterator[bytes]:
    """The NAL units of a packet, up to ``most`` bytes of each and what may follow a short one.

    Args:
        data: of the packet.
        length_size: bytes of the lengths before units; 0 where start codes are.
        most: bytes of a unit.
    """
    if length_size:
        place = 0
        while place + length_size < len(data):
            length = int.from_bytes(data[place : place + length_size], "big")
            place += length_size
            if length:
                yield data[place : place + most]
            place += length
        return
    place = data.find(START_CODE)
    while 0 <= place < len(data) - len(START_CODE):
        yield data[place + 3 : place + 3 + most]
        place = data.find(START_CODE, place + 3)


class Bits:
    """Reads the payload of a NAL unit bit by bit; EOFError where it ends."""

    def __init__(self, payload: bytes) -> None:
        payload = payload.replace(EMULATION_PREVENTION, b"\0\0")
        self._value = int.from_bytes(payload, "big")
        self._left = 8 * len(payload)

    def take(self, count: int) -> int:
        """``u(count)``: an unsigned number of this many bits."""
        self._left = left = self._left - count
        if left < 0:
            raise EOFError
        number = self._value >> left
        self._value &= (1 << left) - 1
        return number

    def exp_golomb(self) -> int:
        """``ue(v)``: an unsigned number in Exp-Golomb code."""
        zeros = self._left - self._value.bit_length()
        return self.take(2 * zeros + 1) - 1

    def signed_exp_golomb(self) -> int:
        """``se(v)``."""
        number = self.exp_golomb()
        return (number + 1) // 2 if number % 2 else -number // 2
