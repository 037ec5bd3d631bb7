"""Checkpoints, those that users bring, too: looked at and loaded, and never called.

Also the one place where OpenAI's code is imported.
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
MARKER = "visual.conv1.weight"  # the tensor that all of OpenAI's models have, and few others
FP16_BYTES = 2  # bytes of a number in fp16
WRAPPERS = ("state_dict", "model_state_dict", "model")  # where training scripts put the tensors
PREFIXES = {"module", "model", "clip", "clip_model", "_orig_mod"}  # and what before their names
OTHER_LAYOUTS = {  # what the beginning of a tensor's name tells of a checkpoint
    "vision_model.": "a Hugging Face CLIPModel",
    "text_model.": "a Hugging Face CLIPModel",
    "visual.trunk.": "an open_clip model whose image encoder is one of timm's",
    "text.": "an open_clip model with a text encoder of another kind",
    "encoder.": "an encoder of another kind",
    "blocks.": "one of timm's vision transformers",
}
OLD_TORCH_FORMAT = b"\x80\x02\x8a\x0a"  # how torch.save began before it wrote zip files


def clip_shape(path: str) -> tuple[int, int]:
    """Input resolution in pixels and features per frame of a CLIP checkpoint.

    Args:
        path: a TorchScript archive or a state dict in OpenAI's layout.

    Raises:
        UsageError: it is no CLIP model; the sentence names the file and says what it is.
    """
    tensors = _read_tensors(path)
    if MARKER not in tensors:
        raise UsageError(
            f"{path} is no CLIP model in OpenAI's layout: {_describe_contents(tensors)}."
        )
    try:
        model = _build(dict(tensors))
    except KeyError as error:
        raise UsageError(f"{path} is no CLIP model: it has no tensor {error}.") from None
    except RuntimeError as error:  # every missing, unknown or ill-sized tensor, by name
        words = " ".join(str(error).split()).partition("for CLIP: ")[2]
        reason = words[:MAX_REASON].rstrip(" .,:") or "its tensors do not fit one another"
        raise UsageError(f"{path} is not a complete CLIP model: {reason}.") from None
    except Exception:
        raise UsageError(f"{path} is no CLIP model: its tensors are of other shapes.") from None
    return int(model.visual.input_resolution), int(model.text_projection.shape[1])


def file_sha256(path: str) -> str:
    """SHA-256 of a file in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_model(path: str, device: str, precision: str = "auto") -> Any:
    """OpenAI's ``CLIP`` module with the weights of a checkpoint, as ``clip.load`` gives it.

    But weights in fp32 stay so where the model is: ``clip.load`` rounds them to fp16 first.

    Args:
        path: a TorchScript archive or a state dict in OpenAI's layout, also inside another
            dictionary or with a prefix, as training scripts save it.
        device: where to.
        precision: ``auto`` or ``fp16`` leave the model in fp16, except on ``cpu``; else it is in
            fp32.

    Raises:
        UsageError: no such tensors are in the file.
    """
    tensors = dict(_read_tensors(path))
    model = _build(tensors)
    if device == "cpu" or precision not in ("auto", "fp16"):
        model.float()
        if tensors[MARKER].is_floating_point() and tensors[MARKER].element_size() > FP16_BYTES:
            model.load_state_dict(tensors)
    return model.to(device)


def _build(tensors: dict[str, torch.Tensor]) -> Any:
    """OpenAI's ``CLIP`` module with these weights; numbers that are not weights are taken out.

    It draws random numbers for all of them first, which takes longer than all the rest: here they
    are left as they are, until the weights come.
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
    """``clip/model.py`` alone: the package imports torchvision, too, which takes 2 s more, for
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
    """OpenAI's ``clip`` package, which takes seconds to import, so only where it is needed."""
    with without_warnings():
        import clip
    return clip


@contextmanager
def without_warnings() -> Iterator[None]:
    """Keep the deprecations inside clip, pkg_resources and torch.jit off the user's terminal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _read_tensors(path: str) -> Mapping[str, torch.Tensor]:
    """The tensors of a checkpoint.

    Pickled code is refused. Nothing of a TorchScript archive is called, but torch may run parts of
    it while it loads: an archive is a program.
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
            f"{path} holds Python objects, as training checkpoints do, which could be code: save "
            "the model's state_dict() instead."
        ) from None
    except Exception:
        raise UsageError(f"{path} is damaged, or only a part of it was downloaded.") from None
    if not isinstance(tensors, Mapping):
        kind = type(tensors).__name__
        raise UsageError(f"{path} holds a {kind}, not the state dict of a CLIP model.")
    return _strip_prefix(_unwrap(tensors))


def _unwrap(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """The tensors, from inside the dictionaries of training scripts."""
    for wrapper in WRAPPERS:
        if isinstance(content.get(wrapper), Mapping):
            return _unwrap(content[wrapper])
    return content


def _strip_prefix(tensors: Mapping[str, Any]) -> Mapping[str, Any]:
    """The tensors as OpenAI's model calls them, where all of its have one prefix."""
    marks = [name for name in tensors if name.endswith(f".{MARKER}")]
    if len(marks) != 1 or MARKER in tensors:
        return tensors
    prefix = marks[0].removesuffix(MARKER)
    if not PREFIXES.issuperset(prefix.split(".")[:-1]):
        return tensors
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def _describe_contents(tensors: Mapping[str, Any]) -> str:
    """What a checkpoint holds instead."""
    for name in tensors:
        for beginning, kind in OTHER_LAYOUTS.items():
            if name.startswith(beginning) or f".{beginning}" in name:
                return f"it holds {kind}, whose tensors have other names ({name})"
    names = ", ".join(map(str, list(tensors)[:3]))
    return f"it has no tensor {MARKER}, but {names}" if names else "it is empty"


def _is_torchscript(path: str) -> bool:
    """Tell the two kinds of checkpoints apart, and from everything else."""
    with open(path, "rb") as file:
        beginning = file.read(9)
    if not beginning:
        raise UsageError(f"{path} is an empty file, not a checkpoint.")
    if not zipfile.is_zipfile(path):
        if beginning[:4] == OLD_TORCH_FORMAT:
            return False
        if beginning[8:] == b"{":  # after the length of its header
            raise UsageError(
                f"{path} is a safetensors file, which is not read here: in Python, "
                "torch.save(safetensors.torch.load_file(path), 'weights.pt') makes one that is."
            )
        if beginning[:2] == b"PK":
            raise UsageError(f"{path} is damaged, or only a part of it was downloaded.")
        raise UsageError(f"{path} is neither a TorchScript archive nor a saved state dict.")
    with zipfile.ZipFile(path) as archive:
        members = {os.path.basename(name) for name in archive.namelist()}
    if "data.pkl" not in members:
        raise UsageError(f"{path} is a zip file, but none that torch has written.")
    return "constants.pkl" in members
