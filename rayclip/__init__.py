"""CLIP features of videos, on Ray: one video on a laptop, or ten million on a GPU cluster."""

from importlib import import_module
from typing import Any

from rayclip.errors import (
    BadVideo,
    RayclipError,
    RunStopped,
    UsageError,
    VideoError,
    WeightsUnavailable,
)

__all__ = [
    "BadVideo",
    "ClipModel",
    "Failure",
    "LoadedModel",
    "RayclipError",
    "RunStopped",
    "Summary",
    "UsageError",
    "VideoError",
    "VideoFeatures",
    "WeightsUnavailable",
    "encode",
    "extract",
    "iter_frames",
    "load_clip",
    "load_encoder",
    "load_features",
]
__version__ = "0.1.0"

_MODULES = {
    "ClipModel": "rayclip.model.loaded_model",
    "Failure": "rayclip.report.results",
    "LoadedModel": "rayclip.model.loaded_model",
    "Summary": "rayclip.report.results",
    "VideoFeatures": "rayclip.load",
    "encode": "rayclip.dataset",
    "extract": "rayclip.api",
    "iter_frames": "rayclip.media.frames",
    "load_clip": "rayclip.model.loading",
    "load_encoder": "rayclip.model.loading",
    "load_features": "rayclip.load",
}


def __getattr__(name: str) -> Any:
    """Import names on first use, so that ``rayclip --help`` does not wait for libav and Arrow."""
    if name not in _MODULES:
        raise AttributeError(f"module 'rayclip' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return __all__
