"""The file that lists a run's videos: text, a table or JSON Lines, by its suffix."""

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
from rayclip.inputs.json_lines import json_tables
from rayclip.inputs.local_names import resolve_local_name
from rayclip.inputs.tables import DELIMITERS, csv_tables, parquet_tables
from rayclip.inputs.video_rows import BATCH_ROWS, NAMES_ONLY, name_tables, names_in
from rayclip.io.remote import open_remote
from rayclip.io.storage_errors import reason

STANDARD_INPUT = "-"
PATH_COLUMN = "path"


@dataclass(frozen=True)
class VideoList:
    """A list of videos, opened anew for each pass over it.

    Attributes:
        path: a local path, an fsspec URL, or ``-`` for standard input.
        path_column: of a table: the column of paths.
        storage_options: given to fsspec.
    """

    path: str
    path_column: str = PATH_COLUMN
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def names(self) -> Iterator[str]:
        """The videos, in order.

        Raises:
            UsageError: the list cannot be read, or has something else in it.
        """
        with self._readable_errors():
            if self._is_table:
                for table in self._tables(extra_columns=False):
                    yield from names_in(table)
            else:
                yield from self._lines()

    def rows(self) -> Iterator[pa.Table]:
        """The videos with the columns beside them; the first table is empty, and tells the types.

        Raises:
            UsageError: as :meth:`names`, or the columns cannot be carried along.
        """
        with self._readable_errors():
            if self._is_table:
                yield from self._tables(extra_columns=True)
            else:
                yield NAMES_ONLY.empty_table()
                yield from name_tables(self._lines(), BATCH_ROWS)

    @property
    def _suffix(self) -> str:
        path = self.path
        if path.lower().startswith(("http://", "https://")):  # a query may say anything
            path = urlsplit(path).path
        return PurePosixPath(path).suffix.lower()

    @property
    def _is_table(self) -> bool:
        return self._suffix in (".parquet", ".jsonl", *DELIMITERS)

    def _tables(self, extra_columns: bool) -> Iterator[pa.Table]:
        with self._open() as file:
            if self._suffix == ".parquet":
                yield from parquet_tables(file, self.path, self.path_column, extra_columns)
                return
            with self._open() as again:
                if self._suffix == ".jsonl":
                    tables = json_tables(file, again, self.path, self.path_column, extra_columns)
                else:
                    delimiter = DELIMITERS[self._suffix]
                    tables = csv_tables(
                        file, again, self.path, delimiter, self.path_column, extra_columns
                    )
                yield from tables

    def _lines(self) -> Iterator[str]:
        if self.path_column != PATH_COLUMN:
            raise UsageError(
                f"path_column is {self.path_column}, but {self.path} is taken for a text list: "
                "tables have the suffix .csv, .tsv, .jsonl or .parquet."
            )
        if self.path == STANDARD_INPUT:
            yield from _standard_input_lines()
            return
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
    """Whether a text list can hold this input: :func:`video_lines` gives it back as it was."""
    return bool(video) and video == video.strip() and "\n" not in video and "\r" not in video


def decode_text(file: IO[bytes]) -> io.TextIOWrapper:
    """Bytes that are not UTF-8 stand for themselves, as in the names of files."""
    return io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape")


def video_lines(file: TextIO) -> Iterator[str]:
    """The videos of a text list, one per line."""
    for line in file:
        if "\0" in line:
            raise ValueError("there are zero bytes in it, so that it is no UTF-8 text")
        if video := line.strip():
            yield resolve_local_name(video)


@cache
def _standard_input() -> IO[bytes]:
    """Standard input can be read only once, but the list is passed over more than once."""
    kept = tempfile.TemporaryFile()  # noqa: SIM115  # open until the process ends
    shutil.copyfileobj(sys.stdin.buffer, kept)
    return kept


def _standard_input_lines() -> Iterator[str]:
    kept = _standard_input()
    kept.seek(0)
    text = decode_text(kept)
    try:
        yield from video_lines(text)
    finally:
        text.detach()  # which would close it
