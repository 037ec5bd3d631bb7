"""``rayclip.load_features``: what a run wrote, video by video, whichever format it is in."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rayclip.console import shown
from rayclip.errors import RayclipError, UsageError
from rayclip.output.done import FEATURES
from rayclip.output.formats import file_format
from rayclip.output.open_run import RecordedRun, model_folders, open_run
from rayclip.output.shard_rows import Video, iter_rows
from rayclip.output.shards import ShardFolder
from rayclip.output.storage import model_folder
from rayclip.output.stored_arrays import StoredArray
from rayclip.output.video_files import DamagedFile, read_video


class VideoFeatures(NamedTuple):
    """The features of one video.

    Attributes:
        video: its name in the output folder (``cat`` of ``cat_clip.npy``); from parquet, the path
            or URL that was given.
        clip: float32 or float16 ``[T, D]`` as they were saved, not normalised.
        timestamps_ms: float64 ``[T]``, ms from the container's start.
        fps: the video's own average frame rate; NaN where it is not known.
    """

    video: str
    clip: NDArray[np.floating[Any]]
    timestamps_ms: NDArray[np.float64]
    fps: float


def load_features(
    output_path: str | os.PathLike[str],
    *,
    model_name: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Iterator[VideoFeatures]:
    """Read back what ``extract`` saved as npy, pickle or parquet.

    Videos are read one by one, as they are asked for. Of npy and pickle files they come in the
    order of their names, for which the names are held in memory; from parquet in the order of the
    shards' names and of the rows in them, and each video once. Videos that are not done are left
    out. Pickles can be code: these are read so that they make arrays and call nothing else.

    Args:
        output_path: what was given to ``extract``: a local path or an fsspec URL. The folder of one
            model in it will do, too.
        model_name: whose features; needed where there are those of several models.
        storage_options: given to fsspec.

    Returns:
        An iterator over the videos; each has arrays of its own.

    Raises:
        UsageError: there are no features, or those of several models.
        RayclipError: when its turn comes: a file that is damaged or cannot be read.
    """
    output, options = os.fspath(output_path), storage_options or {}
    url = _model_folder_url(output, model_name, model_folders(output, options))
    recorded = open_run(url, options)
    folder = recorded.folder
    videos = iter_rows(folder) if isinstance(folder, ShardFolder) else _iter_files(recorded)
    return (VideoFeatures(*video) for video in _with_remedy(videos, url))


def _model_folder_url(output: str, model_name: str | None, urls: list[str]) -> str:
    """The folder of the model that is wanted."""
    models = {url.rstrip("/").rpartition("/")[2]: url for url in urls}
    there = ", ".join(models)
    if model_name is None:
        if len(models) > 1:
            raise UsageError(f"{output} has features of several models: name one of {there}.")
        return urls[0]
    wanted = model_folder("", model_name).rpartition("/")[2]
    if wanted not in models:
        raise UsageError(f"{output} has no features of {model_name}; it has those of {there}.")
    return models[wanted]


def _iter_files(recorded: RecordedRun) -> Iterator[Video]:
    """The videos with a features file of the format that the last run made."""
    run = recorded.run
    suffix = file_format(run.get("on_extraction", "save_numpy"), run["feature_dtype"]).suffix
    ending = FEATURES + suffix
    files = recorded.folder.files()
    names = sorted(file.path.removesuffix(ending) for file in files if file.path.endswith(ending))
    for name in names:
        arrays = read_video(recorded, name + ending, StoredArray.read)
        if arrays is not None:
            clip, timestamps_ms, fps = arrays
            yield name, clip, timestamps_ms, float(fps)


def _with_remedy(videos: Iterator[Video], url: str) -> Iterator[Video]:
    try:
        yield from videos
    except DamagedFile as error:
        raise RayclipError(
            f"{shown(f'{url}/{error.file}')} cannot be loaded: {error.reason}. `rayclip status "
            "--verify` names all such files; remove them and run the same command again."
        ) from error
