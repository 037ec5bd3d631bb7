"""The videos of a run: arguments first, then a list file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice

import pyarrow as pa

from rayclip.errors import UsageError
from rayclip.inputs.expansion import expand, has_magic, is_video_name
from rayclip.inputs.frames_folders import expand_frames_folders
from rayclip.inputs.lists import STANDARD_INPUT, VideoList
from rayclip.inputs.local_names import resolve_local_name
from rayclip.inputs.video_rows import BATCH_ROWS, name_tables
from rayclip.media.fragments import parse_part
from rayclip.media.tar_names import is_tar_name, split_member
from rayclip.settings import Settings


def iter_videos(settings: Settings) -> Iterator[str]:
    """Yield the inputs of a run in order, up to its limit. Each call is another pass.

    Raises:
        UsageError: they cannot be read, or there is no list and no video.
    """
    return islice(iter_all_videos(settings), settings.limit)


def iter_all_videos(settings: Settings) -> Iterator[str]:
    """Yield the same as :func:`iter_videos`, but ignore the limit."""
    first, of_tars = None, False
    for video in _all_inputs(settings):
        is_tar = is_tar_name(parse_part(video).path if "#t=" in video else video)
        if is_tar:
            _check_tar(video)
        if first is None:
            first, of_tars = video, is_tar
        if is_tar != of_tars:
            tar, other = (first, video) if of_tars else (video, first)
            raise UsageError(
                f"{tar} is a tar file, but {other} is not: extract the videos in tar files in a "
                "run of their own."
            )
        yield video


def _check_tar(tar: str) -> None:
    if not parse_part(tar).is_whole:
        raise UsageError(
            f"{tar} is a part of a tar file, but only videos have parts: leave out the columns of "
            "ranges (--ignore-ranges), or list the videos themselves."
        )
    folder, name = split_member(tar)
    if name:
        raise UsageError(
            f"{tar} is in {folder}, which is named like a tar file, too: rename one of them."
        )


def are_tars(settings: Settings) -> bool:
    """Whether the inputs of a run are tar files of videos.

    The first one tells. Its folder or pattern is not looked up for this, unless the name of a
    pattern leaves it open.

    Raises:
        UsageError: as :func:`iter_videos`.
    """
    if settings.frames_folders:
        return False
    if settings.video_paths:
        first = resolve_local_name(settings.video_paths[0])
        if is_tar_name(first) or is_video_name(first) or not has_magic(first):
            return is_tar_name(first) and not os.path.isdir(first)
    return is_tar_name(next(iter_all_videos(settings)))


def _all_inputs(settings: Settings) -> Iterator[str]:
    listed = _video_list(settings)
    if not settings.video_paths and listed is None:
        raise UsageError("No videos were given: name videos, or a list with file_with_video_paths.")
    yield from _arguments(settings)
    if listed is not None:
        empty = not settings.video_paths
        for video in listed.names():
            empty = False
            yield video
        if empty:
            raise UsageError(f"The list {settings.file_with_video_paths} is empty: add a video.")


def iter_rows(settings: Settings, extra_columns: bool) -> Iterator[pa.Table]:
    """Yield the inputs of :func:`iter_all_videos` as tables with a column ``video``.

    Args:
        settings: the settings of the run.
        extra_columns: whether to add the other columns of the list, if it is a table. They are null
            for videos from arguments.

    Raises:
        UsageError: the same as in :func:`iter_videos`, or a column cannot be copied.
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
    """Return the names of the extra columns of :func:`iter_rows`, to check them before a run.

    Raises:
        UsageError: the list cannot be read, or a column cannot be copied.
    """
    listed = _video_list(settings)
    return [] if listed is None else next(listed.rows()).schema.names[1:]


def _arguments(settings: Settings) -> Iterator[str]:
    if settings.frames_folders:
        return expand_frames_folders(settings.video_paths, settings.storage_options)
    reencoded = settings.tmp_path if settings.keep_tmp_files else None
    return expand(settings.video_paths, settings.storage_options, reencoded)


def _video_list(settings: Settings) -> VideoList | None:
    if settings.file_with_video_paths is None:
        return None
    return VideoList(
        settings.file_with_video_paths,
        settings.path_column,
        settings.storage_options,
        with_ranges=not settings.ignore_ranges,
        of_folders=settings.frames_folders,
    )


def range_columns(settings: Settings) -> list[str]:
    """Return which columns of the list say where rows begin and end, unless they are ignored.

    Raises:
        UsageError: the list cannot be read.
    """
    listed = _video_list(settings)
    return [] if listed is None else listed.range_columns()


def absolute(video: str, folder: str) -> str:
    """Return the local path of a video, or of the video of a part, joined to the folder that
    relative ones start from; a URL unchanged."""
    path = resolve_local_name(parse_part(video).path)
    return path if "://" in path else os.path.join(folder, path)


def folder_of_inputs(settings: Settings) -> str:
    """Return the folder that relative paths start from.

    This is the working directory, or the folder of the list if the first video exists only there.

    Raises:
        UsageError: the same as in :func:`iter_videos`.
    """
    here, listed = os.getcwd(), settings.file_with_video_paths
    if settings.video_paths or listed is None or listed == STANDARD_INPUT or "://" in listed:
        return here
    list_folder = os.path.dirname(os.path.abspath(listed))
    first = next(iter_videos(settings))
    if "://" in first or os.path.exists(absolute(first, here)):
        return here
    return list_folder if os.path.exists(absolute(first, list_folder)) else here
