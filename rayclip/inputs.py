"""The videos of a run, one at a time: arguments first, then a list file."""

from __future__ import annotations

import io
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import PurePosixPath
from typing import IO, TextIO
from urllib.parse import unquote

import fsspec

from rayclip.errors import UsageError
from rayclip.faults import reason
from rayclip.safe_names import safe_name
from rayclip.settings import Settings

STANDARD_INPUT = "-"
PATH_COLUMN = "path"
ROWS_AT_A_TIME = 65_536
DELIMITERS = {".csv": ",", ".tsv": "\t"}


def iter_videos(settings: Settings) -> Iterator[str]:
    """Every input of a run in order, read lazily; it can be called again for another pass.

    Raises:
        UsageError: the list cannot be read, or there is no list and no video.
    """
    if not settings.video_paths and settings.file_with_video_paths is None:
        raise UsageError("No videos were given: name some, or a file_with_video_paths.")
    yield from settings.video_paths
    if settings.file_with_video_paths is not None:
        empty = not settings.video_paths
        for video in _listed(settings.file_with_video_paths, settings):
            empty = False
            yield video
        if empty:
            raise UsageError(f"The list {settings.file_with_video_paths} holds no videos.")


def stem(video: str) -> str:
    """A video's name without folders and suffix: ``a/b.c.mp4`` gives ``b.c``."""
    scheme, is_url, path = video.partition("://")
    return PurePosixPath(_path_in(scheme, path)[1] if is_url else video).stem


def output_name(video: str, naming: str) -> str:
    """The name of a video's files in the output folder; it never leads out of there.

    Args:
        video: a path or URL, as it was given.
        naming: ``stem`` gives the stem, ``path`` puts folders like the input's before it.
    """
    if naming == "stem":
        return safe_name(stem(video))
    scheme, is_url, path = video.partition("://")
    path = "/".join((scheme, *_path_in(scheme, path))) if is_url else os.path.normpath(video)
    folders = [part for part in path.split("/")[:-1] if part not in ("", ".", "..")]
    return safe_name(*folders, stem(video))


def _path_in(scheme: str, rest: str) -> tuple[str, str]:
    """The host, where that is told apart, and the path of a URL, without what may be secret."""
    if scheme.lower() not in ("http", "https"):
        return "", rest.partition("::")[0]  # zip://member::archive
    host, _, path = re.split("[?#]", rest, maxsplit=1)[0].partition("/")
    return host.rpartition("@")[2], unquote(path)


def absolute(video: str, folder: str) -> str:
    """A URL as it is; a local path from the folder in which the command was given."""
    return video if "://" in video else os.path.join(folder, video)


def _listed(path: str, settings: Settings) -> Iterator[str]:
    try:
        suffix = PurePosixPath(path).suffix.lower()
        if path == STANDARD_INPUT:
            yield from _standard_input_lines()
        elif suffix == ".parquet":
            yield from _parquet_rows(path, settings)
        elif suffix in DELIMITERS:
            yield from _csv_rows(path, DELIMITERS[suffix], settings)
        else:
            with fsspec.open(path, "rb", **settings.storage_options) as file:
                yield from _lines(_text(file))
    except UsageError:
        raise
    except Exception as error:  # each storage has exceptions of its own
        raise UsageError(f"The list of videos {path} cannot be read: {reason(error)}.") from error


def fits_a_line(video: str) -> bool:
    """Whether a text list can hold this input: :func:`_lines` gives it back as it was."""
    return bool(video) and video == video.strip() and "\n" not in video and "\r" not in video


def _text(file: IO[bytes]) -> io.TextIOWrapper:
    """Bytes that are not UTF-8 stand for themselves, as in the names of files."""
    return io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape")


def _lines(file: TextIO) -> Iterator[str]:
    for line in file:
        if "\0" in line:
            raise ValueError("there are zero bytes in it, so that it is no UTF-8 text")
        if video := line.strip():
            yield video


@cache
def _standard_input() -> IO[bytes]:
    """Standard input can be read only once, but the list is passed over more than once."""
    kept = tempfile.TemporaryFile()  # noqa: SIM115  # open until the process ends
    shutil.copyfileobj(sys.stdin.buffer, kept)
    return kept


def _standard_input_lines() -> Iterator[str]:
    kept = _standard_input()
    kept.seek(0)
    text = _text(kept)
    try:
        yield from _lines(text)
    finally:
        text.detach()  # which would close it


def _parquet_rows(path: str, settings: Settings) -> Iterator[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with fsspec.open(path, "rb", **settings.storage_options) as file:
        try:
            table = pq.ParquetFile(file)
        except pa.ArrowInvalid as error:
            raise UsageError(f"{path} is not a parquet table: {error}.") from error
        if PATH_COLUMN not in table.schema_arrow.names:
            raise _no_column(path, table.schema_arrow.names)
        for batch in table.iter_batches(ROWS_AT_A_TIME, columns=[PATH_COLUMN]):
            yield from _paths(batch.column(0).to_pylist(), path)


def _csv_rows(path: str, delimiter: str, settings: Settings) -> Iterator[str]:
    import pyarrow as pa
    from pyarrow import csv

    read = csv.ReadOptions(use_threads=False)  # no thread reads on where a pass is given up
    # Quoted values, such as captions beside the paths, may have line ends in them.
    parse = csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    paths = csv.ConvertOptions(
        include_columns=[PATH_COLUMN],
        column_types={PATH_COLUMN: pa.binary()},  # they need not be UTF-8
    )
    with fsspec.open(path, "rb", **settings.storage_options) as file:
        try:
            batches = csv.open_csv(file, read, parse, paths)
        except KeyError:
            file.seek(0)
            columns = csv.open_csv(file, read, parse).schema.names
            raise _no_column(path, columns) from None
        with batches:
            for batch in batches:
                yield from _paths(map(os.fsdecode, batch.column(0).to_pylist()), path)


def _paths(values: Iterable[object], table: str) -> Iterator[str]:
    for video in values:
        if not isinstance(video, str) or not video:
            raise UsageError(f"{table} has {video!r} in column {PATH_COLUMN!r}: no path.")
        yield video


def _no_column(path: str, columns: Iterable[str]) -> UsageError:
    return UsageError(
        f"{path} has no column {PATH_COLUMN!r}; its columns are: {', '.join(columns)}."
    )
