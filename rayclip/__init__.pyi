# Written by scripts/public_stub.py; a test checks that it is current.
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
from rayclip.model.loaded_model import ClipModel as ClipModel
from rayclip.model.loaded_model import LoadedModel as LoadedModel
from rayclip.model.loading import load_clip as load_clip
from rayclip.model.loading import load_encoder as load_encoder
from rayclip.report.results import Failure as Failure
from rayclip.report.results import Summary as Summary

__version__: str

def extract(
    video_paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] = (),
    *,
    file_with_video_paths: str | os.PathLike[str] | None = None,
    path_column: str = 'path',
    limit: int | None = None,
    ignore_ranges: bool = False,
    frames_folders: bool = False,
    frames_fps: str | int | float | Fraction = Fraction(1, 1),
    storage_options: Mapping[str, Any] | None = None,
    extraction_fps: str | int | float | Fraction | None = None,
    extraction_total: int | None = None,
    every: int | None = None,
    keyframes: bool = False,
    start: str | int | float | None = None,
    end: str | int | float | None = None,
    keep_tmp_files: bool = False,
    tmp_path: str | os.PathLike[str] = './tmp',
    model_name: str | Sequence[str] = 'ViT-B/32',
    weights: str | os.PathLike[str] | None = None,
    activation: Literal['quickgelu', 'gelu'] | None = None,
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
            paths or URLs. Folders are searched recursively for files with the suffix of a
            video, in sorted order. Tar files of videos, as WebDataset writes them, are inputs,
            too. URLs are those of fsspec; SECURITY.md explains the risks of opening them.
        file_with_video_paths: A list of videos: text with one per line (``-`` is standard
            input), or a ``.csv``, ``.tsv``, ``.jsonl`` or ``.parquet`` table. Its entries are
            never expanded as folders or patterns. It may have any length.
        path_column: The table's column of paths, or its key in ``.jsonl``.
        limit: Process only the first N inputs, and estimate how long all of them would take.
            The summary has it as ``estimate``. It takes another pass over the inputs.
        ignore_ranges: Take whole videos, even if the table has columns ``start_s`` and
            ``end_s``.
        frames_folders: Take each folder of jpg, png or webp files as a video. All folders below
            an input that hold such files, and those in a list. The images are its frames, in
            natural order of their names.
        frames_fps: How many images of such a folder are shown in a second.
        storage_options: Passed to fsspec for every URL, such as ``{"anon": true}``; never saved
            anywhere.
        extraction_fps: Frames per second, such as 5, 2.5 or 30000/1001; by default, every
            frame. At most 1000. docs/decoding.md says which frames are selected.
        extraction_total: This many frames of each video, evenly spaced; not with
            ``extraction_fps``.
        every: Every Nth frame: numbers 0, N, 2N and so on; not with the options above.
        keyframes: Only keyframes, and decode nothing else; not with the options above. These
            are the frames at which decoding can start.
        start: Only frames from this time on, in seconds. With ``extraction_fps``, the first one
            is on the screen at that time. A table has ranges for each row in its columns
            ``start_s`` and ``end_s``.
        end: Only frames before this time, in seconds.
        keep_tmp_files: Re-encode each video at ``extraction_fps`` as video_features does, keep
            the file, and extract from it. This is lossy. Without this option, nothing is
            re-encoded.
        tmp_path: Local folder for re-encoded videos.
        model_name: One of OpenAI's (``ViT-B/32``), ``custom``, ``demo``, or a model of
            open_clip or timm: ``rayclip models`` lists them. May be given several times.
            Several models share one pass over the videos: each frame is decoded once, and each
            model has its own folder. OpenAI's names are ``ViT-B/32``, ``ViT-B/16``,
            ``ViT-L/14``, ``ViT-L/14@336px``, ``RN50``, ``RN101``, ``RN50x4``, ``RN50x16`` and
            ``RN50x64``. ``custom`` is the checkpoint given by ``weights``. ``demo`` is a tiny
            model that comes with rayclip and recognises coloured shapes. The others are
            ``open_clip:ARCH/TAG``, ``hf-hub:ORG/REPO``, ``local-dir:PATH`` and ``timm:NAME``,
            with ``pip install 'rayclip[open_clip]'``: see docs/models.md.
        weights: The checkpoint of the model ``custom``: a path or URL. A TorchScript archive, a
            state dict or a safetensors file, with the names of OpenAI's, open_clip's or Hugging
            Face's CLIP, optionally inside a training script's dictionary (``state_dict``,
            ``model_state_dict``, ``model``) or with a prefix (``module.``, ``model.``,
            ``clip.``, ``_orig_mod.``, …). A TorchScript archive is code: use only archives that
            you trust.
        activation: Activation of the model ``custom``: ``quickgelu`` (OpenAI's) or ``gelu``
            (most of open_clip's); by default, what is beside the weights. Weights do not say
            it, and with the wrong one features are wrong. By default, it is what
            ``config.json`` says beside weights of Hugging Face's CLIP, or
            ``open_clip_config.json`` beside others; without them, ``quickgelu``.
        batch_size: Frames per forward pass; by default, chosen by device. The default is 16 on
            CPUs and 16 to 256 on GPUs, depending on the model and the GPU's memory. Shorter
            batches are padded to this shape, so that a frame's feature never depends on the
            rest of its batch.
        precision: Number format of the model: ``auto`` (fp16 on GPUs, fp32 on CPUs), ``fp32``,
            ``fp16`` or ``bf16``. docs/precision.md compares their speed and accuracy.
        compile: Compile the forward pass at start, which takes up to minutes and needs a C++
            compiler.
        device: ``cpu``, ``cuda`` or ``cuda:N``; by default all GPUs, or the CPU if this machine
            has none. On any other Ray without GPUs, set ``cpu``, or set ``encoders`` to wait
            for GPUs to join.
        on_extraction: ``print``; ``save_numpy`` or ``save_pickle`` (files per video); or
            ``save_parquet`` (a row per video, in shards).
        output_path: Folder for features: a local path or a URL.
        feature_dtype: ``float32`` or ``float16``, of saved features.
        naming: ``stem`` (name files after the video) or ``path`` (and keep its folders).
            ``path`` cannot be used with ``save_parquet``, which has no files per video.
        overwrite: Recompute features that exist already.
        show_pred: Print the five best texts for each frame. If features are saved, they are
            saved, too.
        pred_texts: For ``show_pred``: a text, or a list ``[a cat, a dog]``; by default, the
            labels of Kinetics 400. Each label becomes ``a photo of …``.
        address: Which Ray: ``auto``, ``host:port``, ``local`` (a private one) or ``none`` (no
            Ray); by default, RAY_ADDRESS, or what is quicker here. By default, a run goes to
            the Ray that this process is connected to, or to RAY_ADDRESS. If there is neither,
            it uses no Ray with one GPU or none, and a private Ray with several GPUs, or if
            ``encoders`` or ``encoders_per_gpu`` is given. A private one is reachable only from
            this machine, and ends with the run.
        encoders: Encoder processes; by default, one per GPU, or one per about 8 CPU cores.
            Encoders without a GPU wait for one to join.
        encoders_per_gpu: How many encoders may share a GPU, of this run or of other runs. With
            1, a second run waits for a free GPU.
        max_attempts: How often a video may crash or hang its worker before it is reported as
            failed. Workers killed from outside, for memory or with their node, do not count, up
            to ten times.
        verbose: Show Ray's own messages and statistics of each encoder. Also say if Pillow
            resizes the frames. In Python, also show progress.

    Returns:
        What was done, skipped and failed. A bad video raises nothing: it is listed in ``failed``.

    Raises:
        UsageError: an argument is wrong; nothing was started.
        RunStopped: the run ended early; finished videos are kept.
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
    every: int | None = None,
    keyframes: bool = False,
    start: str | int | float | None = None,
    end: str | int | float | None = None,
    model_name: str | Sequence[str] = 'ViT-B/32',
    weights: str | os.PathLike[str] | None = None,
    activation: Literal['quickgelu', 'gelu'] | None = None,
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
        storage_options: Passed to fsspec for every URL, such as ``{"anon": true}``; never saved
            anywhere.
        extraction_fps: Frames per second, such as 5, 2.5 or 30000/1001; by default, every
            frame. At most 1000. docs/decoding.md says which frames are selected.
        extraction_total: This many frames of each video, evenly spaced; not with
            ``extraction_fps``.
        every: Every Nth frame: numbers 0, N, 2N and so on; not with the options above.
        keyframes: Only keyframes, and decode nothing else; not with the options above. These
            are the frames at which decoding can start.
        start: Only frames from this time on, in seconds. With ``extraction_fps``, the first one
            is on the screen at that time. A table has ranges for each row in its columns
            ``start_s`` and ``end_s``.
        end: Only frames before this time, in seconds.
        model_name: One of OpenAI's (``ViT-B/32``), ``custom``, ``demo``, or a model of
            open_clip or timm: ``rayclip models`` lists them. May be given several times.
            Several models share one pass over the videos: each frame is decoded once, and each
            model has its own folder. OpenAI's names are ``ViT-B/32``, ``ViT-B/16``,
            ``ViT-L/14``, ``ViT-L/14@336px``, ``RN50``, ``RN101``, ``RN50x4``, ``RN50x16`` and
            ``RN50x64``. ``custom`` is the checkpoint given by ``weights``. ``demo`` is a tiny
            model that comes with rayclip and recognises coloured shapes. The others are
            ``open_clip:ARCH/TAG``, ``hf-hub:ORG/REPO``, ``local-dir:PATH`` and ``timm:NAME``,
            with ``pip install 'rayclip[open_clip]'``: see docs/models.md.
        weights: The checkpoint of the model ``custom``: a path or URL. A TorchScript archive, a
            state dict or a safetensors file, with the names of OpenAI's, open_clip's or Hugging
            Face's CLIP, optionally inside a training script's dictionary (``state_dict``,
            ``model_state_dict``, ``model``) or with a prefix (``module.``, ``model.``,
            ``clip.``, ``_orig_mod.``, …). A TorchScript archive is code: use only archives that
            you trust.
        activation: Activation of the model ``custom``: ``quickgelu`` (OpenAI's) or ``gelu``
            (most of open_clip's); by default, what is beside the weights. Weights do not say
            it, and with the wrong one features are wrong. By default, it is what
            ``config.json`` says beside weights of Hugging Face's CLIP, or
            ``open_clip_config.json`` beside others; without them, ``quickgelu``.
        batch_size: Frames per forward pass; by default, chosen by device. The default is 16 on
            CPUs and 16 to 256 on GPUs, depending on the model and the GPU's memory. Shorter
            batches are padded to this shape, so that a frame's feature never depends on the
            rest of its batch.
        precision: Number format of the model: ``auto`` (fp16 on GPUs, fp32 on CPUs), ``fp32``,
            ``fp16`` or ``bf16``. docs/precision.md compares their speed and accuracy.
        compile: Compile the forward pass at start, which takes up to minutes and needs a C++
            compiler.
        device: ``cpu``, ``cuda`` or ``cuda:N``; by default all GPUs, or the CPU if this machine
            has none. On any other Ray without GPUs, set ``cpu``, or set ``encoders`` to wait
            for GPUs to join.
        encoders: Encoder processes; by default, one per GPU, or one per about 8 CPU cores.
            Encoders without a GPU wait for one to join.
        encoders_per_gpu: How many encoders may share a GPU, of this run or of other runs. With
            1, a second run waits for a free GPU.
        max_attempts: How often a video may crash or hang its worker before it is reported as
            failed. Workers killed from outside, for memory or with their node, do not count, up
            to ten times.

    Returns:
        The dataset with all its columns and, in each row, ``clip`` (``list<fixed_size_list<float32,
        D>>``, one feature per frame), ``timestamps_ms`` (``list<float64>``, from the container's
        start), ``fps`` (``float64``, the video's own average frame rate) and ``error``
        (``string``). If a video failed, the error says why and the others are null; otherwise the
        error is null. With several models, each has its own ``clip_{model_name}`` and
        ``error_{model_name}``; ``timestamps_ms`` and ``fps`` are null only if all failed.

    Raises:
        UsageError: the arguments are wrong, this Ray does not have the device, or it has too few
            GPUs for all steps. Missing or conflicting columns are reported here if the dataset's
            schema is known, otherwise when it is consumed.
    """
