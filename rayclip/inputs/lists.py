"""Read the file that lists a run's videos: text, a table or JSON Lines, by its suffix."""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import PurePosixPath
from typing import IO, Any, TextIO
from urllib.parse import urlsplit

import pyarrow as pa

from rayclip.errors import UsageError
from rayclip.inputs.frames_folders import as_folder
from rayclip.inputs.json_lines import json_columns, json_tables
from rayclip.inputs.local_names import resolve_local_name
from rayclip.inputs.ranges import RANGE_COLUMNS
from rayclip.inputs.tables import (
    DELIMITERS,
    TableReading,
    csv_columns,
    csv_tables,
    parquet_columns,
    parquet_tables,
)
from rayclip.inputs.video_rows import BATCH_ROWS, NAMES_ONLY, name_tables, names_in
from rayclip.io.remote import open_remote
from rayclip.io.storage_errors import reason

STANDARD_INPUT = "-"
PATH_COLUMN = "path"


@dataclass(frozen=True)
class VideoList:
    """A list of videos, opened again for each pass over it.

    Attributes:
        path: a local path, an fsspec URL, or ``-`` for standard input.
        path_column: for tables, the column of paths.
        storage_options: passed to fsspec.
        with_ranges: whether columns of ranges make the rows of a table parts of videos.
        of_folders: whether it holds folders of frames, which then end in a slash.
    """

    path: str
    path_column: str = PATH_COLUMN
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    with_ranges: bool = True
    of_folders: bool = False

    def names(self) -> Iterator[str]:
        """Yield the videos, in order.

        Raises:
            UsageError: the list cannot be read or parsed.
        """
        with self._readable_errors():
            if self._is_table:
                for table in self._tables(extra_columns=False):
                    yield from names_in(table)
            else:
                yield from self._lines()

    def rows(self) -> Iterator[pa.Table]:
        """Yield tables of videos with extra columns; the first one is empty and has the schema.

        Raises:
            UsageError: the same as in :meth:`names`, or a column cannot be copied.
        """
        with self._readable_errors():
            if self._is_table:
                yield from self._tables(extra_columns=True)
            else:
                yield NAMES_ONLY.empty_table()
                yield from name_tables(self._lines(), BATCH_ROWS)

    def range_columns(self) -> list[str]:
        """Return which columns of ranges are used.

        Raises:
            UsageError: the list cannot be read or parsed.
        """
        if not self._is_table or not self.with_ranges:
            return []
        with self._readable_errors(), self._open() as file:
            if self._suffix == ".jsonl":
                found = json_columns(file, self.path)
            elif self._suffix == ".parquet":
                found = parquet_columns(file, self.path)
            else:
                found = csv_columns(file, DELIMITERS[self._suffix])
        return [name for name in RANGE_COLUMNS if name in found]

    @property
    def _suffix(self) -> str:
        path = self.path
        if path.lower().startswith(("http://", "https://")):  # ignore the query
            path = urlsplit(path).path
        return PurePosixPath(path).suffix.lower()

    @property
    def _is_table(self) -> bool:
        return self._suffix in (".parquet", ".jsonl", *DELIMITERS)

    def _tables(self, extra_columns: bool) -> Iterator[pa.Table]:
        reading = TableReading(
            self.path, self.path_column, extra_columns, self.with_ranges, self.of_folders
        )
        with self._open() as file:
            if self._suffix == ".parquet":
                yield from parquet_tables(file, reading)
                return
            with self._open() as again:
                if self._suffix == ".jsonl":
                    yield from json_tables(file, again, reading)
                else:
                    yield from csv_tables(file, again, DELIMITERS[self._suffix], reading)

    def _lines(self) -> Iterator[str]:
        if self.path_column != PATH_COLUMN:
            raise UsageError(
                f"path_column is {self.path_column}, but {self.path} is read as a text list: give "
                "tables the suffix .csv, .tsv, .jsonl or .parquet."
            )
        read = _standard_input_lines if self.path == STANDARD_INPUT else self._file_lines
        yield from map(as_folder, read()) if self.of_folders else read()

    def _file_lines(self) -> Iterator[str]:
        with self._text() as text:
            yield from video_lines(text)

    def _open(self) -> AbstractContextManager[IO[bytes]]:
        if "://" in self.path:
            return open_remote(self.path, self.storage_options)
        return open(self.path, "rb")

    @contextmanager
    def _text(self) -> Iterator[TextIO]:
        with self._open() as file:
            yield decode_text(file)

    @contextmanager
    def _readable_errors(self) -> Iterator[None]:
        try:
            yield
        except UsageError:
            raise
        except Exception as error:  # each storage has exceptions of its own
            raise UsageError(
                f"The list of videos {self.path} cannot be read: {reason(error)}."
            ) from error


def fits_a_line(video: str) -> bool:
    """Whether a text list can hold this input, so that :func:`video_lines` returns it unchanged."""
    is_line = video == video.strip() and "\n" not in video and "\r" not in video
    return bool(video) and is_line and video == resolve_local_name(video)


def decode_text(file: IO[bytes]) -> io.TextIOWrapper:
    """Decode UTF-8; other bytes become surrogates, as in file names."""
    return io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape")


def video_lines(file: TextIO) -> Iterator[str]:
    """Yield the videos of a text list, one per line."""
    for line in file:
        if "\0" in line:
            raise ValueError("it contains zero bytes, so it is not UTF-8 text")
        if video := line.strip():
            yield resolve_local_name(video)


@cache
def _standard_input() -> IO[bytes]:
    """Copy standard input to a file, since the list needs more than one pass."""
    copy = tempfile.TemporaryFile()  # noqa: SIM115  # open until the process ends
    shutil.copyfileobj(sys.stdin.buffer, copy)
    return copy


def _standard_input_lines() -> Iterator[str]:
    copy = _standard_input()
    copy.seek(0)
    text = decode_text(copy)
    try:
        yield from video_lines(text)
    finally:
        text.detach()  # otherwise it would close the copy
