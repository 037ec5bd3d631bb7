"""Where pictures of an H.264 stream are missing: ``frame_num`` counts those that others refer to.

A decoder conceals what is missing with pictures that it has, so it matters which it was given.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from rayclip.media.nal_units import HEAD_BYTES, Bits, h264_length_size, nal_units

SLICES, IDR_SLICE = (1, 2, 5), 5  # nal_unit_type
SEQUENCE, PICTURE = 7, 8  # of parameter sets
WITH_CHROMA_FORMAT = (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135)  # profile_idc
IS_444 = 3  # chroma_format_idc
NO_PICTURE, MISSING = "a packet has no picture", "pictures that others refer to are missing"
ONE_FIELD = "a packet has one field of a picture"
IS_FIRST_SLICE = 0x80  # of the byte after a slice's header: first_mb_in_slice is 0
MAX_PARAMETERS = 256  # bytes of a parameter set up to the last that is read of it


class _Sequence(NamedTuple):
    """What a sequence parameter set says of slices: the bits of ``frame_num``, of what is just
    before it, and of the flag of fields just after it."""

    size: int
    colour_plane: int
    field: int


class FrameNumbers:
    """Follows the ``frame_num`` of a stream's pictures in decoding order (H.264, 7.4.3)."""

    def __init__(self, extradata: bytes) -> None:
        """Begin a stream.

        Args:
            extradata: of its codec, where that has parameter sets.
        """
        self._length_size = h264_length_size(extradata)
        self._sequences: dict[int, _Sequence] = {}
        self._sequence_of: dict[int, int] = {}  # by picture parameter set
        self._last: int | None = None  # of the last picture that others refer to
        for unit in filter(None, _parameter_sets(extradata)):
            self._note(unit)

    def what_is_missing(self, packet: bytes) -> str | None:
        """Take the next packet; say if its own picture is missing or not whole, or some before
        it."""
        for unit in nal_units(packet, self._length_size, MAX_PARAMETERS):
            kind = unit[0] & 31
            if kind in SLICES:
                try:
                    skips, is_field = self._follow(unit)
                except (EOFError, KeyError):  # damaged, or its parameters are missing
                    return None
                if is_field and self._slices_that_are_first(packet) < 2:
                    return ONE_FIELD
                return MISSING if skips else None
            if kind in (SEQUENCE, PICTURE):
                self._note(unit)
        return NO_PICTURE

    def _slices_that_are_first(self, packet: bytes) -> int:
        """How many pictures or fields a packet has."""
        units = nal_units(packet, self._length_size)
        return sum(unit[0] & 31 in SLICES and unit[1] & IS_FIRST_SLICE > 0 for unit in units)

    def _follow(self, unit: bytes) -> tuple[bool, bool]:
        """Whether a slice's number is not the next one, and whether it is of a field."""
        bits = Bits(unit[1:HEAD_BYTES])
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

    def _note(self, unit: bytes) -> None:
        """Note what a parameter set says."""
        bits = Bits(unit[1:])
        try:
            if unit[0] & 31 == SEQUENCE:
                number, sequence = _sequence(bits)
                self._sequences[number] = sequence
            else:
                picture = bits.exp_golomb()
                self._sequence_of[picture] = bits.exp_golomb()
        except EOFError:
            pass  # damaged


def _sequence(bits: Bits) -> tuple[int, _Sequence]:
    """The number of a sequence parameter set, and what it says (H.264, 7.3.2.1.1)."""
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
            for place in range(12 if chroma_format == IS_444 else 8):
                if bits.take(1):
                    _skip_scaling_list(bits, 16 if place < 6 else 64)
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


def _skip_scaling_list(bits: Bits, size: int) -> None:
    scale = 8
    for _ in range(size):
        scale = (scale + bits.signed_exp_golomb()) % 256
        if not scale:
            return


def _parameter_sets(extradata: bytes) -> Iterator[bytes]:
    """Of an ``avcC`` box, or behind start codes."""
    if not h264_length_size(extradata):
        yield from nal_units(extradata, 0, MAX_PARAMETERS)
        return
    place = 5
    for mask in (31, 255):  # of the counts of sequence and of picture parameter sets
        count = extradata[place] & mask if place < len(extradata) else 0
        place += 1
        for _ in range(count):
            length = int.from_bytes(extradata[place : place + 2], "big")
            yield extradata[place + 2 : place + 2 + length]
            place += 2 + length
