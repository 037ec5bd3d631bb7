"""Which files may be shown: those below folders that the user named."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any

from rayclip.errors import UsageError
from rayclip.inputs.lists import PATH_COLUMN, VideoList
from rayclip.inputs.videos import absolute

MOST = 10_000  # videos of a list, from which its folders are guessed
PATTERN = re.compile(r"[*?\[]")
MAX_FOLDERS = 8


class Roots:
    """The folders of videos, local or URLs. An output folder may name any file, these may not."""

    def __init__(self, folders: Sequence[str]) -> None:
        """Name the folders.

        Raises:
            UsageError: one does not exist.
        """
        for folder in folders:
            if "://" not in folder and not os.path.isdir(folder):
                raise UsageError(f"There is no folder {folder}: name that of the videos.")
        self.folders = [*folders]
        self._local = [os.path.realpath(folder) for folder in folders if "://" not in folder]
        self._urls = [folder.rstrip("/") + "/" for folder in folders if "://" in folder]

    def allowed(self, path: str) -> str | None:
        """Return the file to open for a path or URL; None if it does not lie below a root.

        Symbolic links are followed first, so none leads out.
        """
        if "://" in path:
            return path if any(_is_below(path, root) for root in self._urls) else None
        real = self._inside(path)
        return real if real is not None and os.path.isfile(real) else None

    def inputs_below(self, inputs: Any) -> list[dict[str, Any]]:
        """Return the inputs of ``run.json`` that may be looked at to find videos.

        These are paths, patterns and URLs below a root, and local lists. Others, which an output
        folder of somebody else may name, are neither walked nor asked for.
        """
        return [
            {
                **record,
                "video_paths": [
                    path
                    for path in _paths(record)
                    if self._may_expand(absolute(path, record["folder"]))
                ],
                "file_with_video_paths": _local_list(record),
            }
            for record in _records(inputs)
        ]

    def _may_expand(self, path: str) -> bool:
        if "://" in path:
            return any(_is_below(path, root) or path in (root, root[:-1]) for root in self._urls)
        return self._inside(_before_pattern(path)) is not None

    def _inside(self, path: str) -> str | None:
        """Follow all symbolic links; None if that leads to no place in a root."""
        try:
            real = os.path.realpath(path)
        except (OSError, ValueError):
            return None
        inside = any(os.path.commonpath([real, root]) == root for root in self._local)
        return real if inside else None


def _is_below(url: str, root: str) -> bool:
    rest = url.removeprefix(root)
    return rest != url and "::" not in rest and not {"..", "%2e%2e"} & set(rest.lower().split("/"))


def recorded_folders(run: Mapping[str, Any]) -> list[str]:
    """Return the local folders of a run's videos, as its record says, to ask the user about them.

    The record is not trusted: nothing remote is opened, and no folder is listed.
    """
    folders = set()
    for inputs in _records(run.get("inputs")):
        for path in _local_inputs(inputs):
            folder = path if os.path.isdir(path) else os.path.dirname(_before_pattern(path))
            if os.path.isdir(folder) and folder != os.path.sep:
                folders.add(os.path.realpath(folder))
    return _covering(folders)


def _records(inputs: Any) -> Iterator[dict[str, Any]]:
    """Yield what is recorded of each run: an object with a folder."""
    for record in inputs if isinstance(inputs, list) else ():
        if isinstance(record, dict) and isinstance(record.get("folder"), str):
            yield record


def _paths(record: Mapping[str, Any]) -> list[str]:
    paths = record.get("video_paths")
    return [path for path in paths if isinstance(path, str)] if isinstance(paths, list) else []


def _local_list(record: Mapping[str, Any]) -> str | None:
    """The list of videos of a run, if it is a local file: opening another may block."""
    listed = record.get("file_with_video_paths")
    return listed if isinstance(listed, str) and os.path.isfile(listed) else None


def _local_inputs(record: Mapping[str, Any]) -> Iterator[str]:
    names = iter(_paths(record))
    if (listed := _local_list(record)) is not None:
        column = str(record.get("path_column", PATH_COLUMN))
        names = chain(names, islice(VideoList(listed, column).names(), MOST))
    try:
        for name in names:
            if "://" not in (path := absolute(name, record["folder"])):
                yield path
    except UsageError:  # the list cannot be read
        return


def _before_pattern(path: str) -> str:
    return PATTERN.split(path)[0]


def _covering(folders: Iterable[str]) -> list[str]:
    """Drop folders that lie in others; of too many, take the one around all."""
    covering: list[str] = []
    for folder in sorted(folders):
        if not covering or os.path.commonpath([folder, covering[-1]]) != covering[-1]:
            covering.append(folder)
    return covering if len(covering) <= MAX_FOLDERS else [os.path.commonpath(covering)]
