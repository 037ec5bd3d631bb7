"""open_clip's family: its published weights, repositories on the hub, and local folders.

Each of the three becomes a folder as open_clip reads it (``local-dir:``), with the configuration
and the weights, so that its own code builds the model.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from rayclip.errors import UsageError
from rayclip.model import open_clip_tables
from rayclip.model.checkpoint import file_sha256
from rayclip.model.families import building, importing, refuse_changed, to_interpolation, to_square
from rayclip.model.hub_files import check_available, fetch, fetched_sha256
from rayclip.model.models import CustomWeights, ModelSpec, Network
from rayclip.model.open_clip_files import (
    CONFIG_FILE,
    TEXT_FILES,
    Source,
    find_source,
    text_file_names,
    tokenizer_repo,
)
from rayclip.model.precision import in_precision, measured_frame_bytes
from rayclip.model.preprocess import Resizing

if TYPE_CHECKING:
    import torch

MODES = {"shortest": "shorter", "longest": "longest", "squash": "squash"}


def describe(model_name: str, custom: CustomWeights, revision: str | None = None) -> ModelSpec:
    """Look up a model without torch; a repository's configuration is downloaded once.

    Args:
        model_name: ``open_clip:ARCH/TAG``, ``hf-hub:ORG/REPO`` or ``local-dir:PATH``.
        custom: not used.
        revision: the commit of a repository; None for the newest.

    Raises:
        UsageError: there is no such model, its input is not a square, or open_clip is missing.
        WeightsUnavailable: the hub cannot be reached, and nothing is cached.
    """
    open_clip_tables.architectures()  # says if open_clip is missing
    source = find_source(model_name, revision)
    try:
        resizing = _resizing(source.config, model_name)
        dim = int(source.config["model_cfg"]["embed_dim"])
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"The configuration of {model_name} is not one of open_clip ({error!r})."
        ) from error
    repo = source.repo
    if repo is not None:
        sha256 = fetched_sha256(repo, source.weights)
    else:
        assert source.folder is not None
        sha256 = file_sha256(os.path.join(source.folder, source.weights))
    return ModelSpec(
        model_name,
        resizing,
        dim,
        sha256,
        revision=repo.revision if repo else None,
        license=repo.license if repo else None,
        source=source,
    )


def preflight(spec: ModelSpec) -> None:
    """Check that this machine has the files of a model, or can download them.

    Raises:
        UsageError: a local folder is missing here, or open_clip is.
        WeightsUnavailable: files are not cached, and the hub cannot be reached.
    """
    open_clip_tables.architectures()
    source: Source = spec.source
    if source.repo is not None:
        check_available(source.repo, [source.weights])
    if source.folder is not None and not os.path.isdir(source.folder):
        raise UsageError(f"{source.folder} is missing here: put the same folder on every node.")
    if source.text_repo is not None:
        check_available(source.text_repo, text_file_names(source.text_repo))


def load(spec: ModelSpec, device: str, precision: str) -> Network:
    """Load the model with open_clip's own code; no code of a repository runs.

    Raises:
        UsageError: a local folder is missing here or has changed.
        WeightsUnavailable: its files cannot be downloaded.
    """
    source: Source = spec.source
    for repo in (source.repo, source.text_repo):
        if repo is not None:
            repo.environment.apply()
    with importing(spec.model_name):
        import open_clip
    text_files = _fetch_text_files(source)
    with (
        _local_folder(source.config, [_fetch_weights(spec), *text_files]) as folder,
        building(spec.model_name),
    ):
        model = open_clip.create_model(f"local-dir:{folder}", weights_only=True)
        preprocess = model.visual.preprocess_cfg
        mean, std = _rgb(preprocess["mean"]), _rgb(preprocess["std"])
    model = model.eval().to(device)
    first = next(model.parameters())
    encode_image = in_precision(
        lambda pixels: model.encode_image(pixels, normalize=False), first.device, precision
    )
    encode_text = in_precision(
        lambda tokens: model.encode_text(tokens, normalize=False), first.device, precision
    )

    @cache
    def tokenizer() -> Any:  # made when the first texts come: transformers take seconds to import
        if not text_files and tokenizer_repo(source.config["model_cfg"]):
            raise UsageError(
                f"There is no tokenizer with {spec.model_name}, such as tokenizer.json: add its "
                "files, or ask for no texts."
            )
        with _local_folder(source.config, text_files) as folder, building(spec.model_name):
            return open_clip.get_tokenizer(f"local-dir:{folder}")

    def encode_texts(texts: Sequence[str]) -> torch.Tensor:
        return encode_text(tokenizer()(list(texts)).to(first.device))

    bias = getattr(model, "logit_bias", None)
    return Network(
        encode_image=encode_image,
        encode_text=encode_texts,
        resizing=spec.resizing,
        dim=spec.dim,
        mean=mean,
        std=std,
        frame_bytes=measured_frame_bytes(model.visual, encode_image, spec.n_px, first.device),
        device=first.device,
        context_length=int(getattr(model, "context_length", 0)) or None,
        logit_scale=float(model.logit_scale.detach().exp()),
        logit_bias=0.0 if bias is None else float(bias.detach()),
        probability="softmax" if bias is None else "sigmoid",
    )


def _resizing(config: Mapping[str, Any], model_name: str) -> Resizing:
    """Return how open_clip's transform for inference resizes pictures."""
    preprocess = config.get("preprocess_cfg", {})
    fill = int(preprocess.get("fill_color") or 0)
    return Resizing(
        to_square(config["model_cfg"]["vision_cfg"].get("image_size", 224), model_name),
        MODES[preprocess.get("resize_mode") or "shortest"],  # type: ignore[arg-type]
        to_interpolation(preprocess.get("interpolation") or "bicubic", model_name),
        (fill, fill, fill),
    )


def _rgb(value: Any) -> tuple[float, float, float]:
    """Return a mean or a standard deviation, given for each channel or once for all."""
    red, green, blue = value if isinstance(value, list | tuple) else (value,) * 3
    return float(red), float(green), float(blue)


def _fetch_weights(spec: ModelSpec) -> str:
    """Return the local path of the weights.

    Raises:
        UsageError: the file of a local folder is missing here or has changed.
        WeightsUnavailable: it cannot be downloaded.
    """
    source: Source = spec.source
    if source.repo is not None:
        return fetch(source.repo, source.weights)
    path = os.path.join(source.folder or "", source.weights)
    refuse_changed(path, spec.weights_sha256)
    return path


def _fetch_text_files(source: Source) -> list[str]:
    """Return the local paths of the tokenizer's files, downloaded if they are on the hub."""
    if source.text_repo is not None:
        return [fetch(source.text_repo, name) for name in text_file_names(source.text_repo)]
    if source.folder is None:
        return []
    names = TEXT_FILES.intersection(os.listdir(source.folder))
    return [os.path.join(source.folder, name) for name in names]


@contextmanager
def _local_folder(config: Mapping[str, Any], files: Sequence[str]) -> Iterator[str]:
    """Provide a folder as open_clip's ``local-dir:`` reads it, with links to files."""
    with TemporaryDirectory(prefix="rayclip-") as folder:
        for path in files:
            os.symlink(os.path.realpath(path), os.path.join(folder, os.path.basename(path)))
        own = deepcopy(dict(config))
        if "hf_model_name" in own["model_cfg"]["text_cfg"]:
            own["model_cfg"]["text_cfg"]["hf_model_name"] = folder
        Path(folder, CONFIG_FILE).write_text(json.dumps(own), "utf-8")
        yield folder
