"""Where decoding can begin: what containers call a keyframe is not always one.

Intra refresh (H.264, HEVC) spreads the fresh parts of a picture over many; demuxers flag its
recovery points as keyframes, but pictures decoded from there on are not exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

import av
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

VideoPacket: TypeAlias = "av.Packet[VideoStream]"

H264_SLICE, H264_IDR_SLICE = 1, 5  # nal_unit_type
H264_INTRA = (2, 4)  # slice_type modulo 5: I and SI
HEVC_SLICES = range(32)  # nal_unit_type of coded slices (VCL)
HEVC_RANDOM_ACCESS = range(16, 24)  # BLA, IDR, CRA: intra random access points
START_CODE = b"\0\0\1"
HEAD_BYTES = 8  # of a unit: enough for the numbers that are read


def is_entry_point(packet: VideoPacket, codec: VideoCodecContext) -> bool:
    """Whether decoding can begin with this packet and be exact from its picture on."""
    if not packet.is_keyframe:
        return False
    check = _CHECKS.get(codec.name)
    return check is None or check(bytes(packet), codec.extradata or b"")


def h264_length_size(extradata: bytes) -> int:
    """Bytes of the lengths before NAL units, as mp4 and Matroska have them; 0 for start codes."""
    return (extradata[4] & 3) + 1 if len(extradata) > 6 and extradata[0] == 1 else 0


def _h264_entry_point(data: bytes, extradata: bytes) -> bool:
    slices = 0
    for unit in _units(data, h264_length_size(extradata)):
        kind = unit[0] & 31
        if kind == H264_IDR_SLICE:
            return True
        if kind == H264_SLICE:
            slice_type = _second_exp_golomb(unit[1:])
            if slice_type is None or slice_type % 5 not in H264_INTRA:
                return False
            slices += 1
    return slices > 0


def _hevc_entry_point(data: bytes, extradata: bytes) -> bool:
    in_hvcc = len(extradata) > 22 and extradata[:3] not in (START_CODE, b"\0\0\0")
    length_size = (extradata[21] & 3) + 1 if in_hvcc else 0
    for unit in _units(data, length_size):
        kind = (unit[0] >> 1) & 63
        if kind in HEVC_SLICES:
            return kind in HEVC_RANDOM_ACCESS
    return False


_CHECKS: dict[str, Callable[[bytes, bytes], bool]] = {
    "h264": _h264_entry_point,
    "hevc": _hevc_entry_point,
}


def _units(data: bytes, length_size: int) -> Iterator[bytes]:
    """The heads of the NAL units of a packet: behind their lengths, or behind start codes (0)."""
    if length_size:
        place = 0
        while place + length_size < len(data):
            length = int.from_bytes(data[place : place + length_size], "big")
            place += length_size
            if length:
                yield data[place : place + HEAD_BYTES]
            place += length
        return
    place = data.find(START_CODE)
    while 0 <= place < len(data) - len(START_CODE):
        yield data[place + 3 : place + 3 + HEAD_BYTES]
        place = data.find(START_CODE, place + 3)


def _second_exp_golomb(data: bytes) -> int | None:
    """The second ue(v) of a slice header: slice_type, after first_mb_in_slice."""
    bits = f"{int.from_bytes(data, 'big'):0{8 * len(data)}b}"
    place = value = 0
    for _ in range(2):
        one = bits.find("1", place)
        end = 2 * one - place + 1
        if one < 0 or end > len(bits):
            return None
        value = int(bits[one:end], 2) - 1
        place = end
    return value
