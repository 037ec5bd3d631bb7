"""Small files that claim or expand to gigabytes, and a process that measures decoding them."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av

SIDE = 8192  # the largest square that is decoded


# ---- mp4 ----


def _box(kind: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def _full_box(kind: bytes, *numbers: int, tail: bytes = b"", flags: int = 0) -> bytes:
    return _box(kind, struct.pack(f">{1 + len(numbers)}I", flags, *numbers), tail)


def _mp4(table: list[bytes], *more: bytes, codec: bytes = b"jpeg") -> bytes:
    """An mp4 file of one track with these sample tables."""
    matrix = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    sizes = struct.pack(">HHII", 64, 48, 0x480000, 0x480000)
    entry = _box(codec, bytes(7) + b"\1" + bytes(16) + sizes + bytes(4) + b"\0\1" + bytes(36))
    stbl = _box(b"stbl", _full_box(b"stsd", 1, tail=entry), *table)
    source = _box(b"dinf", _full_box(b"dref", 1, tail=_full_box(b"url ", flags=1)))
    minf = _box(b"minf", _full_box(b"vmhd", 0, 0, flags=1), source, stbl)
    hdlr = _full_box(b"hdlr", 0, tail=b"vide" + bytes(13))
    mdia = _box(b"mdia", _full_box(b"mdhd", 0, 0, 1000, 1000, 0x55C40000), hdlr, minf)
    shown = bytes(16) + matrix + struct.pack(">II", 64 << 16, 48 << 16)
    trak = _box(b"trak", _full_box(b"tkhd", 0, 0, 1, 0, 1000, tail=shown, flags=7), mdia)
    mvhd = _full_box(b"mvhd", 0, 0, 1000, 1000, 0x10000, 0x01000000, 0, 0, tail=matrix + bytes(28))
    ftyp = _box(b"ftyp", b"isom\0\0\2\0isomiso2mp41")
    return ftyp + _box(b"mdat", bytes(1000)) + _box(b"moov", mvhd, trak, *more)


def index_with_samples(samples: int, size: int = 1) -> bytes:
    """An mp4 file that claims this many pictures of one size, which needs no table."""
    return _mp4(
        [
            _full_box(b"stts", 1, samples, 1),
            _full_box(b"stsc", 1, 1, samples, 1),
            _full_box(b"stsz", size, samples),
            _full_box(b"stco", 1, 36),
        ]
    )


def fragments_with_samples(samples: int, runs: int) -> bytes:
    """An mp4 file with runs of pictures of zero bytes each."""
    empty = [_full_box(kind, 0) for kind in (b"stts", b"stsc", b"stco")]
    empty.append(_full_box(b"stsz", 0, 0))
    extends = _box(b"mvex", _full_box(b"trex", 1, 1, 1, 1, 0))
    begin = _full_box(b"tfhd", 1, flags=0x20000) + _full_box(b"tfdt", 0)
    run = _full_box(b"trun", samples)
    moof = _box(b"moof", _full_box(b"mfhd", 1), _box(b"traf", begin, run * runs))
    return _mp4(empty, extends) + moof + _box(b"mdat", bytes(1000))


def a_box_of_a_terabyte() -> bytes:
    return _box(b"ftyp", b"isom\0\0\2\0isom") + struct.pack(">I4sQ", 1, b"uuid", 2**40) + bytes(99)


# ---- Matroska ----


def _element(name: str, content: bytes, size: int | None = None) -> bytes:
    length = len(content) if size is None else size
    return bytes.fromhex(name) + struct.pack(">Q", length | 1 << 56) + content


def _number(value: int) -> bytes:
    return struct.pack(">I", value)


def _mkv(codec: bytes, private: bytes, width: int, height: int, packets: list[bytes]) -> bytes:
    video = _element("e0", _element("b0", _number(width)) + _element("ba", _number(height)))
    track = _element("d7", b"\1") + _element("83", b"\1") + _element("86", codec) + private + video
    blocks = [
        _element("1f43b675", _element("e7", _number(40 * i)) + _element("a3", b"\x81\0\0\x80" + p))
        for i, p in enumerate(packets)
    ]
    content = _element("1654ae6b", _element("ae", track)) + b"".join(blocks)
    return _element("1a45dfa3", _element("4282", b"matroska")) + _element("18538067", content)


def a_codec_header_of_a_terabyte() -> bytes:
    return _mkv(b"V_MPEG4/ISO/ASP", _element("63a2", bytes(99), size=2**40), 64, 48, [])


def pictures_of_sixteen_billion_pixels() -> bytes:
    return _mkv(b"V_MPEG4/ISO/ASP", b"", 2**17, 2**17, [bytes(100)])


def many_pictures_in_a_packet(count: int, side: int) -> bytes:
    """AV1: a packet may contain any number of pictures."""
    encoder = av.CodecContext.create("libsvtav1", "w")
    encoder.width = encoder.height = side
    encoder.pix_fmt, encoder.time_base = "yuv420p", Fraction(1, 25)
    encoder.options = {"preset": "13"}
    frame = av.VideoFrame(side, side, "yuv420p")
    for plane in frame.planes:
        plane.update(bytes(plane.buffer_size))
    key = bytes((encoder.encode(frame) + encoder.encode(None))[0])
    without_delimiter = key[2:]
    header_end = 2 + without_delimiter[1]
    private = _element("63a2", b"\x81\0\x0c\0" + without_delimiter[:header_end])
    return _mkv(b"V_AV1", private, side, side, [key + without_delimiter * (count - 1)])


# ---- pictures ----


def a_gif(side: int, frames: int) -> bytes:
    head = b"GIF89a" + struct.pack("<HH", side, side) + b"\x80\0\0" + bytes(3) + b"\xff" * 3
    one = b"\x21\xf9\4\4\x0a\0\0\0\x2c" + struct.pack("<4H", 0, 0, 1, 1) + b"\0\2\2\x44\1\0"
    return head + one * frames + b";"


def _png(side: int, depth: int, colours: int, *chunks: tuple[bytes, bytes]) -> bytes:
    head = b"IHDR", struct.pack(">IIBBBBB", side, side, depth, colours, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in (head, *chunks, (b"IEND", b""))
    )


def _many_zeros(size: int) -> bytes:
    """A zlib stream of zeros, compressed a thousandfold; only its checksum is wrong."""
    block = 2**24
    packer = zlib.compressobj()
    first = packer.compress(bytes(block)) + packer.flush(zlib.Z_FULL_FLUSH)
    repeated = packer.compress(bytes(block)) + packer.flush(zlib.Z_FULL_FLUSH)
    return first + repeated * (size // block) + packer.flush()


def a_png_of_sixteen_bits(side: int) -> bytes:
    return _png(side, 16, 6, (b"IDAT", _many_zeros(side * (8 * side + 1))))


def a_png_with_a_long_text(size: int) -> bytes:
    pixels = zlib.compress(bytes(65 * 64))
    return _png(64, 8, 0, (b"zTXt", b"k\0\0" + _many_zeros(size)), (b"IDAT", pixels))


# ---- decoding ----

DECODE = """
import json, os, sys
from rayclip.media import watchdog
from rayclip.errors import VideoError
from rayclip.media.frames import open_selected
from rayclip.model.preprocess import Resizing, resize
from rayclip.media.frame_choice import FrameChoice

def report(frames, code):
    lines = open("/proc/self/status") if os.path.exists("/proc") else []
    peaks = [int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
    print(json.dumps([frames, code, *peaks]), flush=True)

def end_process(violation):
    report(0, None)
    watchdog.end_process(violation)

watchdog.LIBAV._on_violation = end_process
max_growth, max_memory, *paths = sys.argv[1:]
if int(max_memory):
    watchdog.LIBAV._max_growth, watchdog.LIBAV._max_memory = int(max_growth), int(max_memory)
for path in paths:
    frames, code = 0, None
    try:
        with watchdog.LIBAV.watching(path), open_selected(path, FrameChoice()) as wanted:
            for selected in wanted.frames:
                resize(selected.rgb(), Resizing(64))
                frames += 1
    except VideoError as error:
        code = error.code
    report(frames, code)
"""


class Decoded(NamedTuple):
    """The result of decoding every frame of a video as a Ray worker does.

    Attributes:
        status: exit status of the process.
        frames: number of decoded frames.
        code: of the error that ended the video.
        peak: peak memory of the process in bytes.
    """

    status: int
    frames: int
    code: str | None
    peak: int


def decode_in_process(*paths: Path, max_growth: int = 0, max_memory: int = 0) -> list[Decoded]:
    """Decode videos one after another in a separate process.

    Args:
        paths: of the videos; those after one that ends the process are not decoded.
        max_growth: bytes that a video may take; only used with ``max_memory``.
        max_memory: bytes that the process may take; 0 for the usual limits.
    """
    # The process reports its own peak: its ru_maxrss would include ours, which it starts as.
    command = [sys.executable, "-c", DECODE, str(max_growth), str(max_memory), *map(str, paths)]
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    lines = map(json.loads, ended.stdout.splitlines())
    return [Decoded(ended.returncode, frames, code, 1024 * peak) for frames, code, peak in lines]


Make = Callable[[], bytes]
