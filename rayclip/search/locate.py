"""Find the videos of an output folder again: its files say only their names."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from fractions import Fraction
from itertools import takewhile
from typing import Any

from rayclip.inputs.expansion import expand
from rayclip.inputs.frames_folders import expand_frames_folders
from rayclip.inputs.record import are_frames_folders, recorded_videos
from rayclip.inputs.videos import absolute
from rayclip.media.fragments import parse_part, without_label
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
        of_folders = are_frames_folders(run.get("inputs"))
        look_up = expand_frames_folders if of_folders else expand
        return _below(wanted, folder, look_up([root], storage_options))
    given = {name: parse_part(path).path for name, path in videos.items() if path is not None}
    found = {name: path for name, path in given.items() if _exists(path)}
    for video, start in recorded_videos(run.get("inputs"), storage_options):
        if wanted <= found.keys():
            break
        name = folder.name_of(video)
        if name in wanted and name not in found:
            path = absolute(video, start)
            if _exists(path):
                found[name] = path
    return found


def frames_fps(run: Mapping[str, Any]) -> Fraction:
    """The rate at which a run showed images of folders, given the content of ``run.json``."""
    return Fraction(str(run.get("frames_fps", 1)))


def _exists(path: str) -> bool:
    """Whether a file is there; a relative path says nothing, and a URL is not asked."""
    is_there = os.path.isdir if path.endswith("/") else os.path.isfile
    return "://" in path or (os.path.isabs(path) and is_there(path))


def _below(wanted: set[str], folder: FeatureFolder, paths: Iterable[str]) -> dict[str, str]:
    """Match videos by file name. Of several with the same one, the folders around it decide."""
    by_file: dict[str, list[str]] = {}
    for name in wanted:
        by_file |= {_file(name): [], _file(_whole(name)): []}
    for path in paths:
        file = _file(folder.name_of(path))
        if file in by_file:
            by_file[file].append(path)
    found = {}
    for name in wanted:
        agreeing: dict[int, list[str]] = {}
        for path in by_file[_file(name)] or by_file[_file(_whole(name))]:
            agreeing.setdefault(_agreeing_folders(name, folder.name_of(path), path), []).append(
                path
            )
        best = agreeing[max(agreeing)] if agreeing else []
        if len(best) == 1:  # otherwise nobody knows which one it is
            found[name] = best[0]
    return found


def _whole(name: str) -> str:
    """The name of the video, if a name may be that of a part of it."""
    path = parse_part(name).path
    return without_label(name) if path == name else path


def _file(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2]


def _agreeing_folders(name: str, candidate: str, path: str) -> int:
    """How many folders around two files have the same names, counted from the file."""
    ours = name.rstrip("/").split("/")[-2::-1]
    theirs = (candidate if "/" in candidate else path).rstrip("/").split("/")[-2::-1]
    return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(ours, theirs, strict=False))))
