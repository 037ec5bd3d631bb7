"""Read the videos of a tar file in one pass forward, as WebDataset lays them out.

The files of a sample follow one another and share their names up to the first dot: ``a.mp4``,
``a.json`` and ``a.txt``. https://github.com/webdataset/webdataset defines it.
"""

from __future__ import annotations

import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import groupby
from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO, NamedTuple, cast

import pyarrow as pa

from rayclip.errors import BadVideo, Code
from rayclip.inputs.expansion import is_video_name
from rayclip.io.remote import BLOCK_BYTES
from rayclip.media.source import open_reader, translated_errors

MAX_HELD_BYTES = 64 * 2**20
"""Of the videos that wait for texts, in memory. A larger video goes through a temporary file."""

TEXTS = ("json", "txt")
"""Suffixes of files whose text goes with the video of the same sample."""

MAX_TEXT_BYTES = 16 * 2**20  # of a sample; no column can have texts of any size

COLUMNS = pa.schema([(suffix, pa.string()) for suffix in TEXTS])


class TarVideo(NamedTuple):
    """A video in a tar file.

    Attributes:
        position: what it was given.
        member: its name there.
        content: its bytes; closed when the next video is asked for.
        columns: one row of :data:`COLUMNS`, with the texts of its sample.
    """

    position: int
    member: str
    content: BinaryIO
    columns: pa.Table


class TarVideos:
    """The videos of a tar file.

    Attributes:
        count: how many there are, as far as it was read.
    """

    def __init__(self, path: str, storage_options: Mapping[str, Any]) -> None:
        """Name a tar file, without opening it.

        Args:
            path: a local path or an fsspec URL.
            storage_options: passed to fsspec.
        """
        self.count = 0
        self._path = path
        self._storage_options = storage_options

    def read(self, position_of: Callable[[str], int | None]) -> Iterator[TarVideo]:
        """Read the file once and forward, and yield its videos in order.

        Args:
            position_of: called once with the name of each, in order; returns its position, or None
                to pass it over.

        Raises:
            VideoError: it cannot be opened or read, or it is damaged or truncated. Transient if it
                was interrupted and cannot seek; read it again then.
        """
        with (
            translated_errors(),
            _damage_is_ours(),
            open_reader(self._path, self._storage_options) as file,
            _open_archive(file) as archive,
        ):
            for sample, members in groupby(archive, key=lambda member: _sample(member.name)):
                yield from self._videos(archive, sample, members, position_of)

    def _videos(
        self,
        archive: Any,
        sample: str,
        members: Iterator[tarfile.TarInfo],
        position_of: Callable[[str], int | None],
    ) -> Iterator[TarVideo]:
        """Yield the wanted videos of a sample: after its last file, or when too much waits for it,
        since all files of some archives have the same name up to the first dot."""
        held: list[tuple[int, str, BinaryIO]] = []
        texts: dict[tuple[str, str], str] = {}
        held_bytes = text_bytes = 0
        with ExitStack() as opened:
            for member in members:
                archive.members = []  # otherwise it remembers every file
                stem, _, suffix = member.name.rpartition(".")
                kind = suffix.lower()
                if not member.isfile() or member.name.rpartition("/")[2].startswith("."):
                    continue
                if is_video_name(member.name):
                    self.count += 1
                    if held_bytes and held_bytes + member.size > MAX_HELD_BYTES:
                        yield from _with_texts(held, texts)
                        texts = {key: texts[key] for key in texts if key[0] in (sample, stem)}
                        held, held_bytes, text_bytes = [], 0, 0
                    held_bytes += member.size
                    if (position := position_of(member.name)) is not None:
                        spool = opened.enter_context(SpooledTemporaryFile(MAX_HELD_BYTES))
                        shutil.copyfileobj(archive.extractfile(member), spool, BLOCK_BYTES)
                        held.append((position, member.name, cast(BinaryIO, spool)))
                elif kind in TEXTS and text_bytes + member.size <= MAX_TEXT_BYTES:
                    text_bytes += member.size
                    text = archive.extractfile(member).read()
                    texts[stem, kind] = text.decode("utf-8", "backslashreplace")
            yield from _with_texts(held, texts)


def _with_texts(
    videos: Sequence[tuple[int, str, BinaryIO]], texts: Mapping[tuple[str, str], str]
) -> Iterator[TarVideo]:
    """Yield videos of a sample, given its texts by stem and suffix."""
    for position, name, content in videos:
        content.seek(0)
        yield TarVideo(position, name, content, _columns(name, texts))
        content.close()


def _open_archive(file: Any) -> tarfile.TarFile:
    """Open an archive as a stream, which may be compressed."""
    return tarfile.open(fileobj=file, mode="r|*", bufsize=BLOCK_BYTES, tarinfo=_Header)


def _columns(video: str, texts: Mapping[tuple[str, str], str]) -> pa.Table:
    """Return the texts that go with a video, given those of its sample by stem and suffix."""
    stem, sample = video.rpartition(".")[0], _sample(video)
    found = [texts.get((stem, kind), texts.get((sample, kind))) for kind in TEXTS]
    return pa.Table.from_arrays([pa.array([text], pa.string()) for text in found], schema=COLUMNS)


class _Header(tarfile.TarInfo):
    """A whole header: tarfile takes a damaged or a missing one for the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, *how: Any) -> Any:
        try:
            return super().frombuf(buf, *how)
        except tarfile.HeaderError as error:
            if buf and not any(buf):
                raise  # zeros are the end
            raise tarfile.ReadError(str(error)) from error


def _sample(member: str) -> str:
    """What the names of a sample's files have in common."""
    folder, slash, file = member.rpartition("/")
    return folder + slash + file.partition(".")[0]


@contextmanager
def _damage_is_ours() -> Iterator[None]:
    """Convert the errors of damaged archives."""
    try:
        yield
    except (tarfile.TarError, zlib.error, EOFError) as error:
        message = f"the tar file is damaged or truncated ({error})"
        raise BadVideo("read", Code.TAR_DAMAGED, message) from error
