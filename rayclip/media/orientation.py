"""Which way up a frame is, as its display matrix says."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple, cast

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer, Type
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from rayclip.errors import BadVideo, Code

CONVERTED = (0, 1, 2, 4, 5, 6, 7, 9)  # matrices of libavutil's AVColorSpace that swscale knows
BT601 = 5

_of_this_thread = threading.local()


def _unknown_type(kind: type[Type], value: object) -> Type:
    """A member for a type of side data that PyAV has no name for, such as EXIF.

    Up to version 18, PyAV raises ValueError for such a frame; from 19 on it does the same as this.
    """
    member: Any = object.__new__(kind)
    member._name_, member._value_ = f"UNKNOWN_{value}", value
    return cast(Type, kind._value2member_map_.setdefault(value, member))


if "_missing_" not in vars(Type):
    Type._missing_ = classmethod(_unknown_type)  # type: ignore[assignment, method-assign]


class Orientation(NamedTuple):
    """What makes a decoded frame upright, in this order.

    Attributes:
        transpose: rows become columns.
        mirror_x: left and right change places.
        mirror_y: top and bottom change places.
    """

    transpose: bool
    mirror_x: bool
    mirror_y: bool


def orientation(frame: av.VideoFrame) -> Orientation:
    """Multiples of 90 degrees and mirrors, as ffmpeg's autorotate follows them; other angles are
    left as they are."""
    # Not frame.side_data: the frame would keep that, and that the frame, until some later day on
    # which Python looks for such circles. Hundreds of frames are a gigabyte or more.
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
    """Pixels as uint8 ``[height, width, 3]``, upright.

    Raises:
        BadVideo: they are of a format that cannot be converted (stage ``decode``).
    """
    rgb = np.asarray(_converted(frame).to_ndarray(), np.uint8)
    transpose, mirror_x, mirror_y = orientation(frame)
    if transpose:
        rgb = rgb.swapaxes(0, 1)
    return np.ascontiguousarray(rgb[:: -1 if mirror_y else 1, :: -1 if mirror_x else 1])


def _converted(frame: av.VideoFrame) -> av.VideoFrame:
    """The frame in rgb24. ``frame.to_ndarray`` would set up a converter of many threads for each:
    that takes 0.35 ms, several times as long as to convert a small picture."""
    try:
        converter: VideoReformatter = _of_this_thread.converter
    except AttributeError:
        converter = _of_this_thread.converter = VideoReformatter()
    # As if it said nothing, where it says what is not known: swscale would refuse it.
    matrix = None if int(frame.colorspace) in CONVERTED else BT601
    try:
        return converter.reformat(frame, format="rgb24", src_colorspace=matrix, threads=1)
    except av.FFmpegError as error:
        raise BadVideo(
            "decode",
            Code.UNSUPPORTED_PIXELS,
            f"its pixels ({frame.format.name}) cannot be converted to RGB: {error.strerror}",
        ) from None
