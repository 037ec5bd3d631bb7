"""``rayclip.extract``: the command line's words, in Python."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from rayclip.report.printing import printer_of
from rayclip.report.results import Summary
from rayclip.run import run_extraction
from rayclip.settings import (
    FeatureDtype,
    Naming,
    OnExtraction,
    Precision,
    Resize,
    Settings,
    extraction_fps_of,
)


def extract(
    video_paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] = (),
    *,
    file_with_video_paths: str | None = None,
    path_column: str = "path",
    limit: int | None = None,
    model_name: str = "ViT-B/32",
    weights: str | os.PathLike[str] | None = None,
    batch_size: int | None = None,
    precision: Precision = "auto",
    compile: bool = False,  # noqa: A002  # the option's name
    extraction_fps: str | int | float | Fraction | None = None,
    extraction_total: int | None = None,
    device: str | None = None,
    on_extraction: OnExtraction = "print",
    output_path: str | os.PathLike[str] = "./output",
    keep_tmp_files: bool = False,
    tmp_path: str | os.PathLike[str] = "./tmp",
    show_pred: bool = False,
    pred_texts: Sequence[str] | None = None,
    feature_dtype: FeatureDtype = "float32",
    resize: Resize = "pil",
    naming: Naming = "stem",
    address: str | None = None,
    encoders: int | None = None,
    encoders_per_gpu: int = 1,
    overwrite: bool = False,
    max_attempts: int = 3,
    storage_options: Mapping[str, Any] | None = None,
    verbose: bool = False,
) -> Summary:
    """Extract the CLIP features of videos.

    Args:
        video_paths: one video, folder of videos or pattern such as ``videos/**/*.mp4``, or several,
            as local paths or fsspec URLs. Folders and patterns give their videos sorted.
        file_with_video_paths: a list: text with one video per line, or a csv, tsv, jsonl or
            parquet table, by its suffix. What it lists is never taken for a folder or a pattern.
        path_column: the table's column, or key, of paths or URLs.
        limit: only so many inputs, the first ones. The summary's ``estimate`` tells what all of
            them would take; the inputs are read once more to count them.
        model_name: a name of OpenAI's ``clip.available_models()``, ``custom`` or ``demo``.
        weights: the checkpoint of ``model_name="custom"``.
        batch_size: frames per forward pass; None lets the device decide.
        precision: what the model computes in: ``fp32``, ``fp16``, ``bf16``, or ``auto`` (fp16 on
            GPUs, fp32 on CPUs). Features are float32 in any case.
        compile: compile the model's forward pass first: up to minutes, and a C++ compiler.
        extraction_fps: output frames per second; None gives every frame.
        extraction_total: so many frames of each video, evenly spaced; not with extraction_fps.
        device: ``cpu``, ``cuda`` or ``cuda:N``; None takes the GPUs, or the CPU where a run on
            this machine finds none.
        on_extraction: ``print`` to standard output, ``save_numpy`` or ``save_pickle`` (files for
            each video), or ``save_parquet`` (a row for each video, in shards).
        output_path: folder of the features, as a local path or fsspec URL.
        keep_tmp_files: with extraction_fps: keep each video, re-encoded at that rate, under
            tmp_path, and take the features from it, as video_features does.
        tmp_path: local folder of the re-encoded videos.
        show_pred: print for each frame which texts fit it best; where files are saved, also
            save ``{stem}_pred.csv``.
        pred_texts: those texts; None means the labels of Kinetics 400.
        feature_dtype: ``float32`` or ``float16``, of the features that are saved.
        resize: ``pil`` (OpenAI's preprocessing, to the byte) or ``fast`` (up to 2 levels off).
        naming: ``stem`` (files are called after the video) or ``path`` (in folders like its own).
        address: None (the connected Ray, else ``RAY_ADDRESS``, else a private one), ``auto``,
            ``host:port``, ``local`` for a private one, or ``none`` for no Ray at all.
        encoders: how many encoder actors; None takes one for each GPU, or one for about every
            8 CPU cores.
        encoders_per_gpu: how many encoder actors share a GPU; each asks Ray for that part of one.
        overwrite: make features again that are there already.
        max_attempts: how often a video may crash or hang its worker process before it is given up.
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
        path_column=path_column,
        limit=limit,
        model_name=model_name,
        weights=None if weights is None else os.fspath(weights),
        batch_size=batch_size,
        precision=precision,
        compile=compile,
        extraction_fps=extraction_fps_of(extraction_fps),
        extraction_total=extraction_total,
        device=device,
        on_extraction=on_extraction,
        output_path=os.fspath(output_path),
        keep_tmp_files=keep_tmp_files,
        tmp_path=os.fspath(tmp_path),
        show_pred=show_pred,
        pred_texts=(pred_texts,) if isinstance(pred_texts, str) else tuple(pred_texts or ()),
        feature_dtype=feature_dtype,
        resize=resize,
        naming=naming,
        address=address,
        encoders=encoders,
        encoders_per_gpu=encoders_per_gpu,
        overwrite=overwrite,
        max_attempts=max_attempts,
        storage_options=storage_options or {},
        verbose=verbose,
    )
    return run_extraction(settings, printer_of(settings), show=verbose)
