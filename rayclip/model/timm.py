"""timm's family: image encoders without texts, whose classifiers are left out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from typing import Any

from rayclip.errors import UsageError
from rayclip.model.families import EXTRA, building, importing, to_interpolation, to_square
from rayclip.model.hub import HubRepo, choose_weights, resolve
from rayclip.model.hub_files import check_available, fetch, fetched_sha256
from rayclip.model.models import CustomWeights, ModelSpec, Network
from rayclip.model.precision import in_precision, measured_frame_bytes
from rayclip.model.preprocess import Resizing

PREFIX = "timm:"
MAX_PX = 4096
WEIGHTS_STEMS = ("model", "pytorch_model")
MODES = {"center": "shorter", "squash": "squash", "border": "longest"}


@dataclass(frozen=True)
class Source:
    """Where a model's weights are, and how it is built.

    Attributes:
        repo: has the weights.
        weights: name of the file.
        name: of the model in timm.
        n_px: side of its input in pixels, if it is not the one of the weights.
        mean, std: normalisation of the input, RGB.
    """

    repo: HubRepo
    weights: str
    name: str
    n_px: int | None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def describe(model_name: str, custom: CustomWeights, revision: str | None = None) -> ModelSpec:
    """Look up a model, which is built without memory for its weights.

    Args:
        model_name: ``timm:NAME``, or ``timm:NAME@PIXELS`` for another input size.
        custom: not used.
        revision: the commit of its repository; None for the newest.

    Raises:
        UsageError: there is no such model or no weights of it, it cannot have this input size, or
            timm is missing.
        WeightsUnavailable: the hub cannot be reached, and nothing is cached.
    """
    name, n_px = _parse(model_name)
    with importing(model_name):
        import timm
    config = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    if config is None:
        known = timm.list_models(pretrained=True)
        near = get_close_matches(name, known) or known[:3]
        raise UsageError(
            f"timm has no model {name!r}; it has {', '.join(near)} and others: `rayclip models "
            "timm` lists them."
        )
    if not config.hf_hub_id:
        raise UsageError(f"timm has no weights of {name} on the Hugging Face Hub.")
    settings = timm.data.resolve_data_config(pretrained_cfg=config.to_dict())
    channels, *size = settings["input_size"]
    if channels != 3:
        raise UsageError(f"{model_name} takes pictures with {channels} channels, not RGB.")
    resizing = to_resizing(settings, n_px or to_square(size, model_name), model_name)
    dim = features_of(name, resizing.n_px, is_resized=n_px is not None)
    repo = resolve(config.hf_hub_id, revision)
    file = choose_weights(repo, WEIGHTS_STEMS)
    return ModelSpec(
        model_name,
        resizing,
        dim,
        fetched_sha256(repo, file),
        has_texts=False,
        revision=repo.revision,
        license=config.license or repo.license,
        source=Source(repo, file, name, n_px, tuple(settings["mean"]), tuple(settings["std"])),
    )


def preflight(spec: ModelSpec) -> None:
    """Check that this machine has timm, and the weights or a way to download them.

    Raises:
        UsageError: timm is missing.
        WeightsUnavailable: the weights are, and cannot be downloaded.
    """
    if find_spec("timm") is None:  # importing it takes seconds
        raise UsageError(f"{spec.model_name} needs timm: run {EXTRA}.")
    check_available(spec.source.repo, [spec.source.weights])


def load(spec: ModelSpec, device: str, precision: str) -> Network:
    """Load the model with timm's own code; no code of a repository runs.

    Raises:
        UsageError: timm is missing.
        WeightsUnavailable: the weights cannot be downloaded.
    """
    source: Source = spec.source
    source.repo.environment.apply()
    file = fetch(source.repo, source.weights)
    with building(spec.model_name):
        model = _build(source.name, source.n_px, file)
    model = model.eval().to(device)
    on = next(model.parameters()).device
    encode_image = in_precision(model, on, precision)
    return Network(
        encode_image=encode_image,
        encode_text=None,
        resizing=spec.resizing,
        dim=spec.dim,
        mean=source.mean,
        std=source.std,
        frame_bytes=measured_frame_bytes(model, encode_image, spec.n_px, on),
        device=on,
    )


def to_resizing(settings: Mapping[str, Any], n_px: int, model_name: str) -> Resizing:
    """Return how timm's transform for inference resizes pictures.

    Args:
        settings: of ``timm.data.resolve_data_config``.
        n_px: side of the model's input in pixels.
        model_name: for refusals.

    Raises:
        UsageError: rayclip cannot resize in this way.
    """
    fill = tuple(round(255 * value) for value in settings["mean"])
    return Resizing(
        n_px,
        MODES[settings["crop_mode"]],  # type: ignore[arg-type]
        to_interpolation(settings["interpolation"], model_name),
        fill,
        math.floor(n_px / settings["crop_pct"]) - n_px,
    )


def features_of(name: str, n_px: int, is_resized: bool = False) -> int:
    """Return the features per frame of a model, without weights or memory for them.

    Args:
        name: of the model in timm.
        n_px: side of its input in pixels.
        is_resized: whether that is not the size of its weights.

    Raises:
        UsageError: it cannot have this input size, or has no features for a whole frame.
    """
    import torch

    with torch.device("meta"):
        model = _build(name, n_px if is_resized else None).eval()
        try:
            features = model(torch.empty(1, 3, n_px, n_px))
        except (AssertionError, RuntimeError) as error:
            reason = " ".join(str(error).split()).rstrip(" .")
            raise UsageError(f"timm:{name} cannot encode {n_px} pixels: {reason}.") from error
    if features.ndim != 2:
        raise UsageError(f"timm:{name} has no features for a whole frame: choose another model.")
    return int(features.shape[1])


def _parse(model_name: str) -> tuple[str, int | None]:
    """Split ``timm:NAME@PIXELS``."""
    name, at, pixels = model_name.removeprefix(PREFIX).partition("@")
    if at and not (pixels.isdecimal() and 0 < int(pixels) <= MAX_PX):
        raise UsageError(
            f"The input size of {model_name} must be 1 to {MAX_PX} pixels: timm:{name}@224."
        )
    return name, int(pixels) if at else None


def _build(name: str, n_px: int | None, weights: str | None = None) -> Any:
    """Build a model without its classifier.

    Raises:
        UsageError: it cannot have this input size.
    """
    import timm

    options: dict[str, Any] = {"num_classes": 0}
    if weights is not None:
        options |= {"pretrained": True, "pretrained_cfg_overlay": {"file": weights}}
    if n_px is not None and timm.get_pretrained_cfg(name).fixed_input_size:
        options["img_size"] = n_px
    try:
        return timm.create_model(name, **options)
    except (AssertionError, ValueError) as error:
        if n_px is None:
            raise
        raise UsageError(f"timm:{name}@{n_px} cannot be built: {error}.") from error
