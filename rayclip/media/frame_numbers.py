"""Detect missing pictures of an H.264 stream: ``frame_num`` counts the reference pictures.

A decoder conceals a missing picture with pictures that it has, so the result depends on which
packets it was fed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from rayclip.media.nal_units import SLICE_HEADER_BYTES, BitReader, h264_length_size, nal_units

SLICES, IDR_SLICE = (1, 2, 5), 5  # nal_unit_type
SEQUENCE, PICTURE = 7, 8  # nal_unit_type of parameter sets
DELIMITER = 9  # nal_unit_type that starts an access unit
WITH_CHROMA_FORMAT = (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135)  # profile_idc
IS_444 = 3  # chroma_format_idc
NO_PICTURE, MISSING = "a packet has no picture", "reference pictures are missing"
ONE_FIELD = "a packet has one field of a picture"
IS_FIRST_SLICE = 0x80  # in the byte after a unit's header: first_mb_in_slice is 0
MAX_PARAMETERS = 256  # bytes of a parameter set that may be needed


class _Sequence(NamedTuple):
    """Sizes in bits of fields of a slice header, from a sequence parameter set."""

    frame_num: int
    colour_plane: int  # just before frame_num
    field_flag: int  # just after it


class FrameNumbers:
    """Follows the ``frame_num`` of a stream's pictures in decoding order (H.264, 7.4.3)."""

    def __init__(self, extradata: bytes) -> None:
        """Prepare for a stream.

        Args:
            extradata: of its codec; may contain parameter sets.
        """
        self._length_size = h264_length_size(extradata)
        self._sequences: dict[int, _Sequence] = {}
        self._sequence_of: dict[int, int] = {}  # by picture parameter set
        self._last: int | None = None  # of the last picture that others refer to
        for unit in filter(None, _parameter_sets(extradata)):
            self._read_parameter_set(unit)

    def find_missing(self, packet: bytes) -> str | None:
        """Take the next packet, and describe what is missing, if anything.

        Either the packet's own picture is missing or incomplete, or earlier reference pictures are
        missing.
        """
        is_delimited = False
        for unit in nal_units(packet, self._length_size, MAX_PARAMETERS):
            kind = unit[0] & 31
            if kind == DELIMITER:
                if is_delimited:  # libav has joined an empty packet with the next one
                    return NO_PICTURE
                is_delimited = True
            if kind in SLICES:
                try:
                    skips, is_field = self._follow(unit)
                except (EOFError, KeyError):  # damaged, or parameter sets are missing
                    return None
                if is_field and self._count_first_slices(packet) < 2:
                    return ONE_FIELD
                return MISSING if skips else None
            if kind in (SEQUENCE, PICTURE):
                self._read_parameter_set(unit)
        return NO_PICTURE

    def _count_first_slices(self, packet: bytes) -> int:
        """The number of pictures or fields in a packet."""
        units = nal_units(packet, self._length_size)
        return sum(unit[0] & 31 in SLICES and unit[1] & IS_FIRST_SLICE > 0 for unit in units)

    def _follow(self, unit: bytes) -> tuple[bool, bool]:
        """Whether the ``frame_num`` of a slice skips numbers, and whether it belongs to a field."""
        bits = BitReader(unit[1:SLICE_HEADER_BYTES])
        bits.exp_golomb()  # first_mb_in_slice
        bits.exp_golomb()  # slice_type
        size, colour_plane, field = self._sequences[self._sequence_of[bits.exp_golomb()]]
        bits.take(colour_plane)
        number = bits.take(size)
        is_field = bool(bits.take(field))
        last = None if unit[0] & 31 == IDR_SLICE else self._last
        if unit[0] >> 5 & 3:  # nal_ref_idc
            self._last = number
        skips = last is not None and number not in (last, (last + 1) % (1 << size))
        return skips, is_field

    def _read_parameter_set(self, unit: bytes) -> None:
        """Remember a parameter set."""
        bits = BitReader(unit[1:])
        try:
            if unit[0] & 31 == SEQUENCE:
                number, sequence = _sequence(bits)
                self._sequences[number] = sequence
            else:
                picture = bits.exp_golomb()
                self._sequence_of[picture] = bits.exp_golomb()
        except EOFError:
            pass  # damaged


def _sequence(bits: BitReader) -> tuple[int, _Sequence]:
    """Parse a sequence parameter set (H.264, 7.3.2.1.1): its number and what slices need of it."""
    profile = bits.take(8)
    bits.take(16)  # constraints and level
    number = bits.exp_golomb()
    colour_plane = 0
    if profile in WITH_CHROMA_FORMAT:
        chroma_format = bits.exp_golomb()
        if chroma_format == IS_444:
            colour_plane = 2 * bits.take(1)
        bits.exp_golomb()  # bit depths
        bits.exp_golomb()
        bits.take(1)
        if bits.take(1):
            for offset in range(12 if chroma_format == IS_444 else 8):
                if bits.take(1):
                    _skip_scaling_list(bits, 16 if offset < 6 else 64)
    size = 4 + bits.exp_golomb()
    order = bits.exp_golomb()
    if order == 0:
        bits.exp_golomb()
    elif order == 1:
        bits.take(1)
        for _ in range(2):
            bits.exp_golomb()
        for _ in range(bits.exp_golomb()):
            bits.exp_golomb()
    bits.exp_golomb()  # reference frames
    bits.take(1)
    bits.exp_golomb()  # width and height
    bits.exp_golomb()
    has_frames_only = bits.take(1)
    return number, _Sequence(size, colour_plane, 1 - has_frames_only)


def _skip_scaling_list(bits: BitReader, size: int) -> None:
    scale = 8
    for _ in range(size):
        scale = (scale + bits.signed_exp_golomb()) % 256
        if not scale:
            return


def _parameter_sets(extradata: bytes) -> Iterator[bytes]:
    """Yield the parameter sets of an ``avcC`` box, or those after start codes."""
    if not h264_length_size(extradata):
        yield from nal_units(extradata, 0, MAX_PARAMETERS)
        return
    offset = 5
    for mask in (31, 255):  # counts of sequence and of picture parameter sets
        count = extradata[offset] & mask if offset < len(extradata) else 0
        offset += 1
        for _ in range(count):
            length = int.from_bytes(extradata[offset : offset + 2], "big")
            yield extradata[offset + 2 : offset + 2 + length]
            offset += 2 + length
