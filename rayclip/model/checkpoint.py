"""Read and validate checkpoints, including untrusted ones, without running code from them.

This is the only module that imports OpenAI's code.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from rayclip.errors import UsageError
from rayclip.interrupts import import_uninterrupted

if TYPE_CHECKING:
    import torch

MAX_REASON = 150
MARKER = "visual.conv1.weight"  # all of OpenAI's models have this tensor, and few others do
FP16_BYTES = 2
WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model",
)  # keys under which training scripts save the tensors
PREFIXES = {
    "module",
    "model",
    "clip",
    "clip_model",
    "_orig_mod",
}  # and prefixes that they add to names
OTHER_LAYOUTS = {  # kinds of checkpoints, by the beginning of a tensor's name
    "vision_model.": "a Hugging Face CLIPModel",
    "text_model.": "a Hugging Face CLIPModel",
    "visual.trunk.": "an open_clip model whose image encoder is one of timm's",
    "text.": "an open_clip model with another kind of text encoder",
    "encoder.": "another kind of encoder",
    "blocks.": "one of timm's vision transformers",
}
OLD_TORCH_FORMAT = b"\x80\x02\x8a\x0a"  # first bytes of torch.save files before the zip format


def clip_shape(path: str) -> tuple[int, int]:
    """Return the input resolution in pixels and the features per frame of a CLIP checkpoint.

    Args:
        path: a TorchScript archive or a state dict in OpenAI's layout.

    Raises:
        UsageError: it is not a CLIP model; the message names the file and says what it holds.
    """
    tensors = _read_tensors(path)
    if MARKER not in tensors:
        raise UsageError(
            f"{path} is not a CLIP model in OpenAI's layout: {_describe_contents(tensors)}."
        )
    try:
        model = _build(dict(tensors))
    except KeyError as error:
        raise UsageError(f"{path} is not a CLIP model: it has no tensor {error}.") from None
    except RuntimeError as error:  # names each missing, unknown or wrongly sized tensor
        detail = " ".join(str(error).split()).partition("for CLIP: ")[2]
        reason = detail[:MAX_REASON].rstrip(" .,:") or "the shapes of its tensors do not match"
        raise UsageError(f"{path} is not a complete CLIP model: {reason}.") from None
    except Exception:
        raise UsageError(f"{path} is not a CLIP model: its tensors have other shapes.") from None
    return int(model.visual.input_resolution), int(model.text_projection.shape[1])


def file_sha256(path: str) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_model(path: str, device: str, precision: str = "auto") -> Any:
    """Load OpenAI's ``CLIP`` module with the weights of a checkpoint, as ``clip.load`` does.

    One difference: an fp32 model gets fp32 weights unchanged. ``clip.load`` rounds them to fp16
    first.

    Args:
        path: a TorchScript archive or a state dict in OpenAI's layout, also inside another
            dictionary or with a prefix, as training scripts save it.
        device: the device to load it on.
        precision: ``auto`` or ``fp16`` leave the model in fp16, except on ``cpu``; otherwise it is
            in fp32.

    Raises:
        UsageError: the file holds no such tensors.
    """
    tensors = dict(_read_tensors(path))
    model = _build(tensors)
    if device == "cpu" or precision not in ("auto", "fp16"):
        model.float()
        if tensors[MARKER].is_floating_point() and tensors[MARKER].element_size() > FP16_BYTES:
            model.load_state_dict(tensors)
    return model.to(device)


def _build(tensors: dict[str, torch.Tensor]) -> Any:
    """Build OpenAI's ``CLIP`` module with these weights; removes entries that are not weights.

    The constructor first initialises all weights randomly, which takes longer than everything
    else. It is skipped here, since the checkpoint overwrites them.
    """
    import torch
    from torch.nn import init
    from torch.overrides import TorchFunctionMode

    draw = {init.kaiming_uniform_, init.normal_, init.uniform_, init.xavier_uniform_}
    draw |= {torch.Tensor.normal_, torch.Tensor.uniform_}

    class SkipInitialisation(TorchFunctionMode):
        def __torch_function__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if function in draw:
                return args[0] if args else kwargs["tensor"]
            return function(*args, **(kwargs or {}))

    with without_warnings(), SkipInitialisation():
        return openai_models().build_model(tensors)


@cache
def openai_models() -> ModuleType:
    """Import only ``clip/model.py``: the package also imports torchvision, which takes 2 s, for
    transforms that are not used here."""
    package = find_spec("clip")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("No module named 'clip'", name="clip")
    file = Path(package.origin).with_name("model.py")
    spec = spec_from_file_location("rayclip_openai_models", file)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # torch.compile looks there
    spec.loader.exec_module(module)
    return module


def openai_clip() -> Any:
    """Import OpenAI's ``clip`` package on demand, since that takes seconds."""
    with without_warnings():
        import clip
    return clip


@contextmanager
def without_warnings() -> Iterator[None]:
    """Hide the deprecation warnings of clip, pkg_resources and torch.jit."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _read_tensors(path: str) -> Mapping[str, torch.Tensor]:
    """Read the tensors of a checkpoint.

    Pickled code is refused. No method of a TorchScript archive is called, but torch may run parts
    of it while loading: an archive is a program.
    """
    torch = import_uninterrupted("torch")
    is_torchscript = _is_torchscript(path)
    try:
        with without_warnings():
            if is_torchscript:
                archive = torch.jit.load(path, map_location="cpu")
                return dict(archive.state_dict())
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UsageError(
            f"{path} holds Python objects, as training checkpoints do, and these could be code: "
            "save the model's state_dict() instead."
        ) from None
    except Exception:
        raise UsageError(f"{path} is damaged or incompletely downloaded: get it again.") from None
    if not isinstance(tensors, Mapping):
        kind = type(tensors).__name__
        raise UsageError(f"{path} holds a {kind}, not the state dict of a CLIP model.")
    return _strip_prefix(_unwrap(tensors))


def _unwrap(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the tensors from the nested dictionaries that training scripts save."""
    for wrapper in WRAPPERS:
        if isinstance(content.get(wrapper), Mapping):
            return _unwrap(content[wrapper])
    return content


def _strip_prefix(tensors: Mapping[str, Any]) -> Mapping[str, Any]:
    """Rename tensors as in OpenAI's model if all of them have one known prefix."""
    markers = [name for name in tensors if name.endswith(f".{MARKER}")]
    if len(markers) != 1 or MARKER in tensors:
        return tensors
    prefix = markers[0].removesuffix(MARKER)
    if not PREFIXES.issuperset(prefix.split(".")[:-1]):
        return tensors
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def _describe_contents(tensors: Mapping[str, Any]) -> str:
    """Say what a checkpoint that is not a CLIP model holds."""
    for name in tensors:
        for beginning, kind in OTHER_LAYOUTS.items():
            if name.startswith(beginning) or f".{beginning}" in name:
                return f"it holds {kind}, whose tensors have other names ({name})"
    names = ", ".join(map(str, list(tensors)[:3]))
    return f"it has no tensor {MARKER}, but {names}" if names else "it is empty"


def _is_torchscript(path: str) -> bool:
    """Whether a checkpoint is a TorchScript archive; False for a state dict.

    Raises:
        UsageError: it is neither.
    """
    with open(path, "rb") as file:
        beginning = file.read(9)
    if not beginning:
        raise UsageError(f"{path} is an empty file, not a checkpoint.")
    if not zipfile.is_zipfile(path):
        if beginning[:4] == OLD_TORCH_FORMAT:
            return False
        if beginning[8:] == b"{":  # the first 8 bytes are the header's length
            raise UsageError(
                f"{path} is a safetensors file, which is not supported: convert it in Python with "
                "torch.save(safetensors.torch.load_file(path), 'weights.pt')."
            )
        if beginning[:2] == b"PK":
            raise UsageError(f"{path} is damaged or incompletely downloaded: get it again.")
        raise UsageError(f"{path} is neither a TorchScript archive nor a saved state dict.")
    with zipfile.ZipFile(path) as archive:
        members = {os.path.basename(name) for name in archive.namelist()}
    if "data.pkl" not in members:
        raise UsageError(f"{path} is a zip file, but torch did not write it.")
    return "constants.pkl" in members
