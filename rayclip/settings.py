"""What a run was asked to do: the same words for the command line and for Python."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal, get_args

from rayclip.errors import UsageError
from rayclip.media.sampling import LARGEST_FPS, parse_fps
from rayclip.words import NULLS

OnExtraction = Literal["print", "save_numpy", "save_pickle", "save_parquet"]
FeatureDtype = Literal["float32", "float16"]
Resize = Literal["pil", "fast"]
Naming = Literal["stem", "path"]
Precision = Literal["auto", "fp32", "fp16", "bf16"]
DEVICE = re.compile(r"cpu|cuda(:\d+)?")
CHOICES = {
    "on_extraction": OnExtraction,
    "feature_dtype": FeatureDtype,
    "resize": Resize,
    "naming": Naming,
    "precision": Precision,
}


@dataclass(frozen=True)
class Settings:
    """Everything that a run needs to know, validated.

    Attributes:
        video_paths: videos, folders of them, or patterns such as ``videos/**/*.mp4``, as local
            paths or fsspec URLs.
        file_with_video_paths: a list of videos: text with one per line, or a csv, tsv, jsonl or
            parquet table, by its suffix. What it lists is never taken for a folder or a pattern.
        path_column: the table's column, or key, of paths or URLs.
        limit: only so many inputs, the first ones.
        model_name: a name of ``clip.available_models()``, ``custom`` (see ``weights``) or ``demo``.
        weights: the checkpoint of ``model_name="custom"``, as a path or fsspec URL.
        batch_size: frames per forward pass; None lets the device decide.
        precision: what the model computes in: ``fp32``, ``fp16``, ``bf16``, or ``auto`` (fp16 on
            GPUs, fp32 on CPUs).
        compile: compile the model's forward pass before the first one.
        extraction_fps: output frames per second; None gives every frame.
        extraction_total: so many frames of each video, evenly spaced; not with extraction_fps.
        device: ``cpu``, ``cuda`` or ``cuda:N``; None takes the GPUs, or the CPU where a run on
            this machine finds none.
        on_extraction: ``print``, ``save_numpy``, ``save_pickle`` or ``save_parquet``.
        output_path: folder of the features, as a local path or fsspec URL.
        keep_tmp_files: with extraction_fps: re-encode each video at that rate, as video_features
            does, keep the file, and take the features from it.
        tmp_path: local folder of the re-encoded videos.
        show_pred: print for each frame which texts fit it best.
        pred_texts: those texts; none means the labels of Kinetics 400.
        feature_dtype: ``float32`` or ``float16``, of the features that are saved.
        resize: ``pil`` (OpenAI's, to the byte) or ``fast`` (torch's, up to 2 levels off).
        naming: ``stem`` (files are called after the video) or ``path`` (in folders like its own).
        address: which Ray to use: None (the connected one, else ``RAY_ADDRESS``, else a private
            one), ``auto``, ``host:port``, ``local`` for a private one, or ``none`` for no Ray.
        encoders: how many encoder actors; None takes one for each GPU, or one for about every
            8 CPU cores.
        encoders_per_gpu: how many encoder actors share a GPU.
        overwrite: compute everything again.
        max_attempts: how often a video may crash or hang its worker process before it is given up.
        storage_options: given to fsspec for every URL. Never written anywhere.
        verbose: show Ray's own messages and the figures of the encoders.

    Raises:
        UsageError: a value is wrong; the sentence names it and the right ones.
    """

    video_paths: tuple[str, ...] = ()
    file_with_video_paths: str | None = None
    path_column: str = "path"
    limit: int | None = None
    model_name: str = "ViT-B/32"
    weights: str | None = None
    batch_size: int | None = None
    precision: Precision = "auto"
    compile: bool = False
    extraction_fps: Fraction | None = None
    extraction_total: int | None = None
    device: str | None = None
    on_extraction: OnExtraction = "print"
    output_path: str = "./output"
    keep_tmp_files: bool = False
    tmp_path: str = "./tmp"
    show_pred: bool = False
    pred_texts: tuple[str, ...] = ()
    feature_dtype: FeatureDtype = "float32"
    resize: Resize = "pil"
    naming: Naming = "stem"
    address: str | None = None
    encoders: int | None = None
    encoders_per_gpu: int = 1
    overwrite: bool = False
    max_attempts: int = 3
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    verbose: bool = False

    def __post_init__(self) -> None:
        for name in (
            "batch_size",
            "encoders",
            "encoders_per_gpu",
            "max_attempts",
            "extraction_total",
            "limit",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1, not {value}.")
        for name in ("output_path", "tmp_path", "model_name", "path_column"):
            if not getattr(self, name).strip():
                raise UsageError(f"{name} is empty.")
        for name in ("compile", "overwrite", "keep_tmp_files", "show_pred", "verbose"):
            if not isinstance(getattr(self, name), bool):
                raise UsageError(f"{name} must be true or false, not {getattr(self, name)!r}.")
        if not all(self.video_paths):
            raise UsageError("One of the video_paths is empty.")
        for video in self.video_paths:
            try:
                os.fsencode(video)
            except UnicodeEncodeError:
                raise UsageError(f"{video!r} of video_paths cannot be a file's name.") from None
        for text in self.pred_texts:
            if not text.isprintable() or not text.strip():
                raise UsageError(f"The text {text!r} of pred_texts is not one that can be read.")
        if "://" in self.tmp_path:
            raise UsageError(f"tmp_path must be a local folder, not {self.tmp_path}.")
        for name, kind in CHOICES.items():
            value, choices = getattr(self, name), get_args(kind)
            if value not in choices:
                raise UsageError(f"{name} must be one of {', '.join(choices)}, not {value!r}.")
        if self.on_extraction == "save_parquet":
            self._refuse_what_shards_lack()
        if self.extraction_fps is not None and self.extraction_total is not None:
            raise UsageError("extraction_fps and extraction_total exclude each other: give one.")
        if self.saves and os.path.abspath(self.output_path) == os.path.abspath(self.tmp_path):
            raise UsageError(f"output_path and tmp_path are the same folder, {self.output_path}.")
        if self.saves and self.output_path.lower().startswith(("http://", "https://")):
            raise UsageError(
                f"output_path {self.output_path} is an http address, where no file can be written: "
                "name a local folder, or one of a storage such as s3://bucket/folder."
            )
        if self.device is not None and not DEVICE.fullmatch(self.device):
            raise UsageError(f"device must be cpu, cuda or cuda:N, not {self.device!r}.")
        if self.weights is not None and self.model_name != "custom":
            raise UsageError(
                f"weights belong to model_name custom, but model_name is {self.model_name}."
            )
        if self.address is not None and self.address.startswith("ray://"):
            raise UsageError(
                "ray:// addresses (Ray Client) are not supported: run the command on the cluster "
                "with `ray job submit -- rayclip extract --address auto ...`."
            )

    def _refuse_what_shards_lack(self) -> None:
        if self.show_pred:
            raise UsageError(
                "save_parquet has no place for the predictions of show_pred: extract with "
                "save_numpy, or look at them with print."
            )
        if self.naming == "path" and not self.keep_tmp_files:
            raise UsageError(
                "naming path is for files of videos, and save_parquet makes none: rows have the "
                "inputs as they were given. Leave naming out."
            )

    @property
    def saves(self) -> bool:
        """Whether features go to files."""
        return self.on_extraction != "print"

    @property
    def carries_columns(self) -> bool:
        """Whether what is saved has the other columns of a table of videos, too."""
        return self.on_extraction == "save_parquet"


def extraction_fps_of(value: str | int | float | Fraction | None) -> Fraction | None:
    """A user's frame rate as an exact fraction; None stays None.

    Raises:
        UsageError: it is no frame rate.
    """
    if value is None or (isinstance(value, str) and value.lower() in NULLS):
        return None
    try:
        return parse_fps(value)
    except ValueError:
        raise UsageError(
            f"extraction_fps must be a number above zero, and at most {LARGEST_FPS}, such as 5, "
            f"2.5 or 30000/1001, not {value!r}."
        ) from None


def storage_options_of(text: str | None) -> dict[str, Any]:
    """A user's JSON object; None stands for none.

    Raises:
        UsageError: it is no JSON object.
    """
    if text is None:
        return {}
    try:
        options = json.loads(text)
    except ValueError:
        options = None
    if not isinstance(options, dict):
        raise UsageError('storage_options must be a JSON object such as {"anon": true}.')
    return options
