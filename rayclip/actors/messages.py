"""What crosses a process boundary between decoding tasks, encoders and the control actor.

Decoding tasks import this module and nothing of the encoder's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rayclip.model.squares import Frame as Frame
from rayclip.report.run_stats import BatchStats

Features = NDArray[np.float32]
"""float32 ``[n, D]``."""


# ---- frames and features: decoding task <-> encoder ----


class Chunk(NamedTuple):
    """Frames of one video.

    Attributes:
        id: does not change on a retry, so an encoder recognises frames that crashed it.
        frames: in order. They are stored one by one in the object store and never concatenated.
        models: numbers of the models that encode them.
    """

    id: str
    frames: list[Frame]
    models: Sequence[int] = (0,)


class EncodeRequest(NamedTuple):
    """Decoding task -> encoder.

    Attributes:
        task: the sender, for flow control.
        chunks: at most :data:`~rayclip.actors.flow_control.CHUNK_BYTES` in total, of one or
            several videos.
        is_awaited: whether the task sends no more until it has the features.
    """

    task: str
    chunks: list[Chunk]
    is_awaited: bool = False


class EncodeReply(NamedTuple):
    """Encoder -> decoding task.

    Attributes:
        results: for each chunk and each of its models, the features or the error.
        window: how many bytes this task may now have in flight to this encoder.
    """

    results: Sequence[Sequence[Features | Exception]]
    window: int


# ---- encoders: encoder -> control actor -> decoding task ----


@dataclass(frozen=True)
class EncoderReport:
    """Encoder -> control actor: what its current process has done.

    Attributes:
        process: its process id, which changes when Ray restarts the encoder.
        node_id: the node that it runs on.
        work: what the process has done.
        waiting: frames that it holds and has not encoded.
        is_loaded: whether its model is loaded.
    """

    process: int
    node_id: str
    work: BatchStats
    waiting: int
    is_loaded: bool


class EncoderAddress(NamedTuple):
    """An encoder that is up.

    Attributes:
        number: in the order in which encoders were started.
        handle: of the actor.
        node_id: the node that it runs on.
    """

    number: int
    handle: Any
    node_id: str


# ---- progress: decoding task -> control actor ----


@dataclass(frozen=True)
class WorkerProcess:
    """A decoding process: its node, and the path of its crash log there."""

    node_id: str
    crash_log: str


@dataclass(frozen=True)
class VideoInProgress:
    """A video that is being decoded or encoded, and for how many seconds."""

    video: str
    since_s: float


@dataclass(frozen=True)
class FinishedVideo:
    """A video that is done or failed, and how many features it has."""

    failed: bool
    frames: int


@dataclass(frozen=True)
class TaskUpdate:
    """What happened in a task since its last update. Keys are positions of videos in the task.

    Attributes:
        finished: videos that finished since then.
        in_progress: videos that are in progress now.
    """

    finished: Mapping[int, FinishedVideo] = field(default_factory=dict)
    in_progress: Mapping[int, VideoInProgress] = field(default_factory=dict)
