"""CLIP features of videos, on Ray: one video on a laptop, or ten million on a GPU cluster."""

from rayclip.api import extract
from rayclip.clip_model import ClipModel, load_clip
from rayclip.errors import (
    BadVideo,
    RayclipError,
    RunStopped,
    UsageError,
    VideoError,
    WeightsUnavailable,
)
from rayclip.results import Failure, Summary
from rayclip.video import iter_frames

__all__ = [
    "BadVideo",
    "ClipModel",
    "Failure",
    "RayclipError",
    "RunStopped",
    "Summary",
    "UsageError",
    "VideoError",
    "WeightsUnavailable",
    "extract",
    "iter_frames",
    "load_clip",
]
__version__ = "0.1.0"
