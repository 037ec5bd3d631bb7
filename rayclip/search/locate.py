"""Find the videos of an output folder again: its files say only their names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import takewhile
from typing import Any

from rayclip.inputs.expansion import expand
from rayclip.inputs.record import recorded_videos
from rayclip.inputs.videos import absolute
from rayclip.output.folder import FeatureFolder


def locate(
    videos: Mapping[str, str | None],
    folder: FeatureFolder,
    run: Mapping[str, Any],
    root: str | None,
    storage_options: Mapping[str, Any],
) -> dict[str, str]:
    """Return the local path or URL of each video that is found, by name.

    Args:
        videos: names in the folder, with the inputs if it says them.
        folder: the output folder of a model.
        run: the content of its ``run.json``, which names the inputs of its runs.
        root: a folder to which the videos were moved, local or a URL; None looks where they were.
        storage_options: passed to fsspec for URLs.

    Raises:
        UsageError: the root does not exist or holds no videos.
    """
    wanted = set(videos)
    if root is not None:
        return _below(wanted, folder, root, storage_options)
    found = {name: path for name, path in videos.items() if path is not None and _exists(path)}
    for video, start in recorded_videos(run.get("inputs"), storage_options):
        if wanted <= found.keys():
            break
        name = folder.name_of(video)
        if name in wanted and name not in found:
            path = absolute(video, start)
            if _exists(path):
                found[name] = path
    return found


def _exists(path: str) -> bool:
    """Whether a file is there; a relative path says nothing, and a URL is not asked."""
    return "://" in path or (os.path.isabs(path) and os.path.isfile(path))


def _below(
    wanted: set[str], folder: FeatureFolder, root: str, storage_options: Mapping[str, Any]
) -> dict[str, str]:
    """Match videos by file name. Of several with the same one, the folders around it decide."""
    by_file: dict[str, list[str]] = {_file(name): [] for name in wanted}
    for path in expand([root], storage_options):
        file = _file(folder.name_of(path))
        if file in by_file:
            by_file[file].append(path)
    found = {}
    for name in wanted:
        agreeing: dict[int, list[str]] = {}
        for path in by_file[_file(name)]:
            agreeing.setdefault(_agreeing_folders(name, folder.name_of(path), path), []).append(
                path
            )
        best = agreeing[max(agreeing)] if agreeing else []
        if len(best) == 1:  # otherwise nobody knows which one it is
            found[name] = best[0]
    return found


def _file(name: str) -> str:
    return name.rpartition("/")[2]


def _agreeing_folders(name: str, candidate: str, path: str) -> int:
    """How many folders around two files have the same names, counted from the file."""
    ours = name.split("/")[-2::-1]
    theirs = (candidate if "/" in candidate else path).split("/")[-2::-1]
    return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(ours, theirs, strict=False))))
