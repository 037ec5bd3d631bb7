"""Where decoding can begin: what containers call a keyframe is not always one.

Intra refresh (H.264, HEVC) spreads the fresh parts of a picture over many; demuxers flag its
recovery points as keyframes, but pictures decoded from there on are not exact.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import av
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from rayclip.media.nal_units import Bits, h264_length_size, hevc_length_size, nal_units

VideoPacket: TypeAlias = "av.Packet[VideoStream]"

H264_SLICE, H264_IDR_SLICE = 1, 5  # nal_unit_type
H264_INTRA = (2, 4)  # slice_type modulo 5: I and SI
HEVC_SLICES = range(32)  # nal_unit_type of coded slices (VCL)
HEVC_RANDOM_ACCESS = range(16, 24)  # BLA, IDR, CRA: intra random access points
H264_ANY_SLICE, H264_B = (H264_SLICE, H264_IDR_SLICE), 1
VP8_IS_KEY, VP8_IS_SHOWN = 0x01, 0x10  # of the first byte; the former is set where it is none
BEGIN_WITH_BITS = ("mjpeg", "vp8", "vp9", "libdav1d", "av1")  # no picture of theirs begins with
FIRST_BYTES = 16  # of zeros
LIBAV_LOOKS_INSIDE = ("vp9", "libdav1d", "av1", "ffv1")  # whatever the container says
BELIEVED = ("wmv1", "wmv2", "wmv3", "vc1", "flv", "theora", "png")  # their containers know


@lru_cache
def tells_entry_points(codec_name: str) -> bool:
    """Whether what streams of a codec flag as keyframes can be believed, or checked.

    For others no packet is an entry point: there are muxers that flag each packet.
    """
    known = (*_CHECKS, *LIBAV_LOOKS_INSIDE, *BELIEVED)
    return codec_name in known or av.Codec(codec_name).intra_only


def is_entry_point(packet: VideoPacket, codec: VideoCodecContext) -> bool:
    """Whether decoding can begin with this packet and be exact from its picture on."""
    if not packet.is_keyframe or not tells_entry_points(codec.name):
        return False
    check = _CHECKS.get(codec.name)
    return check is None or check(bytes(packet), codec.extradata or b"")


def has_picture(packet: VideoPacket, codec: VideoCodecContext) -> bool:
    """Whether a decoder finds a picture in this packet, of any codec but H.264, as far as its first
    bytes tell."""
    if codec.name == "hevc":
        units = nal_units(bytes(packet), hevc_length_size(codec.extradata or b""))
        return any(unit[0] >> 1 & 63 in HEVC_SLICES for unit in units)
    if codec.name in MPEG_PICTURES:
        return _mpeg_picture_type(bytes(packet), codec.name) is not None
    return codec.name not in BEGIN_WITH_BITS or any(memoryview(packet)[:FIRST_BYTES])


def is_hidden(packet: VideoPacket, codec: VideoCodecContext) -> bool:
    """Whether others need the picture of this packet, and nobody sees it."""
    return codec.name == "vp8" and not memoryview(packet)[0] & VP8_IS_SHOWN


def may_be_shown_before_others(packet: VideoPacket, codec: VideoCodecContext) -> bool:
    """Whether this packet may come after one whose picture is shown later."""
    if codec.name == "h264":
        units = nal_units(bytes(packet), h264_length_size(codec.extradata or b""))
        types = [_slice_type(unit) for unit in units if unit[0] & 31 in H264_ANY_SLICE]
        return any(one is None or one % 5 == H264_B for one in types)
    if codec.name in MPEG_PICTURES:
        forward = MPEG_PICTURES[codec.name].forward
        return _mpeg_picture_type(bytes(packet), codec.name) not in forward
    return True


def may_split_pictures(codec: VideoCodecContext) -> bool:
    """Whether two packets may hold the two fields of one picture: H.264 outside of mp4 and
    Matroska."""
    return codec.name == "h264" and not h264_length_size(codec.extradata or b"")


def _h264_entry_point(data: bytes, extradata: bytes) -> bool:
    slices = 0
    for unit in nal_units(data, h264_length_size(extradata)):
        kind = unit[0] & 31
        if kind == H264_IDR_SLICE:
            return True
        if kind == H264_SLICE:
            slice_type = _slice_type(unit)
            if slice_type is None or slice_type % 5 not in H264_INTRA:
                return False
            slices += 1
    return slices > 0


def _hevc_entry_point(data: bytes, extradata: bytes) -> bool:
    for unit in nal_units(data, hevc_length_size(extradata)):
        kind = (unit[0] >> 1) & 63
        if kind in HEVC_SLICES:
            return kind in HEVC_RANDOM_ACCESS
    return False


def _vp8_entry_point(data: bytes, extradata: bytes) -> bool:
    return not data[0] & VP8_IS_KEY


class _MpegPictures(NamedTuple):
    """How a codec of MPEG's early ones says the type of a picture."""

    start_code: bytes
    offset: int  # of the byte with the type, from the start code
    shift: int
    mask: int
    intra: int
    forward: tuple[int, ...]  # types that are shown in the order of decoding


MPEG_PICTURES = {
    "mpeg4": _MpegPictures(b"\0\0\1\xb6", 4, 6, 3, 0, (0, 1)),
    "mpeg1video": _MpegPictures(b"\0\0\1\0", 5, 3, 7, 1, (1, 2)),
    "mpeg2video": _MpegPictures(b"\0\0\1\0", 5, 3, 7, 1, (1, 2)),
}


def _mpeg_picture_type(data: bytes, name: str) -> int | None:
    how = MPEG_PICTURES[name]
    place = data.find(how.start_code)
    if place < 0 or place + how.offset >= len(data):
        return None
    return data[place + how.offset] >> how.shift & how.mask


def _mpeg_entry_point(name: str) -> Callable[[bytes, bytes], bool]:
    return lambda data, extradata: _mpeg_picture_type(data, name) == MPEG_PICTURES[name].intra


_CHECKS: dict[str, Callable[[bytes, bytes], bool]] = {
    "h264": _h264_entry_point,
    "hevc": _hevc_entry_point,
    "vp8": _vp8_entry_point,
    **{name: _mpeg_entry_point(name) for name in MPEG_PICTURES},
}


def _slice_type(unit: bytes) -> int | None:
    """``slice_type`` of an H.264 slice; None where its header is damaged."""
    bits = Bits(unit[1:])
    try:
        bits.exp_golomb()  # first_mb_in_slice
        return bits.exp_golomb()
    except EOFError:
        return None
