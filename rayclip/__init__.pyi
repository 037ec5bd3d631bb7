# Written by scripts/public_stub.py; a test holds it against the signatures.
import os
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any, Literal

import ray.data

from rayclip.errors import BadVideo as BadVideo
from rayclip.errors import RayclipError as RayclipError
from rayclip.errors import RunStopped as RunStopped
from rayclip.errors import UsageError as UsageError
from rayclip.errors import VideoError as VideoError
from rayclip.errors import WeightsUnavailable as WeightsUnavailable
from rayclip.load import VideoFeatures as VideoFeatures
from rayclip.load import load_features as load_features
from rayclip.media.frames import iter_frames as iter_frames
from rayclip.model.clip_model import ClipModel as ClipModel
from rayclip.model.clip_model import load_clip as load_clip
from rayclip.report.results import Failure as Failure
from rayclip.report.results import Summary as Summary

__version__: str

def extract(
    video_paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] = (),
    *,
    file_with_video_paths: str | os.PathLike[str] | None = None,
    path_column: str = 'path',
    limit: int | None = None,
    storage_options: Mapping[str, Any] | None = None,
    extraction_fps: str | int | float | Fraction | None = None,
    extraction_total: int | None = None,
    resize: Literal['pil', 'fast'] = 'pil',
    keep_tmp_files: bool = False,
    tmp_path: str | os.PathLike[str] = './tmp',
    model_name: str = 'ViT-B/32',
    weights: str | os.PathLike[str] | None = None,
    batch_size: int | None = None,
    precision: Literal['auto', 'fp32', 'fp16', 'bf16'] = 'auto',
    compile: bool = False,
    device: str | None = None,
    on_extraction: Literal['print', 'save_numpy', 'save_pickle', 'save_parquet'] = 'print',
    output_path: str | os.PathLike[str] = './output',
    feature_dtype: Literal['float32', 'float16'] = 'float32',
    naming: Literal['stem', 'path'] = 'stem',
    overwrite: bool = False,
    show_pred: bool = False,
    pred_texts: str | Sequence[str] | None = (),
    address: str | None = None,
    encoders: int | None = None,
    encoders_per_gpu: int = 1,
    max_attempts: int = 3,
    verbose: bool = False,
) -> Summary:
    """Extract the CLIP features of videos.

    Args:
        video_paths: Videos, folders of videos or quoted patterns (``'videos/**/*.mp4'``): local
            paths or URLs. Folders are searched to the bottom for the suffixes of videos, and
            give their videos sorted. URLs are those of fsspec; SECURITY.md says what opening
            them means.
        file_with_video_paths: A list of videos: text with one per line (``-`` is standard
            input), or a ``.csv``, ``.tsv``, ``.jsonl`` or ``.parquet`` table. What it lists is
            never taken for a folder or a pattern. It may be as long as you like.
        path_column: The table's column of paths, or its key in ``.jsonl``.
        limit: Only the first N inputs, for a first try; says how long all of them would take.
            The summary has it as ``estimate``. The inputs are read once more to count them.
        storage_options: Given to fsspec for every URL, such as ``{"anon": true}``; never saved
            anywhere.
        extraction_fps: Frames per second, such as 5, 2.5 or 30000/1001; by default every frame.
            At most 1000. docs/decoding.md says which frames these are.
        extraction_total: This many frames of each video, evenly spaced; not with
            ``extraction_fps``.
        resize: ``pil`` (OpenAI's preprocessing, to the byte) or ``fast`` (cheaper, a few levels
            of 255 off).
        keep_tmp_files: Re-encode each video at ``extraction_fps`` as video_features does, keep
            the file, and take the features from it. This is lossy; without it nothing is ever
            re-encoded.
        tmp_path: Local folder of the re-encoded videos.
        model_name: A name of ``clip.available_models()``, ``custom`` or ``demo``. OpenAI's are
            ``ViT-B/32``, ``ViT-B/16``, ``ViT-L/14``, ``ViT-L/14@336px``, ``RN50``, ``RN101``,
            ``RN50x4``, ``RN50x16`` and ``RN50x64``. ``custom`` is the checkpoint that
            ``weights`` names. ``demo`` is a tiny model that comes with rayclip and knows
            coloured shapes.
        weights: The checkpoint of the model ``custom``: a path or URL. It is a TorchScript
            archive or a state dict in OpenAI's layout, also inside a training script's
            dictionary (``state_dict``, ``model_state_dict``, ``model``) or with its prefix
            (``module.``, ``model.``, ``clip.``, ``_orig_mod.``, …). A TorchScript archive is
            code: use only those that you trust.
        batch_size: Frames per forward pass; by default the device decides. That is 16 on CPUs,
            and on GPUs 16 to 256, by the model and the GPU's memory. Shorter batches are padded
            to this one shape, so that a frame's feature never depends on its neighbours.
        precision: What the model computes in: ``auto`` (fp16 on GPUs, fp32 on CPUs), ``fp32``,
            ``fp16`` or ``bf16``. docs/precision.md says what each costs and changes.
        compile: Compile the model's forward pass first: takes up to minutes, and a C++
            compiler.
        device: ``cpu``, ``cuda`` or ``cuda:N``; by default the GPUs, or the CPU if a private
            Ray finds none. On any other Ray without GPUs, ask for ``cpu``, or for ``encoders``
            to wait for GPUs that will join.
        on_extraction: ``print``; ``save_numpy`` or ``save_pickle`` (files for each video); or
            ``save_parquet`` (a row for each, in shards).
        output_path: Folder of the features: a local path or a URL.
        feature_dtype: ``float32`` or ``float16``, of saved features.
        naming: ``stem`` (files are called after the video) or ``path`` (in folders like its
            own). ``path`` does not go with ``save_parquet``, which names no files.
        overwrite: Make features again that are there already.
        show_pred: Print for each frame the five texts that fit it best. If files are saved, so
            is ``{stem}_pred.csv``. Not with ``save_parquet``.
        pred_texts: For ``show_pred``: a text, or a list ``[a cat, a dog]``; by default the
            labels of Kinetics 400. The labels are put as ``a photo of …``.
        address: Which Ray: ``auto``, ``host:port``, ``local`` (a private one) or ``none`` (no
            Ray); by default RAY_ADDRESS, else ``local``. A Ray that this process is connected
            to comes before RAY_ADDRESS. A private one can be reached by this machine only, and
            ends with the run.
        encoders: Encoder processes; by default one for each GPU, or one for about every 8 CPU
            cores. Those for which there is no GPU yet wait for one.
        encoders_per_gpu: Encoders that share a GPU, of this run or of others. With 1, a second
            run waits for a free GPU.
        max_attempts: How often a video may crash or hang its worker process before it is given
            up. Processes that are killed from outside, for memory or with their node, do not
            count, up to ten.
        verbose: Show Ray's own messages, and what each encoder did. In Python, show progress,
            too.

    Returns:
        What was done, skipped and failed. A bad video is no exception: look at ``failed``.

    Raises:
        UsageError: the call was wrong; nothing was started.
        RunStopped: the run ended early; what was finished is kept.
    """

def encode(
    ds: ray.data.Dataset,
    *,
    path_column: str = 'path',
    bytes_column: str | None = None,
    prefix: str = '',
    storage_options: Mapping[str, Any] | None = None,
    extraction_fps: str | int | float | Fraction | None = None,
    extraction_total: int | None = None,
    resize: Literal['pil', 'fast'] = 'pil',
    model_name: str = 'ViT-B/32',
    weights: str | os.PathLike[str] | None = None,
    batch_size: int | None = None,
    precision: Literal['auto', 'fp32', 'fp16', 'bf16'] = 'auto',
    compile: bool = False,
    device: str | None = None,
    encoders: int | None = None,
    encoders_per_gpu: int = 1,
    max_attempts: int = 3,
) -> ray.data.Dataset:
    """Add CLIP features to a dataset with one video per row.

    Nothing is decoded before the dataset is consumed. The encoders start with its first task and
    are released after 10 s without a task. The steps of one pipeline must fit on the GPUs together;
    on CPUs they share the CPUs that encoding may have.

    Args:
        ds: rows with a path, a URL or an encoded video, and any other columns.
        path_column: holds local paths, as the nodes see them, or fsspec URLs.
        bytes_column: holds encoded videos instead, such as the content of an mp4 file.
        prefix: of the names of the added columns.
        storage_options: Given to fsspec for every URL, such as ``{"anon": true}``; never saved
            anywhere.
        extraction_fps: Frames per second, such as 5, 2.5 or 30000/1001; by default every frame.
            At most 1000. docs/decoding.md says which frames these are.
        extraction_total: This many frames of each video, evenly spaced; not with
            ``extraction_fps``.
        resize: ``pil`` (OpenAI's preprocessing, to the byte) or ``fast`` (cheaper, a few levels
            of 255 off).
        model_name: A name of ``clip.available_models()``, ``custom`` or ``demo``. OpenAI's are
            ``ViT-B/32``, ``ViT-B/16``, ``ViT-L/14``, ``ViT-L/14@336px``, ``RN50``, ``RN101``,
            ``RN50x4``, ``RN50x16`` and ``RN50x64``. ``custom`` is the checkpoint that
            ``weights`` names. ``demo`` is a tiny model that comes with rayclip and knows
            coloured shapes.
        weights: The checkpoint of the model ``custom``: a path or URL. It is a TorchScript
            archive or a state dict in OpenAI's layout, also inside a training script's
            dictionary (``state_dict``, ``model_state_dict``, ``model``) or with its prefix
            (``module.``, ``model.``, ``clip.``, ``_orig_mod.``, …). A TorchScript archive is
            code: use only those that you trust.
        batch_size: Frames per forward pass; by default the device decides. That is 16 on CPUs,
            and on GPUs 16 to 256, by the model and the GPU's memory. Shorter batches are padded
            to this one shape, so that a frame's feature never depends on its neighbours.
        precision: What the model computes in: ``auto`` (fp16 on GPUs, fp32 on CPUs), ``fp32``,
            ``fp16`` or ``bf16``. docs/precision.md says what each costs and changes.
        compile: Compile the model's forward pass first: takes up to minutes, and a C++
            compiler.
        device: ``cpu``, ``cuda`` or ``cuda:N``; by default the GPUs, or the CPU if a private
            Ray finds none. On any other Ray without GPUs, ask for ``cpu``, or for ``encoders``
            to wait for GPUs that will join.
        encoders: Encoder processes; by default one for each GPU, or one for about every 8 CPU
            cores. Those for which there is no GPU yet wait for one.
        encoders_per_gpu: Encoders that share a GPU, of this run or of others. With 1, a second
            run waits for a free GPU.
        max_attempts: How often a video may crash or hang its worker process before it is given
            up. Processes that are killed from outside, for memory or with their node, do not
            count, up to ten.

    Returns:
        The dataset with all its columns and, in each row, ``clip`` (``list<fixed_size_list<float32,
        D>>``, one feature per frame), ``timestamps_ms`` (``list<float64>``, from the container's
        start), ``fps`` (``float64``, the video's own average frame rate) and ``error``
        (``string``). If a video failed, the error says why and the others are null; otherwise the
        error is null.

    Raises:
        UsageError: the arguments are wrong, this Ray does not have the device, or it has too few
            GPUs for all steps. Missing or conflicting columns are reported here if the dataset's
            schema is known, otherwise when it is consumed.
    """
