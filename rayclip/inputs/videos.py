"""The videos of a run: arguments first, then a list file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice

import pyarrow as pa

from rayclip.errors import UsageError
from rayclip.inputs.expansion import expand
from rayclip.inputs.lists import STANDARD_INPUT, VideoList
from rayclip.inputs.local_names import resolve_local_name
from rayclip.inputs.video_rows import BATCH_ROWS, name_tables
from rayclip.settings import Settings


def iter_videos(settings: Settings) -> Iterator[str]:
    """The inputs of a run in order, up to its limit, read lazily; it can be called again for
    another pass.

    Raises:
        UsageError: they cannot be read, or there is no list and no video.
    """
    return islice(iter_all_videos(settings), settings.limit)


def iter_all_videos(settings: Settings) -> Iterator[str]:
    """The inputs of a run as :func:`iter_videos`, without a limit."""
    listed = _video_list(settings)
    if not settings.video_paths and listed is None:
        raise UsageError("No videos were given: name some, or a file_with_video_paths.")
    yield from _arguments(settings)
    if listed is not None:
        empty = not settings.video_paths
        for video in listed.names():
            empty = False
            yield video
        if empty:
            raise UsageError(f"The list {settings.file_with_video_paths} holds no videos.")


def iter_rows(settings: Settings, extra_columns: bool) -> Iterator[pa.Table]:
    """All inputs as :func:`iter_all_videos` gives them, in tables with a column ``video``.

    Args:
        settings: name them.
        carried: with the other columns of the list, too, where it is a table. They are null for
            videos that are arguments.

    Raises:
        UsageError: as :func:`iter_videos`, or columns cannot be carried along.
    """
    listed = _video_list(settings) if extra_columns else None
    if listed is None:
        yield from name_tables(iter_all_videos(settings), BATCH_ROWS)
        return
    tables = listed.rows()
    first = next(tables)
    yield from name_tables(_arguments(settings), BATCH_ROWS, first.schema)
    yield first
    yield from tables


def extra_columns(settings: Settings) -> list[str]:
    """The columns that :func:`iter_rows` carries along, which are refused before a run if ever.

    Raises:
        UsageError: the list cannot be read, or columns cannot be carried along.
    """
    listed = _video_list(settings)
    return [] if listed is None else next(listed.rows()).schema.names[1:]


def _arguments(settings: Settings) -> Iterator[str]:
    ours = settings.tmp_path if settings.keep_tmp_files else None
    return expand(settings.video_paths, settings.storage_options, ours)


def _video_list(settings: Settings) -> VideoList | None:
    if settings.file_with_video_paths is None:
        return None
    return VideoList(settings.file_with_video_paths, settings.path_column, settings.storage_options)


def absolute(video: str, folder: str) -> str:
    """A URL as it is; a local path from the folder in which relative ones begin."""
    place = resolve_local_name(video)
    return place if "://" in place else os.path.join(folder, place)


def folder_of_inputs(settings: Settings) -> str:
    """Where relative paths begin: here, or in the folder of the list if the first is only there.

    Raises:
        UsageError: as :func:`iter_videos`.
    """
    here, listed = os.getcwd(), settings.file_with_video_paths
    if settings.video_paths or listed is None or listed == STANDARD_INPUT or "://" in listed:
        return here
    there = os.path.dirname(os.path.abspath(listed))
    first = next(iter_videos(settings))
    if "://" in first or os.path.exists(absolute(first, here)):
        return here
    return there if os.path.exists(absolute(first, there)) else here
