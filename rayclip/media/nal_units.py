"""Parse NAL units of H.264 and HEVC packets, and the bits in them."""

from __future__ import annotations

from collections.abc import Iterator

START_CODE = b"\0\0\1"
EMULATION_PREVENTION = b"\0\0\3"
SLICE_HEADER_BYTES = 16  # enough for the fields that are read from a slice


def h264_length_size(extradata: bytes) -> int:
    """Bytes of the length prefix of NAL units (mp4, Matroska); 0 if they have start codes."""
    return (extradata[4] & 3) + 1 if len(extradata) > 6 and extradata[0] == 1 else 0


def hevc_length_size(extradata: bytes) -> int:
    """Like :func:`h264_length_size`, for HEVC."""
    in_hvcc = len(extradata) > 22 and extradata[:3] not in (START_CODE, b"\0\0\0")
    return (extradata[21] & 3) + 1 if in_hvcc else 0


def nal_units(
    data: bytes, length_size: int, max_bytes: int = SLICE_HEADER_BYTES
) -> Iterator[bytes]:
    """Yield the first ``max_bytes`` bytes of each NAL unit; after a short unit, more data follows.

    Args:
        data: the packet.
        length_size: bytes of the length prefix; 0 for start codes.
        max_bytes: bytes per unit.
    """
    if length_size:
        offset = 0
        while offset + length_size < len(data):
            length = int.from_bytes(data[offset : offset + length_size], "big")
            offset += length_size
            if length:
                yield data[offset : offset + max_bytes]
            offset += length
        return
    offset = data.find(START_CODE)
    while 0 <= offset < len(data) - len(START_CODE):
        yield data[offset + 3 : offset + 3 + max_bytes]
        offset = data.find(START_CODE, offset + 3)


class BitReader:
    """Reads the payload of a NAL unit bit by bit; raises EOFError at its end."""

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
