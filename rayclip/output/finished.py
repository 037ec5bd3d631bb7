"""Read what is finished in an output folder, in any format, video by video."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

from fsspec.implementations.local import LocalFileSystem

from rayclip.console import shown
from rayclip.errors import RayclipError
from rayclip.io.concurrent_map import concurrent_map
from rayclip.output.array_folder import ArrayFolder
from rayclip.output.done import FEATURES, name_hash
from rayclip.output.folder import FeatureFolder
from rayclip.output.rows import ScannedVideo, StoredVideo
from rayclip.output.video_files import DamagedFile

V = TypeVar("V", ScannedVideo, StoredVideo)


def iter_features(folder: FeatureFolder) -> Iterator[StoredVideo]:
    """Read the finished videos of a folder with their features, each once.

    Videos from npy and pickle files are sorted by name; those from shards are in the order of the
    shards' names and of their rows. In memory are the names of all files, 64 bits for each video,
    since it may be in two shards while ``rayclip compact`` joins them, and the arrays of one video
    or of one row group. Large arrays from files are on the local disk (``TMPDIR``).

    Args:
        folder: local or remote, from :func:`~rayclip.output.open_run.open_run`.

    Raises:
        UsageError, RunStopped: the folder cannot be listed.
        RayclipError: a file is damaged or cannot be read.
    """
    return _each_once(folder, partial(map, partial(read_file, folder)))


def scan_features(
    folder: FeatureFolder, on_damaged: Callable[[DamagedFile], object]
) -> Iterator[ScannedVideo]:
    """Read the same videos in the same order, in blocks of features.

    Each video must be read before the next.

    Args:
        folder: local or remote.
        on_damaged: called with each damaged file, which is left out.

    Raises:
        UsageError, RunStopped: the folder cannot be listed.
    """

    def scan_file(file: str) -> Iterator[ScannedVideo]:
        try:
            yield from folder.scan_file(file)
        except DamagedFile as error:
            on_damaged(error)

    is_local = isinstance(folder.fs_and_path()[0], LocalFileSystem)
    if isinstance(folder, ArrayFolder) and not is_local:
        # each file takes some requests, and has one video
        read_ahead = partial(concurrent_map, lambda file: _held(scan_file(file)))
        return _each_once(folder, lambda files: map(_replayed, read_ahead(files)))
    return _each_once(folder, partial(map, scan_file))


def _held(videos: Iterator[V]) -> list[V] | FileNotFoundError:
    try:
        return list(videos)
    except FileNotFoundError as error:
        return error


def _replayed(held: list[V] | FileNotFoundError) -> Iterator[V]:
    if isinstance(held, FileNotFoundError):
        raise held
    yield from held


def _each_once(
    folder: FeatureFolder, read: Callable[[list[str]], Iterator[Iterator[V]]]
) -> Iterator[V]:
    yielded: set[int] = set()
    opened: set[str] = set()
    list_again = True
    while list_again:  # ``rayclip compact`` removes shards once their rows are in another one
        list_again = False
        files = {file.path for file in folder.feature_files()} - opened
        opened |= files
        for videos in read(sorted(files, key=reading_order)):
            try:
                for video in videos:
                    key = name_hash(video.name)
                    if key not in yielded:
                        yielded.add(key)
                        yield video
            except FileNotFoundError:
                list_again = True


def read_file(folder: FeatureFolder, file: str) -> Iterator[StoredVideo]:
    """Read the videos of one file of features.

    Raises:
        FileNotFoundError: it was removed meanwhile.
        RayclipError: it is damaged or cannot be read; the message names it and what to do.
    """
    try:
        yield from folder.read_file(file)
    except DamagedFile as error:
        raise RayclipError(
            f"{shown(f'{folder.url}/{error.file}')} cannot be loaded: {error.reason}. `rayclip "
            "status --verify` lists all damaged files; remove them and rerun the same command."
        ) from error


def reading_order(file: str) -> str:
    """Return the key by which files of features are sorted: the name of the video or shard."""
    return file.rpartition(FEATURES)[0] or file
