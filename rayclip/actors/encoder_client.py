"""A decoding task's way to the encoders: requests, and sending them again if an encoder is lost."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from rayclip.actors.encoder_router import Call, EncoderRouter
from rayclip.actors.messages import (
    CHUNK_FRAMES,
    Chunk,
    EncodeReply,
    EncodeRequest,
    Features,
    Frame,
)
from rayclip.actors.ray_calls import reason_of
from rayclip.errors import RunStopped

MAX_DELAY_S = 0.2  # for which few frames wait for more before they are sent
TIMEOUT_S = 20.0  # without a reply, after which a task asks whether the encoder is still there


class EncoderClient:
    """Sends the frames of a task to encoders.

    Each call costs some milliseconds of CPU on both sides, so small chunks share a request. A
    request that is not full leaves after :data:`MAX_DELAY_S`, when somebody looks, or as soon as
    the task waits for any features.
    """

    def __init__(self, control: Any) -> None:
        self._task = secrets.token_hex(8)
        self._router = EncoderRouter(control)
        self._filling: PendingRequest | None = None

    def submit(self, frames: list[Frame]) -> PendingFeatures:
        """Queue a chunk: uint8 ``[n_px, n_px, 3]`` each, at least one.

        Raises:
            RunStopped: no encoder can start, or none is left.
        """
        if self._filling is not None and not self._filling.has_room(len(frames)):
            self._filling.send()
        if self._filling is None or self._filling.is_sent:
            self._filling = PendingRequest(self._router, self._task)
        pending = PendingFeatures(self, self._filling, self._filling.add(frames))
        if not self._filling.has_room(1):
            self._filling.send()
        return pending

    def wait(self, pending: Sequence[PendingFeatures]) -> Sequence[PendingFeatures]:
        """Wait until some of these are done, and give those.

        Raises:
            RunStopped: no encoder is left.
        """
        requests = {one.request for one in pending}
        if not any(request.is_sent for request in requests):
            self.flush()
        while not (done := [one for one in pending if one.request.is_answered]):
            sent = {request.call: request for request in requests if request.is_sent}
            timeout_s = min(request.timeout_s for request in sent.values())
            answered = self._router.wait(sent, timeout_s)
            for call in answered:
                sent[call].take_reply()
            if not answered:
                for request in sent.values():
                    request.retry_if_silent()
        return done

    def flush(self) -> None:
        """Send what waits for more, so that it fills the batch of the frames before it."""
        if self._filling is not None:
            self._filling.send()


class PendingRequest:
    """Chunks that are on their way to an encoder and back.

    They are sent again, from the object store, if the encoder is lost or silent. A late reply does
    no harm: nobody looks at it.

    Attributes:
        is_sent: whether it has left.
        call: the last one, once it is sent.
    """

    call: Call

    def __init__(self, router: EncoderRouter, task: str) -> None:
        self._router = router
        self._created = time.monotonic()
        self.is_sent = False
        self._task = task
        self._chunks: list[Chunk] = []
        self._frames = self._count = 0
        self._stored: ray.ObjectRef[Any] | None = None
        self._results: list[Features | Exception] | None = None

    @property
    def is_answered(self) -> bool:
        return self._results is not None

    def has_room(self, frames: int) -> bool:
        """Whether this many more fit; an empty one takes any number."""
        return not self._frames or self._frames + frames <= CHUNK_FRAMES

    def add(self, frames: list[Frame]) -> int:
        """Add a chunk, and give its position."""
        self._chunks.append(Chunk(secrets.token_hex(8), frames))
        self._frames += len(frames)
        self._count += 1
        return self._count - 1

    def send(self) -> None:
        """Send it, unless it has left.

        Raises:
            RunStopped: no encoder can start, or none is left.
        """
        if self.is_sent:
            return
        self._stored = ray.put(EncodeRequest(self._task, self._chunks))
        self._chunks = []  # they are in the object store now
        self._send()
        self.is_sent = True

    def _send(self) -> None:
        assert self._stored is not None
        self.call = self._router.send(self._stored, self._frames)
        self._trusted_s = time.monotonic()

    @property
    def timeout_s(self) -> float:
        """Seconds for which the encoder is still trusted. They count from the call, not from when
        somebody waits: all requests with a lost encoder time out together."""
        return max(0.0, self._trusted_s + TIMEOUT_S - time.monotonic())

    def done(self) -> bool:
        """Whether the results are here; sends it again if they will not come.

        Raises:
            RunStopped: no encoder is left.
        """
        if time.monotonic() - self._created > MAX_DELAY_S:
            self.send()
        if self.is_sent and not self.is_answered and self._router.is_answered(self.call):
            self.take_reply()
        return self.is_answered

    def results(self) -> list[Features | Exception]:
        """Wait for the features of each chunk, or what went wrong with it, once it is sent.

        Raises:
            RunStopped: no encoder is left.
        """
        while self._results is None:
            if self._router.wait([self.call], self.timeout_s):
                self.take_reply()
            else:
                self.retry_if_silent()
        return self._results

    def retry_if_silent(self) -> None:
        """Send it again if it has timed out and its encoder is silent while others answer.

        Raises:
            RunStopped: no encoder is left.
        """
        if self.timeout_s:
            return
        if self._router.is_silent(self.call.address):
            self._send_again()
        else:
            self._trusted_s = time.monotonic()

    def take_reply(self) -> None:
        """Take the reply, which is there; send the request again if it says that none will come.

        Raises:
            RunStopped: no encoder is left.
        """
        try:
            reply: EncodeReply = ray.get(self.call.reply)
        except RayTaskError as error:
            kind = RunStopped if isinstance(error, RunStopped) else RuntimeError
            self._end([kind(reason_of(error))] * self._count)
        except RayActorError as error:
            self._router.lose(self.call.address, error)
            self._send_again()
        except RayError:  # the reply was lost with its node
            self._send_again()
        else:
            # copies, so that the shared memory is free at once
            results = [
                one if isinstance(one, Exception) else np.array(one) for one in reply.results
            ]
            self._end(results, reply.window)

    def _send_again(self) -> None:
        self._router.finish(self.call)
        self._send()

    def _end(self, results: list[Features | Exception], window: int | None = None) -> None:
        self._router.finish(self.call, window)
        self._results = results
        self._stored = None  # frees the frames


@dataclass(frozen=True)
class PendingFeatures:
    """The features of one chunk of a request."""

    client: EncoderClient
    request: PendingRequest
    position: int

    def done(self) -> bool:
        return self.request.done()

    def result(self) -> Features:
        """Wait for float32 ``[n, D]``.

        Raises:
            RuntimeError: the encoder could not encode these frames.
            RunStopped: no encoder is left.
        """
        if not self.request.is_answered:  # the task goes on with nothing else meanwhile
            self.client.flush()
        result = self.request.results()[self.position]
        if isinstance(result, Exception):
            raise result
        return result
