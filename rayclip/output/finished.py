"""Read what is finished in an output folder, in any format, video by video."""

from __future__ import annotations

from collections.abc import Iterator

from rayclip.console import shown
from rayclip.errors import RayclipError
from rayclip.output.done import FEATURES, name_hash
from rayclip.output.folder import FeatureFolder
from rayclip.output.rows import StoredVideo
from rayclip.output.video_files import DamagedFile


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
    yielded: set[int] = set()
    opened: set[str] = set()
    list_again = True
    while list_again:  # ``rayclip compact`` removes shards once their rows are in another one
        list_again = False
        files = {file.path for file in folder.feature_files()}
        for file in sorted(files - opened, key=reading_order):
            opened.add(file)
            try:
                for video in read_file(folder, file):
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
