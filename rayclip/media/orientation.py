"""Turn frames upright according to their display matrix."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple, cast

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer, Type
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from rayclip.errors import BadVideo, Code

SUPPORTED_MATRICES = (0, 1, 2, 4, 5, 6, 7, 9)  # values of AVColorSpace that swscale supports
BT601 = 5

_thread_local = threading.local()


def _unknown_type(kind: type[Type], value: object) -> Type:
    """Create an enum member for side data that PyAV does not know, such as EXIF.

    PyAV raises ValueError for such a frame up to version 18. Version 19 adds the same member.
    """
    member: Any = object.__new__(kind)
    member._name_, member._value_ = f"UNKNOWN_{value}", value
    return cast(Type, kind._value2member_map_.setdefault(value, member))


if "_missing_" not in vars(Type):
    Type._missing_ = classmethod(_unknown_type)  # type: ignore[assignment, method-assign]


class Orientation(NamedTuple):
    """The operations that make a decoded frame upright, in this order.

    Attributes:
        transpose: swap rows and columns.
        mirror_x: swap left and right.
        mirror_y: swap top and bottom.
    """

    transpose: bool
    mirror_x: bool
    mirror_y: bool


def orientation(frame: av.VideoFrame) -> Orientation:
    """Read rotations by multiples of 90 degrees and mirrors, as in ffmpeg's autorotate.

    Other angles are ignored.
    """
    # Not frame.side_data: it creates a reference cycle with the frame, which then lives until the
    # next garbage collection. Hundreds of frames take a gigabyte or more.
    side_data: Any = SideDataContainer
    matrix: Any = side_data(frame).get("DISPLAYMATRIX")
    if matrix is None:
        return Orientation(False, False, False)
    terms = np.frombuffer(bytes(matrix)[:36], np.int32)
    # output x = a*x + c*y and output y = b*x + d*y, in 16.16 fixed point
    a, b, c, d = (int(np.sign(t)) if abs(int(t)) > 1000 else 0 for t in terms[[0, 1, 3, 4]])
    transpose = bool(b and c)
    if transpose:
        a, d = c, b
    return Orientation(transpose, a < 0, d < 0)


def upright_rgb(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """Convert a frame to upright pixels: uint8 ``[height, width, 3]``, with any strides.

    Raises:
        BadVideo: the pixel format cannot be converted (stage ``decode``).
    """
    rgb = np.asarray(_to_rgb24(frame).to_ndarray(), np.uint8)
    transpose, mirror_x, mirror_y = orientation(frame)
    if transpose:
        rgb = rgb.swapaxes(0, 1)
    return rgb[:: -1 if mirror_y else 1, :: -1 if mirror_x else 1]


def _to_rgb24(frame: av.VideoFrame) -> av.VideoFrame:
    """Convert a frame to rgb24.

    ``frame.to_ndarray`` would start a multi-threaded converter for each frame. That takes 0.35 ms,
    several times as long as the conversion of a small picture.
    """
    try:
        converter: VideoReformatter = _thread_local.converter
    except AttributeError:
        converter = _thread_local.converter = VideoReformatter()
    # swscale refuses unsupported matrices, so those are treated like an unspecified one.
    matrix = None if int(frame.colorspace) in SUPPORTED_MATRICES else BT601
    try:
        return converter.reformat(frame, format="rgb24", src_colorspace=matrix, threads=1)
    except av.FFmpegError as error:
        raise BadVideo(
            "decode",
            Code.UNSUPPORTED_PIXELS,
            f"its pixels ({frame.format.name}) cannot be converted to RGB: {error.strerror}",
        ) from None
