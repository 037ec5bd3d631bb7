"""What every family of models offers, and which family a name belongs to.

A family is a module with the functions of :class:`Family`. Everything else (batches, devices,
actors, files) is the same for all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from rayclip.model.preprocess import Resizing
from rayclip.model_options import Activation
from rayclip.settings import Settings

if TYPE_CHECKING:
    import torch

Probability = Literal["softmax", "sigmoid"]
FAMILIES = {  # modules, by the prefix of the names of their models
    "open_clip:": "rayclip.model.open_clip",
    "hf-hub:": "rayclip.model.open_clip",
    "local-dir:": "rayclip.model.open_clip",
    "timm:": "rayclip.model.timm",
}
RESEARCH_LICENSES = {"apple-amlr", "seer-license"}  # besides those that say so in their names
NEED_TORCH = ("custom", "timm:")  # beginnings of names that cannot be described without it
OPENAI = "rayclip.model.openai"  # names without a prefix


@dataclass(frozen=True)
class CustomWeights:
    """What the user says of the model ``custom``.

    Attributes:
        checkpoint: a local path or an fsspec URL; None for the default path.
        storage_options: passed to fsspec for a URL.
        activation: None takes what is beside the checkpoint.
    """

    checkpoint: str | None = None
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    activation: Activation | None = None

    @classmethod
    def of(cls, settings: Settings) -> CustomWeights:
        """Return what the settings of a run say."""
        return cls(settings.weights, settings.storage_options, settings.activation)


NO_CUSTOM_WEIGHTS = CustomWeights()


@dataclass(frozen=True)
class ModelSpec:
    """A model that exists, before it is loaded. It is sent to other processes.

    Attributes:
        model_name: as given by the user.
        resizing: how pictures become its input.
        dim: features per frame.
        weights_sha256: SHA-256 of the checkpoint, in hexadecimal.
        has_texts: whether it has a text encoder.
        checkpoint: the local file; None if each node gets its own from where the family has them.
        revision: commit of the repository that the weights are from; None if from none.
        activation: of OpenAI's code, which may be chosen for ``custom``; None of other code.
        license: of the weights, as an SPDX or a hub's identifier; None if unknown.
        source: what else the family needs to load it.
    """

    model_name: str
    resizing: Resizing
    dim: int
    weights_sha256: str
    has_texts: bool = True
    checkpoint: str | None = None
    revision: str | None = None
    activation: Activation | None = None
    license: str | None = None
    source: Any = field(default=None, repr=False)

    @property
    def n_px(self) -> int:
        """The side of its square input in pixels."""
        return self.resizing.n_px


@dataclass(frozen=True, eq=False)
class Network:
    """A network on a device: all that the rest of rayclip asks of a loaded model.

    Attributes:
        encode_image: from float32 ``[n, 3, n_px, n_px]``, normalised, to features ``[n, dim]``.
        encode_text: from at least one text to features ``[n, dim]``; None without a text encoder.
            It raises UsageError for a text that is refused.
        resizing: how pictures become its input.
        dim: features per frame.
        mean, std: normalisation of the input, RGB.
        frame_bytes: estimated peak memory of a forward pass per frame, in bytes.
        device: that it is on.
        context_length: tokens of a text, including special ones; None without a text encoder.
        logit_scale: factor for cosines between frames and texts, already exponentiated.
        logit_bias: added to the scaled cosines.
        probability: what makes probabilities of logits: ``softmax`` over all texts, or ``sigmoid``
            of each.
        notes: decisions made while loading, one line each.
    """

    encode_image: Callable[[torch.Tensor], torch.Tensor]
    encode_text: Callable[[Sequence[str]], torch.Tensor] | None
    resizing: Resizing
    dim: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    frame_bytes: int
    device: torch.device
    context_length: int | None = None
    logit_scale: float = 1.0
    logit_bias: float = 0.0
    probability: Probability = "softmax"
    notes: tuple[str, ...] = ()


class Family(Protocol):
    """What the module of a family offers."""

    def describe(
        self, model_name: str, custom: CustomWeights, revision: str | None = None
    ) -> ModelSpec:
        """Look up a model and its sizes, without its weights.

        Raises:
            UsageError: there is no such model, or it cannot be used.
            WeightsUnavailable: what describes it cannot be read.
        """
        ...

    def preflight(self, spec: ModelSpec) -> None:
        """Check that this machine has the weights, or can get them.

        Raises:
            WeightsUnavailable: neither is the case.
        """
        ...

    def load(self, spec: ModelSpec, device: str, precision: str) -> Network:
        """Load the model.

        Raises:
            UsageError: its checkpoint is missing here, or differs from the described one.
            WeightsUnavailable: its weights cannot be downloaded.
        """
        ...


def checkpoint_contents(specs: Sequence[ModelSpec]) -> list[bytes | None] | None:
    """Read the checkpoints of models whose files other nodes may not have; None if no model has
    such a file."""
    if all(spec.checkpoint is None for spec in specs):
        return None
    return [
        None if spec.checkpoint is None else Path(spec.checkpoint).read_bytes() for spec in specs
    ]


def family_of(model_name: str) -> Family:
    """Return the module of the family that a model's name belongs to."""
    return cast(Family, import_module(_module_of(model_name)))


def needs_torch_to_describe(model_name: str) -> bool:
    """Whether :func:`describe` imports torch, which takes seconds and some 500 MB."""
    return model_name.startswith(NEED_TORCH)


def family_name(model_name: str) -> str:
    """Return the name of a model's family: ``openai``, ``open_clip`` or ``timm``."""
    return _module_of(model_name).rpartition(".")[2]


def _module_of(model_name: str) -> str:
    return next(
        (module for prefix, module in FAMILIES.items() if model_name.startswith(prefix)), OPENAI
    )


def is_for_research_only(license_: str) -> bool:
    """Whether a license, by its identifier, forbids commercial use."""
    name = license_.lower()
    return "-nc" in name or "noncommercial" in name or name in RESEARCH_LICENSES


def describe(
    model_name: str, custom: CustomWeights = NO_CUSTOM_WEIGHTS, revision: str | None = None
) -> ModelSpec:
    """Look up a model, and read its sizes from its checkpoint if it is a custom one.

    Args:
        model_name: of any family.
        custom: where the model ``custom`` is; other models need none.
        revision: the commit of a repository on the hub; None for the newest.

    Raises:
        UsageError: there is no such model, or its checkpoint cannot be used.
        WeightsUnavailable: what describes it cannot be read.
    """
    return family_of(model_name).describe(model_name, custom, revision)
