"""How a decoding task reaches the encoders: requests, which are retried if an encoder is lost."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from rayclip.actors.encoder_router import Call, EncoderRouter
from rayclip.actors.flow_control import CHUNK_BYTES, FRAME_BYTES, counted_bytes
from rayclip.actors.messages import Chunk, EncodeReply, EncodeRequest, Features, Frame
from rayclip.actors.ray_calls import RAY, Runtime, root_cause
from rayclip.errors import RunStopped

MAX_DELAY_S = 0.2  # how long a request that is not full waits for more frames
TIMEOUT_S = 20.0  # without a reply, then a task checks whether the encoder responds


class EncoderClient:
    """Sends the frames of a task to encoders.

    Each call costs some milliseconds of CPU on both sides, so small chunks share a request. A
    request that is not full is sent after :data:`MAX_DELAY_S` (checked when somebody asks for a
    result), or as soon as the task waits for any features.
    """

    def __init__(
        self, control: Any, router: EncoderRouter | None = None, runtime: Runtime = RAY
    ) -> None:
        self._runtime = runtime
        self._task = secrets.token_hex(8)
        self._router = router or EncoderRouter(control, runtime)
        self._filling: PendingRequest | None = None

    def submit(self, frames: list[Frame], models: Sequence[int]) -> PendingFeatures:
        """Queue a chunk: at least one frame, each with the squares of these models.

        Raises:
            RunStopped: no encoder can start, or none remains.
        """
        if self._filling is not None and not self._filling.has_room(counted_bytes(frames)):
            self._filling.send()
        if self._filling is None or self._filling.is_sent:
            self._filling = PendingRequest(self._router, self._task, self._runtime)
        pending = PendingFeatures(self, self._filling, self._filling.add(frames, models))
        if not self._filling.has_room(FRAME_BYTES):
            self._filling.send()
        return pending

    def wait(self, pending: Sequence[PendingFeatures]) -> Sequence[PendingFeatures]:
        """Wait until some of these are done, and return those.

        Raises:
            RunStopped: no encoder remains.
        """
        requests = {features.request for features in pending}
        if not any(request.is_sent for request in requests):
            self.flush()
        while not (done := [features for features in pending if features.request.is_answered]):
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
        """Send the request that is being filled, because the task waits: no batch need wait for
        more frames."""
        if self._filling is not None:
            self._filling.hurry()


class PendingRequest:
    """Chunks in flight to an encoder.

    If the encoder is lost or silent, they are sent again from the object store. Late replies are
    ignored.

    Attributes:
        is_sent: whether it was sent.
        call: the latest call, once it is sent.
    """

    call: Call

    def __init__(self, router: EncoderRouter, task: str, runtime: Runtime) -> None:
        self._ray, self._clock = runtime.ray, runtime.clock
        self._router = router
        self._created = self._clock()
        self.is_sent = self._is_awaited = False
        self._task = task
        self._chunks: list[Chunk] = []
        self._size = 0
        self._models: list[int] = []  # how many encode each chunk
        self._stored: ray.ObjectRef[Any] | None = None
        self._results: Sequence[Sequence[Features | Exception]] | None = None

    @property
    def is_answered(self) -> bool:
        return self._results is not None

    def has_room(self, size: int) -> bool:
        """Whether this many more bytes fit; an empty request takes any number."""
        return not self._size or self._size + size <= CHUNK_BYTES

    def add(self, frames: list[Frame], models: Sequence[int]) -> int:
        """Add a chunk, and return its position."""
        self._chunks.append(Chunk(secrets.token_hex(8), frames, models))
        self._size += counted_bytes(frames)
        self._models.append(len(models))
        return len(self._models) - 1

    def send(self, is_awaited: bool = False) -> None:
        """Send the request if it is not sent yet.

        Args:
            is_awaited: whether the task sends no more until it has the features.

        Raises:
            RunStopped: no encoder can start, or none remains.
        """
        if self.is_sent:
            return
        self._stored = self._ray.put(EncodeRequest(self._task, self._chunks, is_awaited))
        self._chunks = []  # the object store has them now
        self._send()
        self.is_sent = True

    def hurry(self) -> None:
        """Let its batches wait for no more frames. Sends it if it is not sent yet."""
        if not self.is_sent:
            self.send(is_awaited=True)
        elif not self._is_awaited and not self.is_answered:
            self.call.address.handle.flush.remote()
        self._is_awaited = True

    def _send(self) -> None:
        assert self._stored is not None
        self.call = self._router.send(self._stored, self._size)
        self._trusted_since_s = self._clock()

    @property
    def timeout_s(self) -> float:
        """Seconds until the request times out. They count from the call, not from the wait, so that
        all requests with a lost encoder time out together."""
        return max(0.0, self._trusted_since_s + TIMEOUT_S - self._clock())

    def done(self) -> bool:
        """Whether the results are here. Sends the request again if the encoder is lost.

        Raises:
            RunStopped: no encoder remains.
        """
        if self._clock() - self._created > MAX_DELAY_S:
            self.send()
        if self.is_sent and not self.is_answered and self.call.future.done():
            self.take_reply()
        return self.is_answered

    def results(self) -> Sequence[Sequence[Features | Exception]]:
        """Wait for the features of each chunk and model, or the error. The request must be sent.

        Raises:
            RunStopped: no encoder remains.
        """
        while self._results is None:
            if self._router.wait([self.call], self.timeout_s):
                self.take_reply()
            else:
                self.retry_if_silent()
        return self._results

    def retry_if_silent(self) -> None:
        """If the request has timed out, send it again if its encoder is silent while others
        respond.

        Raises:
            RunStopped: no encoder remains.
        """
        if self.timeout_s:
            return
        if self._router.is_silent(self.call.address):
            self._send_again()
        else:
            self._trusted_since_s = self._clock()

    def take_reply(self) -> None:
        """Take the reply, which is here, or send the request again if the reply is lost.

        Raises:
            RunStopped: no encoder remains.
        """
        try:
            reply: EncodeReply = self._ray.get(self.call.reply)
        except RayTaskError as error:
            kind = RunStopped if isinstance(error, RunStopped) else RuntimeError
            self._end([[kind(root_cause(error))] * models for models in self._models])
        except RayActorError as error:
            self._router.drop(self.call.address, error)
            self._send_again()
        except RayError:  # the reply was on a lost node
            self._send_again()
        else:
            # copies, so that features do not hold the reply's shared memory
            results = [
                [result if isinstance(result, Exception) else np.array(result) for result in chunk]
                for chunk in reply.results
            ]
            self._end(results, reply.window)

    def _send_again(self) -> None:
        self._router.finish(self.call)
        self._send()

    def _end(
        self, results: Sequence[Sequence[Features | Exception]], window: int | None = None
    ) -> None:
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

    def result(self) -> Sequence[Features | Exception]:
        """Wait for the features of each model, float32 ``[n, D]``, or why it has none.

        Raises:
            RunStopped: no encoder remains.
        """
        if not self.request.is_answered:  # the task does nothing else meanwhile
            self.client.flush()
        return self.request.results()[self.position]
