"""Read and validate checkpoints, including untrusted ones, without running code from them.

This is the only module that imports OpenAI's code.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import sys
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from rayclip.errors import UsageError
from rayclip.interrupts import import_uninterrupted
from rayclip.model.layouts import MARKER, Layout, NotAClip, to_openai

if TYPE_CHECKING:
    import torch

MAX_REASON = 150
WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model",
)  # keys under which training scripts save the tensors
MAX_NESTING = 4  # a hostile file may hold itself
OLD_TORCH_FORMAT = b"\x80\x02\x8a\x0a"  # first bytes of torch.save files before the zip format
SHARD = re.compile(r"-\d{5}-of-\d{5}\.|\.index\.json$")

FileKind = Literal["torchscript", "pickle", "safetensors"]


class ClipShape(NamedTuple):
    """What the tensors of a CLIP say of it.

    Attributes:
        n_px: side of the square input in pixels.
        dim: features per frame.
        layout: whose names the tensors have.
        width: of the image encoder: channels of its first convolution.
    """

    n_px: int
    dim: int
    layout: Layout
    width: int


def clip_shape(path: str) -> ClipShape:
    """Return what the tensors of a CLIP checkpoint say of it.

    Args:
        path: a TorchScript archive, a state dict or a safetensors file.

    Raises:
        UsageError: it is not a CLIP model; the message names the file and says what it holds.
    """
    import torch

    tensors = read_tensors(path)
    try:
        layout, tensors = to_openai(tensors)
        # checks names and shapes, and copies nothing
        model = _build(dict(tensors), [torch.Tensor.half, torch.Tensor.copy_])
    except NotAClip as error:
        raise UsageError(f"{path} is not a CLIP model that custom can load: {error}.") from None
    except KeyError as error:
        raise UsageError(f"{path} is not a CLIP model: it has no tensor {error}.") from None
    except RuntimeError as error:  # names each missing, unknown or wrongly sized tensor
        detail = " ".join(str(error).split()).partition("for CLIP: ")[2]
        reason = detail[:MAX_REASON].rstrip(" .,:") or "the shapes of its tensors do not match"
        raise UsageError(f"{path} is not a complete CLIP model: {reason}.") from None
    except Exception:
        raise UsageError(f"{path} is not a CLIP model: its tensors have other shapes.") from None
    return ClipShape(
        int(model.visual.input_resolution),
        int(model.text_projection.shape[1]),
        layout,
        int(tensors[MARKER].shape[0]),
    )


def file_sha256(path: str) -> str:
    """Return the SHA-256 of a file in hexadecimal. A file that has not changed is read once."""
    known = os.stat(path)
    return _file_sha256(path, known.st_ino, known.st_size, known.st_mtime_ns, known.st_ctime_ns)


@lru_cache
def _file_sha256(path: str, *version: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_model(path: str, device: str, precision: str = "auto") -> Any:
    """Load OpenAI's ``CLIP`` module with the weights of a checkpoint, as ``clip.load`` does.

    One difference: an fp32 model gets fp32 weights unchanged. ``clip.load`` rounds them to fp16
    first.

    Args:
        path: a checkpoint that :func:`clip_shape` accepts.
        device: the device to load it on.
        precision: ``auto`` or ``fp16`` leave the model in fp16, except on ``cpu``; otherwise it is
            in fp32.

    Raises:
        UsageError: the file cannot be read.
    """
    import torch

    _, tensors = to_openai(read_tensors(path))
    in_fp32 = device == "cpu" or precision not in ("auto", "fp16")
    return _build(tensors, [torch.Tensor.half] if in_fp32 else []).to(device)


def _build(tensors: dict[str, torch.Tensor], skipped: Sequence[Any]) -> Any:
    """Build OpenAI's ``CLIP`` module with these weights; removes entries that are not weights.

    The constructor first initialises all weights randomly, which takes longer than everything
    else. It is skipped here, since the checkpoint overwrites them.

    Args:
        tensors: the weights.
        skipped: further functions to skip: the module is converted to fp16 by ``half``, and gets
            its weights by ``copy_``.
    """
    import torch
    from torch.nn import init
    from torch.overrides import TorchFunctionMode

    draw = {init.kaiming_uniform_, init.normal_, init.uniform_, init.xavier_uniform_}
    left_out = {*draw, torch.Tensor.normal_, torch.Tensor.uniform_, *skipped}

    class Skip(TorchFunctionMode):
        def __torch_function__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if function in left_out:
                return args[0] if args else kwargs["tensor"]
            return function(*args, **(kwargs or {}))

    with without_warnings(), Skip():
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


def read_tensors(path: str) -> dict[str, torch.Tensor]:
    """Read the tensors of a checkpoint, also inside the dictionaries of training scripts.

    Pickled code is refused. No method of a TorchScript archive is called, but torch may run parts
    of it while loading: an archive is a program.

    Raises:
        UsageError: it is no such file, is damaged or could be code; the message names the file.
    """
    torch = import_uninterrupted("torch")
    from safetensors.torch import load_file

    kind = _file_kind(path)
    content: Any
    try:
        with without_warnings():
            if kind == "torchscript":
                content = torch.jit.load(path, map_location="cpu").state_dict()
            elif kind == "safetensors":
                content = load_file(path)
            else:
                content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UsageError(
            f"{path} holds Python objects, as training checkpoints do, and these could be code: "
            "save the model's state_dict() instead."
        ) from None
    except Exception:
        raise UsageError(f"{path} is damaged or incompletely downloaded: get it again.") from None
    if not isinstance(content, Mapping):
        raise UsageError(
            f"{path} holds a {type(content).__name__}, not the state dict of a CLIP model."
        )
    return {
        name: tensor
        for name, tensor in _unwrap(content).items()
        if isinstance(name, str) and isinstance(tensor, torch.Tensor)
    }


def _unwrap(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the tensors from the nested dictionaries that training scripts save."""
    for _ in range(MAX_NESTING):
        inner = (content[wrapper] for wrapper in WRAPPERS if wrapper in content)
        content = next((found for found in inner if isinstance(found, Mapping)), content)
    return content


def _file_kind(path: str) -> FileKind:
    """Return how a checkpoint is stored.

    Raises:
        UsageError: it is none.
    """
    if SHARD.search(path):
        raise UsageError(
            f"{path} is one file of a checkpoint that was saved in several: save it again as one, "
            "for example with save_pretrained(folder, max_shard_size='100GB')."
        )
    with open(path, "rb") as file:
        beginning = file.read(9)
    if not beginning:
        raise UsageError(f"{path} is an empty file, not a checkpoint.")
    if not zipfile.is_zipfile(path):
        if beginning[:4] == OLD_TORCH_FORMAT:
            return "pickle"
        if beginning[8:] == b"{":  # the first 8 bytes are the header's length
            return "safetensors"
        if beginning[:2] == b"PK":
            raise UsageError(f"{path} is damaged or incompletely downloaded: get it again.")
        raise UsageError(
            f"{path} is neither a TorchScript archive, nor a saved state dict, nor a safetensors "
            "file."
        )
    with zipfile.ZipFile(path) as archive:
        members = {os.path.basename(name) for name in archive.namelist()}
    if "data.pkl" not in members:
        raise UsageError(f"{path} is a zip file, but torch did not write it.")
    return "torchscript" if "constants.pkl" in members else "pickle"
