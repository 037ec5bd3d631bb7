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
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from rayclip.errors import UsageError
from rayclip.model import open_clip_tables
from rayclip.model.checkpoint import file_sha256
from rayclip.model.families import importing, refuse_changed, to_interpolation, to_square
from rayclip.model.hub import (
    TOKENIZER_FILES,
    WEIGHTS_SUFFIXES,
    HubRepo,
    choose_weights,
    resolve,
)
from rayclip.model.hub_files import check_available, fetch, fetched_sha256
from rayclip.model.models import ModelSpec, Network
from rayclip.model.precision import in_precision, measured_frame_bytes
from rayclip.model.preprocess import Resizing
from rayclip.settings import Activation

if TYPE_CHECKING:
    import torch

CONFIG_FILE = "open_clip_config.json"
WEIGHTS_STEMS = ("open_clip_model", "open_clip_pytorch_model", "model", "pytorch_model")
MODES = {"shortest": "shorter", "longest": "longest", "squash": "squash"}
TEXT_FILES = {*TOKENIZER_FILES, "config.json"}  # the latter describes a text encoder


@dataclass(frozen=True)
class Source:
    """Where a model's files are.

    Attributes:
        config: content of ``open_clip_config.json``: ``model_cfg`` and ``preprocess_cfg``.
        weights: name of the file with the weights.
        repo: that has it; None for a local folder.
        folder: that has it, and the tokenizer's files; None for a repository.
        text_repo: has the files of the tokenizer, and maybe of the text encoder's configuration;
            None if open_clip brings them.
    """

    config: Mapping[str, Any]
    weights: str
    repo: HubRepo | None = None
    folder: str | None = None
    text_repo: HubRepo | None = None


def describe(
    model_name: str,
    weights: str | None,  # custom's alone
    storage_options: Mapping[str, Any],
    activation: Activation | None,  # custom's alone
) -> ModelSpec:
    """Look up a model without torch; a repository's configuration is downloaded once.

    Args:
        model_name: ``open_clip:ARCH/TAG``, ``hf-hub:ORG/REPO`` or ``local-dir:PATH``.
        weights: not used.
        storage_options: not used.
        activation: not used.

    Raises:
        UsageError: there is no such model, its input is not a square, or open_clip is missing.
        WeightsUnavailable: the hub cannot be reached, and nothing is cached.
    """
    open_clip_tables.architectures()  # says if open_clip is missing
    prefix, _, rest = model_name.partition(":")
    find = {"open_clip": _published, "hf-hub": _on_hub, "local-dir": _in_folder}[prefix]
    source = find(rest)
    model, preprocess = source.config["model_cfg"], source.config.get("preprocess_cfg", {})
    try:
        n_px = to_square(model["vision_cfg"].get("image_size", 224), model_name)
        dim = int(model["embed_dim"])
    except (AttributeError, KeyError, TypeError) as error:
        raise UsageError(
            f"The configuration of {model_name} is not one of open_clip ({error!r})."
        ) from error
    fill = int(preprocess.get("fill_color", 0))
    resizing = Resizing(
        n_px,
        MODES[preprocess.get("resize_mode") or "shortest"],  # type: ignore[arg-type]
        to_interpolation(preprocess.get("interpolation") or "bicubic", model_name),
        (fill, fill, fill),
    )
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
        check_available(source.text_repo, _text_files(source.text_repo))


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
    with _local_folder(source.config, [_fetch_weights(spec), *text_files]) as folder:
        model = open_clip.create_model(f"local-dir:{folder}", weights_only=True)
    model = model.eval().to(device)
    preprocess = model.visual.preprocess_cfg
    first = next(model.parameters())
    encode_image = in_precision(
        lambda pixels: model.encode_image(pixels, normalize=False), first.device, precision
    )
    encode_text = in_precision(
        lambda tokens: model.encode_text(tokens, normalize=False), first.device, precision
    )

    @cache
    def tokenizer() -> Any:  # made when the first texts come: transformers take seconds to import
        with importing(spec.model_name), _local_folder(source.config, text_files) as folder:
            return open_clip.get_tokenizer(f"local-dir:{folder}")

    def encode_texts(texts: Sequence[str]) -> torch.Tensor:
        return encode_text(tokenizer()(list(texts)).to(first.device))

    bias = getattr(model, "logit_bias", None)
    return Network(
        encode_image=encode_image,
        encode_text=encode_texts,
        resizing=spec.resizing,
        dim=spec.dim,
        mean=tuple(preprocess["mean"]),
        std=tuple(preprocess["std"]),
        frame_bytes=measured_frame_bytes(model.visual, encode_image, spec.n_px, first.device),
        device=first.device,
        context_length=int(getattr(model, "context_length", 0)) or None,
        logit_scale=float(model.logit_scale.detach().exp()),
        logit_bias=0.0 if bias is None else float(bias.detach()),
        probability="softmax" if bias is None else "sigmoid",
    )


def _published(name: str) -> Source:
    """Find published weights by ``ARCH/TAG``."""
    architecture, _, tag = name.rpartition("/")
    if not architecture:
        raise UsageError(
            f"open_clip:{name} names no weights: say open_clip:ARCH/TAG, such as "
            "open_clip:ViT-B-16-SigLIP2/webli (`rayclip models open_clip` lists them)."
        )
    config = open_clip_tables.architecture(architecture)
    published = open_clip_tables.weights(architecture, tag)
    repo_id, _, file = published["hf_hub"].rpartition("/")
    repo = resolve(repo_id)
    stems = (os.path.splitext(file)[0],) if file else WEIGHTS_STEMS[:2]
    preprocess = {key: value for key, value in published.items() if key not in ("url", "hf_hub")}
    return Source(
        {"model_cfg": config, "preprocess_cfg": preprocess},
        choose_weights(repo, stems),
        repo=repo,
        text_repo=_text_repo(config, repo),
    )


def _on_hub(repo_id: str) -> Source:
    """Find a repository that has a configuration of open_clip."""
    repo = resolve(repo_id)
    config = _read_config(fetch(repo, CONFIG_FILE))
    return Source(
        config,
        choose_weights(repo, WEIGHTS_STEMS[:2]),
        repo=repo,
        text_repo=_text_repo(config["model_cfg"], repo),
    )


def _in_folder(path: str) -> Source:
    """Find a folder that has a configuration of open_clip, and weights."""
    folder = os.path.abspath(os.path.expanduser(path))
    if not os.path.isfile(os.path.join(folder, CONFIG_FILE)):
        raise UsageError(f"The folder {folder} of local-dir: has no {CONFIG_FILE}.")
    config = _read_config(os.path.join(folder, CONFIG_FILE))
    names = [stem + suffix for suffix in WEIGHTS_SUFFIXES for stem in WEIGHTS_STEMS]
    weights = next((one for one in names if os.path.isfile(os.path.join(folder, one))), None)
    if weights is None:
        raise UsageError(f"The folder {folder} has no weights: neither {names[0]} nor its like.")
    text_repo = None
    if "hf_model_name" in config["model_cfg"].get("text_cfg", {}):
        text_repo = _text_repo(config["model_cfg"], None)
    return Source(config, weights, folder=folder, text_repo=text_repo)


def _read_config(path: str) -> Mapping[str, Any]:
    try:
        config = json.loads(Path(path).read_text("utf-8"))
    except ValueError as error:
        raise UsageError(f"{path} is not a JSON file ({error}).") from error
    if not isinstance(config, dict) or not isinstance(config.get("model_cfg"), dict):
        raise UsageError(f"{path} is not a configuration of open_clip: it has no model_cfg.")
    return config


def _text_repo(model: Mapping[str, Any], own: HubRepo | None) -> HubRepo | None:
    """Return the repository with the files of a model's tokenizer, if it needs any."""
    text = model.get("text_cfg", {})
    name = text.get("hf_tokenizer_name") or text.get("hf_model_name")
    if not name or (own is not None and name == own.repo_id):
        return own if name else None
    return resolve(name)


def _text_files(repo: HubRepo) -> list[str]:
    return [file.name for file in repo.files if file.name in TEXT_FILES]


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
        return [fetch(source.text_repo, name) for name in _text_files(source.text_repo)]
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
        if "hf_model_name" in own["model_cfg"].get("text_cfg", {}):
            own["model_cfg"]["text_cfg"]["hf_model_name"] = folder
        Path(folder, CONFIG_FILE).write_text(json.dumps(own), "utf-8")
        yield folder
