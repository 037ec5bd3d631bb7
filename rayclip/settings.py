"""The settings of a run, which the command line and Python share."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any, Literal

from rayclip.errors import UsageError
from rayclip.media.frame_choice import FrameChoice
from rayclip.option_values import (
    AnyPath,
    check_address,
    check_device,
    parse_model_names,
    parse_storage_options,
    parse_texts,
    to_fps,
    to_local_folder,
    to_model_names,
    to_path,
    to_paths,
    to_seconds,
    to_texts,
)
from rayclip.options import declared_options, option

OnExtraction = Literal["print", "save_numpy", "save_pickle", "save_parquet"]
FeatureDtype = Literal["float32", "float16"]
Naming = Literal["stem", "path"]
Precision = Literal["auto", "fp32", "fp16", "bf16"]
Activation = Literal["quickgelu", "gelu"]


@dataclass(frozen=True)
class Settings:
    """The validated settings of a run. Each field declares an option.

    Raises:
        UsageError: a value is invalid; the message names the option and valid values.
    """

    video_paths: tuple[str, ...] = option(
        (),
        "input",
        "Videos, folders of videos or quoted patterns (`'videos/**/*.mp4'`): local paths or URLs.",
        details="Folders are searched recursively for files with [the suffix of a video]"
        "(inputs.md), in sorted order. [Tar files of videos](inputs.md#tar-files), as WebDataset "
        "writes them, are inputs, too. URLs are those of "
        "[fsspec](https://filesystem-spec.readthedocs.io); "
        "[SECURITY.md](../SECURITY.md#what-is-not-promised) explains the risks of opening them.",
        accepts=AnyPath | Iterable[AnyPath],
        convert=to_paths,
    )
    file_with_video_paths: str | None = option(
        None,
        "input",
        "A list of videos: text with one per line (`-` is standard input), or a `.csv`, `.tsv`, "
        "`.jsonl` or `.parquet` table.",
        details="Its entries are never expanded as folders or patterns. It may have "
        "[any length](scale.md).",
        accepts=AnyPath | None,
        convert=to_path,
        metavar="PATH",
    )
    path_column: str = option(
        "path", "input", "The table's column of paths, or its key in `.jsonl`."
    )
    limit: int | None = option(
        None,
        "input",
        "Process only the first N inputs, and estimate how long all of them would take.",
        details="The summary has it as `estimate`. It takes another pass over the inputs.",
    )
    ignore_ranges: bool = option(
        False,
        "input",
        "Take whole videos, even if the table has columns `start_s` and `end_s`.",
    )
    frames_folders: bool = option(
        False,
        "input",
        "Take each folder of jpg, png or webp files as a video.",
        details="All folders below an input that hold such files, and those in a list. The images "
        "are its frames, [in natural order of their names](inputs.md#folders-of-frames).",
    )
    frames_fps: Fraction = option(
        Fraction(1),
        "input",
        "How many images of such a folder are shown in a second.",
        metavar="FPS",
        accepts=str | int | float | Fraction,
        convert=lambda value: to_fps("frames_fps", value) or Fraction(1),
        compared=True,
    )
    storage_options: Mapping[str, Any] = option(
        {},
        "input",
        'Passed to fsspec for every URL, such as `{"anon": true}`; never saved anywhere.',
        metavar="JSON",
        accepts=Mapping[str, Any] | None,
        convert=lambda value: value or {},
        parse=parse_storage_options,
        encode=True,
        shown=False,
    )
    extraction_fps: Fraction | None = option(
        None,
        "frames",
        "Frames per second, such as 5, 2.5 or 30000/1001; by default, every frame.",
        details="At most 1000. [docs/decoding.md](decoding.md#which-frames) says which frames are "
        "selected.",
        metavar="FPS",
        accepts=str | int | float | Fraction | None,
        convert=partial(to_fps, "extraction_fps"),
        encode=True,
        compared=True,
    )
    extraction_total: int | None = option(
        None,
        "frames",
        "This many frames of each video, evenly spaced; not with `extraction_fps`.",
        encode=True,
        compared=True,
    )
    every: int | None = option(
        None,
        "frames",
        "Every Nth frame: numbers 0, N, 2N and so on; not with the options above.",
        encode=True,
        compared=True,
    )
    keyframes: bool = option(
        False,
        "frames",
        "Only keyframes, and decode nothing else; not with the options above.",
        details="These are the frames at which decoding can start.",
        encode=True,
        compared=True,
    )
    start: float | None = option(
        None,
        "frames",
        "Only frames from this time on, in seconds.",
        details="With `extraction_fps`, the first one is on the screen at that time. A table has "
        "ranges for each row in its columns [`start_s` and `end_s`](inputs.md#ranges).",
        metavar="S",
        accepts=str | int | float | None,
        convert=partial(to_seconds, "start"),
        encode=True,
        compared=True,
    )
    end: float | None = option(
        None,
        "frames",
        "Only frames before this time, in seconds.",
        metavar="S",
        accepts=str | int | float | None,
        convert=partial(to_seconds, "end"),
        encode=True,
        compared=True,
    )
    keep_tmp_files: bool = option(
        False,
        "frames",
        "Re-encode each video at `extraction_fps` as video_features does, keep the file, and "
        "extract from it.",
        details="This is lossy. Without this option, nothing is re-encoded.",
    )
    tmp_path: str = option(
        "./tmp",
        "frames",
        "Local folder for re-encoded videos.",
        accepts=AnyPath,
        convert=to_local_folder,
        metavar="PATH",
    )
    model_name: tuple[str, ...] = option(
        ("ViT-B/32",),
        "model",
        "One of OpenAI's (`ViT-B/32`), `custom`, `demo`, or a model of open_clip or timm: "
        "`rayclip models` lists them. May be given several times.",
        details="Several models share one pass over the videos: each frame is decoded once, and "
        "[each model has its own folder](models.md#several-models). OpenAI's names are `ViT-B/32`, "
        "`ViT-B/16`, `ViT-L/14`, `ViT-L/14@336px`, `RN50`, `RN101`, `RN50x4`, `RN50x16` and "
        "`RN50x64`. `custom` is the checkpoint given by "
        "`weights`. `demo` is a tiny model that comes with rayclip and recognises coloured shapes. "
        "The others are `open_clip:ARCH/TAG`, `hf-hub:ORG/REPO`, `local-dir:PATH` and `timm:NAME`, "
        "with `pip install 'rayclip[open_clip]'`: see [docs/models.md](models.md).",
        accepts=str | Sequence[str],
        convert=to_model_names,
        parse=parse_model_names,
        encode=True,
    )
    weights: str | None = option(
        None,
        "model",
        "The checkpoint of the model `custom`: a path or URL.",
        details="A TorchScript archive, a state dict or a safetensors file, with the names of "
        "OpenAI's, open_clip's or Hugging Face's CLIP, optionally inside a training script's "
        "dictionary (`state_dict`, `model_state_dict`, `model`) or with a prefix (`module.`, "
        "`model.`, `clip.`, `_orig_mod.`, …). A TorchScript archive is code: "
        "[use only archives that you trust](../SECURITY.md#what-is-not-promised).",
        accepts=AnyPath | None,
        convert=to_path,
        metavar="PATH",
        encode=True,
    )
    activation: Activation | None = option(
        None,
        "model",
        "Activation of the model `custom`: `quickgelu` (OpenAI's) or `gelu` (most of open_clip's); "
        "by default, what is beside the weights.",
        details="Weights do not say it, and with the wrong one features are wrong. By default, it "
        "is what `config.json` says beside weights of Hugging Face's CLIP, or "
        "`open_clip_config.json` beside others; without them, `quickgelu`.",
        encode=True,
    )
    batch_size: int | None = option(
        None,
        "model",
        "Frames per forward pass; by default, chosen by device.",
        details="The default is 16 on CPUs and 16 to 256 on GPUs, "
        "[depending on the model and the GPU's memory](precision.md#frames-per-forward-pass). "
        "Shorter batches are padded to this shape, so that a frame's feature never depends on "
        "the rest of its batch.",
        encode=True,
    )
    precision: Precision = option(
        "auto",
        "model",
        "Number format of the model: `auto` (fp16 on GPUs, fp32 on CPUs), `fp32`, `fp16` or "
        "`bf16`.",
        details="[docs/precision.md](precision.md) compares their speed and accuracy.",
        encode=True,
        compared=True,
    )
    compile: bool = option(
        False,
        "model",
        "Compile the forward pass at start, which takes up to minutes and needs a C++ compiler.",
        encode=True,
    )
    device: str | None = option(
        None,
        "model",
        "`cpu`, `cuda` or `cuda:N`; by default all GPUs, or the CPU if this machine has none.",
        details="On any other Ray without GPUs, set `cpu`, or set `encoders` to wait for GPUs to "
        "join.",
        convert=check_device,
        encode=True,
    )
    on_extraction: OnExtraction = option(
        "print",
        "output",
        "`print`; `save_numpy` or `save_pickle` (files per video); or `save_parquet` (a row per "
        "video, [in shards](formats.md)).",
    )
    output_path: str = option(
        "./output",
        "output",
        "Folder for features: a local path or a URL.",
        accepts=AnyPath,
        convert=to_path,
        metavar="PATH",
    )
    feature_dtype: FeatureDtype = option(
        "float32", "output", "`float32` or `float16`, of saved features.", compared=True
    )
    naming: Naming = option(
        "stem",
        "output",
        "`stem` (name files after the video) or `path` (and keep its folders).",
        details="`path` cannot be used with `save_parquet`, which has no files per video.",
    )
    overwrite: bool = option(False, "output", "Recompute features that exist already.")
    show_pred: bool = option(
        False,
        "output",
        "Print the five best texts for each frame.",
        details="If features are saved, [they are saved, too](formats.md#predictions).",
    )
    pred_texts: tuple[str, ...] = option(
        (),
        "output",
        "For `show_pred`: a text, or a list `[a cat, a dog]`; by default, the labels of "
        "Kinetics 400.",
        details="Each label becomes `a photo of …`.",
        metavar="TEXT",
        accepts=str | Sequence[str] | None,
        convert=to_texts,
        parse=parse_texts,
    )
    address: str | None = option(
        None,
        "cluster",
        "Which Ray: `auto`, `host:port`, `local` (a private one) or `none` (no Ray); by default, "
        "RAY_ADDRESS, or what is quicker here.",
        details="By default, a run goes to the Ray that this process is connected to, or to "
        "RAY_ADDRESS. If there is neither, it uses no Ray with one GPU or none, and a private Ray "
        "with several GPUs, or if `encoders` or `encoders_per_gpu` is given. A private one is "
        "reachable only from this machine, and ends with the run.",
        metavar="ADDRESS",
        convert=check_address,
    )
    encoders: int | None = option(
        None,
        "cluster",
        "Encoder processes; by default, one per GPU, or one per about 8 CPU cores.",
        details="Encoders without a GPU wait for one to join.",
        encode=True,
    )
    encoders_per_gpu: int = option(
        1,
        "cluster",
        "How many encoders may share a GPU, of this run or of other runs.",
        details="With 1, a second run [waits for a free GPU](gpus.md).",
        encode=True,
    )
    max_attempts: int = option(
        3,
        "cluster",
        "How often a video may crash or hang its worker before it is reported as failed.",
        details="Workers killed from outside, for memory or with their node, do not count, up to "
        "ten times.",
        encode=True,
    )
    verbose: bool = option(
        False,
        "cluster",
        "Show Ray's own messages and statistics of each encoder.",
        details="Also say if [Pillow resizes the frames](decoding.md#resize). In Python, also show "
        "progress.",
    )

    def __post_init__(self) -> None:
        for name, declared in OPTIONS.items():
            object.__setattr__(self, name, declared.checked(getattr(self, name)))
        has_rows = self.on_extraction == "save_parquet"
        if has_rows and self.naming == "path" and not self.keep_tmp_files:
            raise UsageError(
                "naming path is only for formats with files per video, and save_parquet has rows "
                "with the input paths: leave naming out."
            )
        selections = ("extraction_fps", "extraction_total", "every", "keyframes")
        given = [name for name in selections if getattr(self, name) not in (None, False)]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)} exclude each other: give one.")
        if self.frame_choice.is_reversed:
            raise UsageError(
                f"end must be after start, but the range is {self.frame_choice.range_words()}."
            )
        if self.frames_folders and self.keep_tmp_files:
            raise UsageError(
                "keep_tmp_files re-encodes videos, and frames_folders has none: leave one out."
            )
        if self.saves and os.path.abspath(self.output_path) == os.path.abspath(self.tmp_path):
            raise UsageError(f"output_path and tmp_path are the same folder, {self.output_path}.")
        if self.saves and self.output_path.lower().startswith(("http://", "https://")):
            raise UsageError(
                f"output_path {self.output_path} is an http URL, which cannot be written: "
                "name a local folder, or one in a storage such as s3://bucket/folder."
            )
        if len(self.model_name) > 1:
            self._refuse_for_several_models()
        refuse_unless_custom(self.model_name[0], self.weights, self.activation)

    def _refuse_for_several_models(self) -> None:
        for name in ("weights", "activation", "show_pred", "keep_tmp_files"):
            if getattr(self, name):
                raise UsageError(
                    f"{name} is for one model, but model_name has {len(self.model_name)} "
                    f"({', '.join(self.model_name)}): give one of them, or leave {name} out."
                )

    @property
    def frame_choice(self) -> FrameChoice:
        """Which frames of each video are wanted."""
        return FrameChoice(
            self.extraction_fps,
            self.extraction_total,
            self.every,
            self.keyframes,
            self.start,
            self.end,
        )

    @property
    def saves(self) -> bool:
        """Whether features are saved to files."""
        return self.on_extraction != "print"

    @property
    def has_extra_columns(self) -> bool:
        """Whether the other columns of a table of videos are saved, too."""
        return self.on_extraction == "save_parquet"


def refuse_unless_custom(
    model_name: str, weights: str | None, activation: Activation | None
) -> None:
    """Refuse what only the model ``custom`` has if another one was asked for.

    Raises:
        UsageError: it was.
    """
    if model_name == "custom":
        return
    for subject, value in (("weights are", weights), ("activation is", activation)):
        if value is not None:
            raise UsageError(
                f"{subject} only for model_name custom, but model_name is {model_name}."
            )


OPTIONS = declared_options(Settings)
"""All options, by name."""
