"""``rayclip.load_features``: read saved features video by video, from any format."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rayclip.console import shown
from rayclip.errors import RayclipError, UsageError
from rayclip.output.finished import iter_features
from rayclip.output.open_run import model_folders, open_run
from rayclip.output.rows import StoredVideo
from rayclip.output.storage import model_folder
from rayclip.output.video_files import DamagedFile


class VideoFeatures(NamedTuple):
    """The features of one video.

    Attributes:
        video: its name in the output folder (``cat`` of ``cat_clip.npy``); from parquet, the path
            or URL of the input.
        clip: float32 or float16 ``[T, D]`` as saved, not normalised.
        timestamps_ms: float64 ``[T]``, in ms from the container's start.
        fps: the video's own average frame rate; NaN if it is unknown.
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
    """Read features that ``extract`` saved as npy, pickle or parquet.

    Videos are read lazily, one by one; incomplete ones are skipped. Videos from npy and pickle
    files are sorted by name, with all names in memory. Videos from parquet are in the order of the
    shards' names and of their rows, each once. Pickles are read safely: only arrays are accepted.

    Args:
        output_path: the ``output_path`` of ``extract``, a local path or an fsspec URL, or the
            folder of one model in it.
        model_name: the model; required if there are several.
        storage_options: passed to fsspec.

    Returns:
        An iterator over the videos; each has its own arrays.

    Raises:
        UsageError: there are no features, or several models.
        RayclipError: during iteration: a file is damaged or cannot be read.
    """
    output, options = os.fspath(output_path), storage_options or {}
    url = _model_folder_url(output, model_name, model_folders(output, options))
    videos = _with_remedy(iter_features(open_run(url, options).folder), url)
    return (
        VideoFeatures(video.name, _own(video.clip), _own(video.timestamps_ms), video.fps)
        for video in videos
    )


def _model_folder_url(output: str, model_name: str | None, urls: list[str]) -> str:
    """Choose the folder of a model."""
    models = {url.rstrip("/").rpartition("/")[2]: url for url in urls}
    names = ", ".join(models)
    if model_name is None:
        if len(models) > 1:
            raise UsageError(f"{output} has features of several models: name one of {names}.")
        return urls[0]
    wanted = model_folder("", model_name).rpartition("/")[2]
    if wanted not in models:
        raise UsageError(f"{output} has no features of {model_name}; it has those of {names}.")
    return models[wanted]


def _own(values: NDArray[Any]) -> NDArray[Any]:
    """Return an array in memory that the caller may change."""
    return values if values.flags.writeable else np.array(values)


def _with_remedy(videos: Iterator[StoredVideo], url: str) -> Iterator[StoredVideo]:
    try:
        yield from videos
    except DamagedFile as error:
        raise RayclipError(
            f"{shown(f'{url}/{error.file}')} cannot be loaded: {error.reason}. `rayclip status "
            "--verify` lists all damaged files; remove them and rerun the same command."
        ) from error
