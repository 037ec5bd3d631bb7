"""What open_clip says of its models, read from its files: importing it takes seconds and torch."""

from __future__ import annotations

import builtins
import json
import sys
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from rayclip.errors import UsageError
from rayclip.model.families import EXTRA

Config = dict[str, Any]
UNUSED_PACKAGES = {"huggingface_hub", "safetensors"}  # pretrained.py can do without
SHADOW = "rayclip_open_clip"  # a package without open_clip's __init__, which imports everything


def architectures() -> dict[str, Path]:
    """Return the files that describe each architecture.

    Raises:
        UsageError: open_clip is not installed.
    """
    return {path.stem: path for path in sorted((_folder() / "model_configs").glob("*.json"))}


def architecture(name: str) -> Config:
    """Return the configuration of an architecture: ``embed_dim``, ``vision_cfg``, ``text_cfg``.

    Raises:
        UsageError: there is none of this name.
    """
    files = architectures()
    if name not in files:
        near = get_close_matches(name, files) or sorted(files)[:3]
        raise UsageError(
            f"open_clip has no architecture {name!r}; it has {', '.join(near)} and others: "
            "`rayclip models open_clip` lists them."
        )
    config: Config = json.loads(files[name].read_text("utf-8"))
    return config


@cache
def published() -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
    """Return the published weights: by architecture and tag, where they are on the hub, and how
    pictures are preprocessed.

    Only ``open_clip/pretrained.py`` runs, and what it imports lazily is left out.

    Raises:
        UsageError: open_clip is not installed.
    """
    shadow = ModuleType(SHADOW)
    shadow.__path__ = [str(_folder())]
    sys.modules[SHADOW] = shadow
    spec = find_spec(f"{SHADOW}.pretrained")
    assert spec is not None
    assert spec.origin is not None
    program = compile(Path(spec.origin).read_text("utf-8"), spec.origin, "exec")
    namespace = {
        "__name__": spec.name,
        "__package__": SHADOW,
        "__builtins__": {**vars(builtins), "__import__": _import_all_but_unused},
    }
    exec(program, namespace)  # an installed module, as an import would run it
    table: Mapping[str, Mapping[str, Mapping[str, Any]]] = namespace["_PRETRAINED"]  # type: ignore[assignment]
    return table


def weights(name: str, tag: str) -> Mapping[str, Any]:
    """Return an entry of :func:`published`.

    Raises:
        UsageError: there are no such weights.
    """
    tags = published().get(name, {})
    found = tags.get(tag.lower().replace("-", "_"))
    if found is None:
        known = f"it has {', '.join(tags)}" if tags else "it has no published weights"
        raise UsageError(f"open_clip has no weights {tag!r} of {name}; {known}.")
    return found


def _folder() -> Path:
    spec = find_spec("open_clip")
    if spec is None or not spec.submodule_search_locations:
        raise UsageError(f"This model needs open_clip: run {EXTRA}.")
    return Path(spec.submodule_search_locations[0])


def _import_all_but_unused(name: str, *args: Any) -> ModuleType:
    if name.partition(".")[0] in UNUSED_PACKAGES:
        raise ImportError(name)
    return builtins.__import__(name, *args)
