"""``run.json``: the settings and versions of a run, and whether another run may resume it."""

from __future__ import annotations

import platform
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from rayclip.errors import UsageError
from rayclip.media import sampling
from rayclip.model import preprocess
from rayclip.model.models import ModelSpec, family_name
from rayclip.settings import OPTIONS, Settings

# one folder must not mix features with different values of these
COMPARED_OPTIONS = tuple(name for name, option in OPTIONS.items() if option.compared)
COMPARED = (
    "model_name",
    "weights_sha256",
    "activation",
    "revision",
    *COMPARED_OPTIONS,
    "of_tars",
    "frame_rule",
    "resize_rule",
)
PACKAGES = (
    "rayclip",
    "ray",
    "torch",
    "torchvision",
    "clip-anytorch",
    "open_clip_torch",
    "timm",
    "transformers",
    "av",
    "numpy",
    "pillow",
)


def run_record(settings: Settings, spec: ModelSpec, of_tars: bool = False) -> dict[str, Any]:
    """Return the content of ``run.json``, without ``storage_options``, which may be secret.

    Args:
        settings: of the run.
        spec: its model.
        of_tars: whether its inputs are tar files of videos.
    """
    return {
        "model_name": spec.model_name,
        "family": family_name(spec.model_name),
        "weights_sha256": spec.weights_sha256,
        "activation": spec.activation,
        "revision": spec.revision,
        "license": spec.license,
        **{name: _as_json(getattr(settings, name)) for name in COMPARED_OPTIONS},
        "of_tars": of_tars,
        "frame_rule": sampling.RULE_VERSION,
        "resize_rule": preprocess.RULE_VERSION,
        "dim": spec.dim,
        "n_px": spec.n_px,
        "device": settings.device,
        "batch_size": settings.batch_size,
        "compile": settings.compile,
        "on_extraction": settings.on_extraction,
        "naming": settings.naming,
        "python": platform.python_version(),
        "versions": {package: _version(package) for package in PACKAGES},
    }


def differences(before: dict[str, Any] | None, now: dict[str, Any]) -> list[str]:
    """Return the settings that differ, each as ``name=old (now new)``."""
    if before is None:
        return ["unknown settings, because it has no run.json"]
    before = _OLDER | before
    return [
        f"{name}={before.get(name)} (now {now[name]})"
        for name in COMPARED
        if before.get(name) != now[name]
    ]


def refuse_to_mix(before: dict[str, Any] | None, now: dict[str, Any], folder: str) -> None:
    """Refuse to mix features of different settings in one folder.

    Raises:
        UsageError: the settings differ; the message names the folder and each difference.
    """
    changed = differences(before, now)
    if changed:
        raise UsageError(
            f"{folder} was made with {', '.join(changed)}: choose another output_path, or "
            "overwrite=true to recompute everything."
        )


def _as_json(value: Any) -> Any:
    return str(value) if isinstance(value, Fraction) else value


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


# what records had in effect before they said it
_OLDER = {
    "activation": "quickgelu",
    "of_tars": False,
    **{name: _as_json(OPTIONS[name].default) for name in COMPARED_OPTIONS},
}
