"""The settings of a run, which the command line and Python share."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from rayclip.errors import UsageError
from rayclip.frame_options import FrameOptions
from rayclip.model_options import ModelOptions, refuse_unless_custom
from rayclip.option_values import (
    AnyPath,
    check_address,
    parse_storage_options,
    parse_texts,
    to_fps,
    to_path,
    to_paths,
    to_texts,
)
from rayclip.options import declared_options, option

OnExtraction = Literal["print", "save_numpy", "save_pickle", "save_parquet"]
FeatureDtype = Literal["float32", "float16"]
Naming = Literal["stem", "path"]


@dataclass(frozen=True)
class Settings(FrameOptions, ModelOptions):
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
    def saves(self) -> bool:
        """Whether features are saved to files."""
        return self.on_extraction != "print"

    @property
    def has_extra_columns(self) -> bool:
        """Whether the other columns of a table of videos are saved, too."""
        return self.on_extraction == "save_parquet"


OPTIONS = declared_options(Settings)
"""All options, by name."""
