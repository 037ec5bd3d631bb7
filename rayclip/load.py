"""``rayclip.load_features``: read saved features video by video, from any format."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rayclip.output.finished import iter_features
from rayclip.output.open_run import one_model_folder, open_run


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
    videos = iter_features(open_run(one_model_folder(output, model_name, options), options).folder)
    return (
        VideoFeatures(video.name, _own(video.clip), _own(video.timestamps_ms), video.fps)
        for video in videos
    )


def _own(values: NDArray[Any]) -> NDArray[Any]:
    """Return an array in memory that the caller may change."""
    return values if values.flags.writeable else np.array(values)
