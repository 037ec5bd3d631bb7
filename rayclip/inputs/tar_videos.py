"""Read the videos of a tar file in one pass forward, as WebDataset lays them out.

The files of a sample follow one another and share their names up to the first dot: ``a.mp4``,
``a.json`` and ``a.txt``. https://github.com/webdataset/webdataset defines it.
"""

from __future__ import annotations

import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from itertools import groupby
from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO, NamedTuple, cast

import pyarrow as pa

from rayclip.errors import BadVideo, Code
from rayclip.inputs.expansion import is_video_name
from rayclip.io.remote import BLOCK_BYTES, open_remote
from rayclip.media.source import open_local, translated_errors

SPOOL_BYTES = 64 * 2**20  # a larger video goes through a temporary file
TEXTS = ("json", "txt")
"""Suffixes of files whose text goes with the video of the same sample."""

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
            VideoError: it cannot be opened or read, or it is damaged or truncated.
        """
        with translated_errors(), _damage_is_ours(), self._opened() as archive:
            for _, members in groupby(archive, key=lambda member: _sample(member.name)):
                archive.members = []  # otherwise it remembers every file
                yield from self._videos(archive, members, position_of)

    def _videos(
        self,
        archive: Any,
        members: Iterator[tarfile.TarInfo],
        position_of: Callable[[str], int | None],
    ) -> Iterator[TarVideo]:
        """Yield the wanted videos of a sample."""
        with ExitStack() as opened:
            videos, texts = [], {}
            for member in members:
                stem, _, suffix = member.name.rpartition(".")
                if not member.isfile() or member.name.rpartition("/")[2].startswith("."):
                    continue
                if is_video_name(member.name):
                    self.count += 1
                    if (position := position_of(member.name)) is not None:
                        spool = opened.enter_context(SpooledTemporaryFile(SPOOL_BYTES))
                        shutil.copyfileobj(archive.extractfile(member), spool, BLOCK_BYTES)
                        videos.append((position, member.name, cast(BinaryIO, spool)))
                elif suffix.lower() in TEXTS:
                    text = archive.extractfile(member).read()
                    texts[stem, suffix.lower()] = text.decode("utf-8", "backslashreplace")
            for position, name, content in videos:
                content.seek(0)
                yield TarVideo(position, name, content, _columns(name, texts))
                content.close()

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        """Open it as a stream, which may be compressed."""
        with ExitStack() as stack:
            if "://" in self._path:
                file = stack.enter_context(open_remote(self._path, self._storage_options))
            else:
                file = stack.enter_context(closing(open_local(self._path)))
            yield stack.enter_context(
                tarfile.open(fileobj=file, mode="r|*", bufsize=BLOCK_BYTES, tarinfo=_Header)
            )


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
