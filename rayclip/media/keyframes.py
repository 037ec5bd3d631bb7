"""Find random access points: a packet that is flagged as a keyframe is not always one.

Intra refresh (H.264, HEVC) spreads intra-coded parts over many pictures. Demuxers flag its recovery
points as keyframes, but pictures decoded from there on are not exact.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import av
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from rayclip.media.nal_units import BitReader, h264_length_size, hevc_length_size, nal_units

VideoPacket: TypeAlias = "av.Packet[VideoStream]"

H264_SLICE, H264_IDR_SLICE = 1, 5  # nal_unit_type
H264_INTRA = (2, 4)  # slice_type modulo 5: I and SI
HEVC_SLICES = range(32)  # nal_unit_type of coded slices (VCL)
HEVC_RANDOM_ACCESS = range(16, 24)  # BLA, IDR, CRA: intra random access points
H264_ANY_SLICE, H264_B = (H264_SLICE, H264_IDR_SLICE), 1
VP8_IS_INTER, VP8_IS_SHOWN = 0x01, 0x10  # flags in the first byte
NEVER_START_WITH_ZEROS = ("mjpeg", "vp8", "vp9", "libdav1d", "av1")
CHECKED_BYTES = 16  # that are not all zero in a picture of these codecs
PARSED_BY_LIBAV = ("vp9", "libdav1d", "av1", "ffv1")  # keyframe flags come from the bitstream
TRUSTED_CODECS = ("wmv1", "wmv2", "wmv3", "vc1", "flv", "theora", "png")  # flagged by the container


@lru_cache
def has_reliable_keyframes(codec_name: str) -> bool:
    """Whether keyframe flags of a codec can be trusted or verified.

    No packet of any other codec counts as a random access point: some muxers flag every packet.
    """
    reliable = (*_CHECKS, *PARSED_BY_LIBAV, *TRUSTED_CODECS)
    return codec_name in reliable or av.Codec(codec_name).intra_only


def is_random_access_point(packet: VideoPacket, codec: VideoCodecContext) -> bool:
    """Whether decoding can start at this packet and is exact from its picture on."""
    if not packet.is_keyframe or not has_reliable_keyframes(codec.name):
        return False
    check = _CHECKS.get(codec.name)
    return check is None or check(bytes(packet), codec.extradata or b"")


def has_picture(packet: VideoPacket, codec: VideoCodecContext) -> bool:
    """Whether a packet of any codec but H.264 contains a picture, judging by its first bytes."""
    if codec.name == "hevc":
        units = nal_units(bytes(packet), hevc_length_size(codec.extradata or b""))
        return any(unit[0] >> 1 & 63 in HEVC_SLICES for unit in units)
    if codec.name in MPEG_PICTURES:
        return _mpeg_picture_type(bytes(packet), codec.name) is not None
    return codec.name not in NEVER_START_WITH_ZEROS or any(memoryview(packet)[:CHECKED_BYTES])


def is_hidden(packet: VideoPacket, codec: VideoCodecContext) -> bool:
    """Whether the picture of this packet is only a reference and is never shown."""
    return codec.name == "vp8" and not memoryview(packet)[0] & VP8_IS_SHOWN


def may_be_reordered(packet: VideoPacket, codec: VideoCodecContext) -> bool:
    """Whether this packet may come after one whose picture is shown later."""
    if codec.name == "h264":
        units = nal_units(bytes(packet), h264_length_size(codec.extradata or b""))
        types = [_slice_type(unit) for unit in units if unit[0] & 31 in H264_ANY_SLICE]
        return any(kind is None or kind % 5 == H264_B for kind in types)
    if codec.name in MPEG_PICTURES:
        forward = MPEG_PICTURES[codec.name].forward
        return _mpeg_picture_type(bytes(packet), codec.name) not in forward
    return True


def may_split_pictures(codec: VideoCodecContext) -> bool:
    """Whether two packets may hold the two fields of one picture: H.264 outside of mp4 and
    Matroska."""
    return codec.name == "h264" and not h264_length_size(codec.extradata or b"")


def _is_h264_random_access(data: bytes, extradata: bytes) -> bool:
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


def _is_hevc_random_access(data: bytes, extradata: bytes) -> bool:
    for unit in nal_units(data, hevc_length_size(extradata)):
        kind = (unit[0] >> 1) & 63
        if kind in HEVC_SLICES:
            return kind in HEVC_RANDOM_ACCESS
    return False


def _is_vp8_random_access(data: bytes, extradata: bytes) -> bool:
    return not data[0] & VP8_IS_INTER


class _MpegPictures(NamedTuple):
    """Where an early MPEG codec stores the type of a picture."""

    start_code: bytes
    offset: int  # from the start code to the byte with the type
    shift: int
    mask: int
    intra: int
    forward: tuple[int, ...]  # types that are not reordered


MPEG_PICTURES = {
    "mpeg4": _MpegPictures(b"\0\0\1\xb6", 4, 6, 3, 0, (0, 1)),
    "mpeg1video": _MpegPictures(b"\0\0\1\0", 5, 3, 7, 1, (1, 2)),
    "mpeg2video": _MpegPictures(b"\0\0\1\0", 5, 3, 7, 1, (1, 2)),
}


def _mpeg_picture_type(data: bytes, name: str) -> int | None:
    layout = MPEG_PICTURES[name]
    start = data.find(layout.start_code)
    if start < 0 or start + layout.offset >= len(data):
        return None
    return data[start + layout.offset] >> layout.shift & layout.mask


def _is_mpeg_random_access(name: str) -> Callable[[bytes, bytes], bool]:
    return lambda data, extradata: _mpeg_picture_type(data, name) == MPEG_PICTURES[name].intra


_CHECKS: dict[str, Callable[[bytes, bytes], bool]] = {
    "h264": _is_h264_random_access,
    "hevc": _is_hevc_random_access,
    "vp8": _is_vp8_random_access,
    **{name: _is_mpeg_random_access(name) for name in MPEG_PICTURES},
}


def _slice_type(unit: bytes) -> int | None:
    """``slice_type`` of an H.264 slice; None if its header is damaged."""
    bits = BitReader(unit[1:])
    try:
        bits.exp_golomb()  # first_mb_in_slice
        return bits.exp_golomb()
    except EOFError:
        return None
