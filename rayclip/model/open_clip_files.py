"""Where the files of open_clip's models are: published, in a repository, or in a folder."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rayclip.errors import UsageError
from rayclip.model import open_clip_tables
from rayclip.model.hub import (
    WEIGHTS_SUFFIXES,
    HubRepo,
    choose_weights,
    resolve,
)
from rayclip.model.hub_files import fetch

CONFIG_FILE = "open_clip_config.json"
WEIGHTS_STEMS = ("open_clip_model", "open_clip_pytorch_model", "model", "pytorch_model")
TEXT_FILES = {  # of tokenizers
    "added_tokens.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
    "config.json",  # of a text encoder
}


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


def find_source(model_name: str, revision: str | None) -> Source:
    """Find the files of a model; a repository's configuration is downloaded once.

    Args:
        model_name: ``open_clip:ARCH/TAG``, ``hf-hub:ORG/REPO`` or ``local-dir:PATH``.
        revision: the commit of a repository; None for the newest.

    Raises:
        UsageError: there is no such model, or its configuration is not one of open_clip.
        WeightsUnavailable: the hub cannot be reached, and nothing is cached.
    """
    prefix, _, rest = model_name.partition(":")
    if prefix == "local-dir":
        return _in_folder(rest)
    return (_published if prefix == "open_clip" else _on_hub)(rest, revision)


def text_file_names(repo: HubRepo) -> list[str]:
    """Return the names of the files of a repository's tokenizer and text encoder."""
    return [file.name for file in repo.files if file.name in TEXT_FILES]


def tokenizer_repo(model: Mapping[str, Any]) -> str | None:
    """Return the repository that a configuration names for its tokenizer; None if it has none."""
    text = model["text_cfg"]
    name: str | None = text.get("hf_tokenizer_name") or text.get("hf_model_name")
    return name


def _published(name: str, revision: str | None) -> Source:
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
    repo = resolve(repo_id, revision)
    stems = (os.path.splitext(file)[0],) if file else WEIGHTS_STEMS[:2]
    preprocess = {key: value for key, value in published.items() if key not in ("url", "hf_hub")}
    return Source(
        {"model_cfg": config, "preprocess_cfg": preprocess},
        choose_weights(repo, stems),
        repo=repo,
        text_repo=_text_repo(config, repo),
    )


def _on_hub(repo_id: str, revision: str | None) -> Source:
    """Find a repository that has a configuration of open_clip."""
    repo = resolve(repo_id, revision)
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
    if "hf_model_name" in config["model_cfg"]["text_cfg"]:
        text_repo = _text_repo(config["model_cfg"], None)
    return Source(config, weights, folder=folder, text_repo=text_repo)


def _read_config(path: str) -> Mapping[str, Any]:
    try:
        config = json.loads(Path(path).read_text("utf-8"))
    except ValueError as error:
        raise UsageError(f"{path} is not a JSON file ({error}).") from error
    config = config if isinstance(config, dict) else {}
    model = config.get("model_cfg")
    parts = {"model_cfg": model, "preprocess_cfg": config.get("preprocess_cfg", {})}
    if isinstance(model, dict):
        parts |= {name: model.get(name) for name in ("vision_cfg", "text_cfg")}
    for name, part in parts.items():
        if not isinstance(part, dict):
            raise UsageError(f"{path} is not a configuration of open_clip: it has no {name}.")
    return config


def _text_repo(model: Mapping[str, Any], own: HubRepo | None) -> HubRepo | None:
    """Return the repository with the files of a model's tokenizer, if it needs any."""
    name = tokenizer_repo(model)
    if not name or (own is not None and name == own.repo_id):
        return own if name else None
    return resolve(name)
