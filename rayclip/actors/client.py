"""A task's way to the control actor and to the encoders."""

from __future__ import annotations

import collections
import random
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import RayActorError, RayError, RayTaskError

from rayclip.actors.pool import EncoderAddress, reason_of
from rayclip.errors import RunStopped
from rayclip.results import VideoResult


class RemoteAttempts:
    """Attempts counted by the control actor, which outlives the task. Use it in a ``with`` block
    around the work on a group; Ray gives a task that it runs again the same id."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._group = ray.get_runtime_context().get_task_id()
        self.again: bool = ask_pool(pool.begin_group.remote(self._group))

    def __enter__(self) -> RemoteAttempts:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, *_: object
    ) -> None:
        if kind is None:
            self._pool.end_group.remote(self._group)
        elif isinstance(error, RunStopped):
            ask_pool(self._pool.stop.remote(str(error)))

    def begin(self, position: int) -> int:
        attempt: int = ask_pool(self._pool.begin.remote(self._group, position))
        return attempt

    def end(self, position: int, result: VideoResult) -> None:
        self._pool.end.remote(self._group, position, result.failure is not None)


class RemoteEncoders:
    """The encoders of a run as one task sees them: each chunk goes to the one that has fewest of
    this task's chunks, on the same node where that is a tie."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._node_id = ray.get_runtime_context().get_node_id()
        self._addresses: list[EncoderAddress] = []
        self._sent: collections.Counter[int] = collections.Counter()
        self._gone: set[int] = set()

    def submit(self, frames: NDArray[np.uint8]) -> RemoteChunk:
        return RemoteChunk(self, ray.put(frames))

    def choose(self) -> EncoderAddress:
        """The encoder for the next chunk; waits until there is one.

        Raises:
            RunStopped: none can start, or none is left.
        """
        if not self._addresses:
            self._refresh()
        return min(
            self._addresses,
            key=lambda a: (self._sent[a.index], a.node_id != self._node_id, random.random()),
        )

    def sent(self, address: EncoderAddress) -> None:
        self._sent[address.index] += 1

    def answered(self, address: EncoderAddress) -> None:
        self._sent[address.index] -= 1

    def lost(self, address: EncoderAddress) -> None:
        """Never use this encoder again: Ray says that it will not come back."""
        self._gone.add(address.index)
        self._refresh()

    def _refresh(self) -> None:
        addresses = ask_pool(self._pool.encoders.remote())
        self._addresses = [a for a in addresses if a.index not in self._gone]
        if not self._addresses:
            raise RunStopped("No encoder is left.")


class RemoteChunk:
    """A chunk that is with an encoder; it is sent again, from memory, if that one is lost."""

    def __init__(self, encoders: RemoteEncoders, frames: ray.ObjectRef[Any]) -> None:
        self._encoders = encoders
        self._frames = frames
        self._send()

    def _send(self) -> None:
        self._address = self._encoders.choose()
        self._features = self._address.handle.encode.remote(self._frames)
        self._encoders.sent(self._address)

    def done(self) -> bool:
        return bool(ray.wait([self._features], timeout=0)[0])

    def result(self) -> NDArray[np.float32]:
        """Wait for float32 ``[n, D]``.

        Raises:
            RayTaskError: the encoder could not encode these frames.
            RunStopped: no encoder is left.
        """
        while True:
            try:
                # a copy, so that the shared memory is free at once
                features = np.array(ray.get(self._features))
            except RayTaskError:
                raise
            except RayActorError:
                self._encoders.lost(self._address)
            except RayError:  # the reply was lost with its node
                pass
            else:
                return features
            finally:
                self._encoders.answered(self._address)
            self._send()


def ask_pool(reply: Any) -> Any:
    """Wait for the control actor's answer.

    Raises:
        RunStopped: it says so, or it is gone.
    """
    try:
        return ray.get(reply)
    except RayTaskError as error:
        raise RunStopped(reason_of(error)) from None
    except RayActorError as error:
        raise RunStopped("The control actor of the run died.") from error
