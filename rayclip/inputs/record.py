"""The inputs of the runs of a folder, as ``run.json`` records them, to find the videos again."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from rayclip.errors import UsageError
from rayclip.inputs.expansion import expand
from rayclip.inputs.frames_folders import expand_frames_folders
from rayclip.inputs.lists import STANDARD_INPUT, VideoList
from rayclip.settings import Settings

MAX_PATHS = 1000  # of one run
MAX_RUNS = 20


def record_inputs(settings: Settings, folder: str) -> dict[str, Any]:
    """Return what ``run.json`` has of a run's inputs.

    URLs that may hold a secret are left out, and so is the rest of a very long list of arguments.

    Args:
        settings: of the run.
        folder: that relative paths start from.
    """
    listed = settings.file_with_video_paths
    if listed == STANDARD_INPUT or (listed is not None and not _may_be_recorded(listed)):
        listed = None
    if listed is not None and "://" not in listed:
        listed = os.path.abspath(listed)
    return {
        "video_paths": [p for p in settings.video_paths if _may_be_recorded(p)][:MAX_PATHS],
        "file_with_video_paths": listed,
        "path_column": settings.path_column,
        "ignore_ranges": settings.ignore_ranges,
        "frames_folders": settings.frames_folders,
        "folder": folder,
    }


def merge_inputs(before: Any, now: Mapping[str, Any]) -> list[Any]:
    """Return the inputs of the last runs of a folder, each once, the newest last."""
    earlier = [run for run in before if run != now] if isinstance(before, list) else []
    return [*earlier[1 - MAX_RUNS :], now]


def are_frames_folders(inputs: Any) -> bool:
    """Whether the inputs of a folder's newest run, as ``run.json`` has them, were folders of
    frames."""
    newest = inputs[-1] if isinstance(inputs, list) and inputs else None
    return isinstance(newest, Mapping) and newest.get("frames_folders") is True


def recorded_videos(inputs: Any, storage_options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each input of a folder's runs as the run got it, with the folder it starts from.

    Inputs that do not exist any more are left out.

    Args:
        inputs: of ``run.json``, which is not trusted.
        storage_options: passed to fsspec for URLs.
    """
    for run in reversed(inputs) if isinstance(inputs, list) else ():
        if isinstance(run, Mapping) and isinstance(run.get("folder"), str):
            for video in _videos_of(run, run["folder"], storage_options):
                yield video, run["folder"]


def _videos_of(
    run: Mapping[str, Any], folder: str, storage_options: Mapping[str, Any]
) -> Iterator[str]:
    paths, listed = run.get("video_paths"), run.get("file_with_video_paths")
    of_folders = run.get("frames_folders") is True
    look_up = expand_frames_folders if of_folders else expand
    for path in _texts(paths):
        is_url = "://" in path
        start = "" if is_url or os.path.isabs(path) else os.path.join(folder, "")
        try:
            for video in look_up([start + path], storage_options):
                yield video.removeprefix(start)
        except UsageError:  # it was moved or removed
            continue
    if isinstance(listed, str):
        try:
            column, with_ranges = str(run.get("path_column")), run.get("ignore_ranges") is not True
            yield from VideoList(listed, column, storage_options, with_ranges, of_folders).names()
        except UsageError:
            return


def _texts(values: Any) -> list[str]:
    return [text for text in values if isinstance(text, str)] if isinstance(values, list) else []


def _may_be_recorded(path: str) -> bool:
    """Whether a path or URL holds no user name, password or signature."""
    if "://" not in path:
        return True
    url = urlsplit(path)
    return not url.query and "@" not in url.netloc
