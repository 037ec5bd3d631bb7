"""``rayclip.extract``: the command line's words, in Python."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

from rayclip.pipeline import run_extraction
from rayclip.printing import print_result
from rayclip.results import Summary
from rayclip.settings import OnExtraction, Settings, extraction_fps_of


def extract(
    video_paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] = (),
    *,
    file_with_video_paths: str | None = None,
    model_name: str = "ViT-B/32",
    weights: str | None = None,
    batch_size: int | None = None,
    extraction_fps: str | int | float | Fraction | None = None,
    device: str | None = None,
    on_extraction: OnExtraction = "print",
    output_path: str = "./output",
    address: str | None = None,
    encoders: int | None = None,
    overwrite: bool = False,
    max_attempts: int = 3,
    storage_options: Mapping[str, Any] | None = None,
    verbose: bool = False,
) -> Summary:
    """Extract the CLIP features of videos.

    Args:
        video_paths: one video or several, as local paths or fsspec URLs.
        file_with_video_paths: a list: text with one video per line, or a parquet table with a
            column ``path``.
        model_name: a name of OpenAI's ``clip.available_models()``, ``custom`` or ``demo``.
        weights: the checkpoint of ``model_name="custom"``.
        batch_size: frames per forward pass; None lets the device decide.
        extraction_fps: output frames per second; None gives every frame.
        device: ``cpu``, ``cuda`` or ``cuda:N``; None takes the GPUs, or the CPU where a run on
            this machine finds none.
        on_extraction: ``print`` to standard output, or ``save_numpy``.
        output_path: folder of the features, as a local path or fsspec URL.
        address: None (the connected Ray, else ``RAY_ADDRESS``, else a private one), ``auto``,
            ``host:port``, or ``none`` for no Ray at all.
        encoders: how many encoder actors; None takes one for each GPU, or one for about every
            8 CPU cores.
        overwrite: make features again that are there already.
        max_attempts: how often a video may take its worker process down before it is given up.
        storage_options: given to fsspec for every URL.
        verbose: show progress, and Ray's own messages, on standard error.

    Returns:
        What was done, skipped and failed. A bad video is no exception: look at ``failed``.

    Raises:
        UsageError: the call was wrong; nothing was started.
        RunStopped: the run ended early; what was finished is kept.
    """
    one = isinstance(video_paths, str | os.PathLike)
    paths = [video_paths] if one else video_paths
    settings = Settings(
        video_paths=tuple(os.fspath(path) for path in paths),  # type: ignore[union-attr, arg-type]
        file_with_video_paths=file_with_video_paths,
        model_name=model_name,
        weights=weights,
        batch_size=batch_size,
        extraction_fps=extraction_fps_of(extraction_fps),
        device=device,
        on_extraction=on_extraction,
        output_path=output_path,
        address=address,
        encoders=encoders,
        overwrite=overwrite,
        max_attempts=max_attempts,
        storage_options=storage_options or {},
        verbose=verbose,
    )
    on_result = None if settings.saves else print_result
    return run_extraction(settings, on_result, show=verbose)
