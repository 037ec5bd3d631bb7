"""What crosses a process boundary between decoding tasks, encoders and the control actor.

Decoding tasks import this and nothing of the encoder's.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Frame = NDArray[np.uint8]
"""A resized and cropped picture, uint8 ``[n_px, n_px, 3]``, RGB."""
Features = NDArray[np.float32]
"""float32 ``[n, D]``."""

CHUNK_FRAMES = 64  # that are sent together


class Chunk(NamedTuple):
    """Frames of one video.

    Attributes:
        id: stays the same if they are sent again, so that an encoder knows frames that crashed it.
        frames: in order. They lie in the object store one by one and are never joined on the way.
    """

    id: str
    frames: list[Frame]


class EncodeRequest(NamedTuple):
    """Decoding task -> encoder.

    Attributes:
        task: the sender, for flow control.
        chunks: at most :data:`CHUNK_FRAMES` frames in all, of one or several videos.
    """

    task: str
    chunks: list[Chunk]


class EncodeReply(NamedTuple):
    """Encoder -> decoding task.

    Attributes:
        results: the features of each chunk, or what went wrong with it.
        window: frames that this task may have with this encoder from now on.
    """

    results: list[Features | Exception]
    window: int


class EncoderAddress(NamedTuple):
    """An encoder that is up.

    Attributes:
        number: in the order in which encoders were started.
        handle: of the actor.
        node_id: where it is.
    """

    number: int
    handle: Any
    node_id: str


class EncoderList(NamedTuple):
    """Control actor -> decoding task.

    Attributes:
        encoders: those that are up.
        hold_cpus: whether a task that waits for an encoder keeps its CPUs: no encoder needs them,
            and one answers, so that the wait will end.
    """

    encoders: list[EncoderAddress]
    hold_cpus: bool
