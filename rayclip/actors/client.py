"""A task's way to the control actor and to the encoders."""

from __future__ import annotations

import os
import random
import secrets
import time
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

from rayclip.actors.attempts import Death, Process
from rayclip.actors.credits import Debt, Terms
from rayclip.actors.fleet import EncoderAddress, left_for_good, reason_of
from rayclip.errors import RunStopped
from rayclip.results import VideoResult

ALIKE_S = 0.5  # encoders that will be through with theirs so close together are alike
REFRESH_S = 10.0  # after which a task asks again which encoders there are
PATIENCE_S = 20.0  # with one answer, after which a task asks whether its encoder is still there


class RemoteAttempts:
    """Attempts counted by the control actor, which outlives the task. Use it in a ``with`` block
    around the work on a group; Ray gives a task that it runs again the same id.

    Attributes:
        last_words: the file from which the control actor will learn why this process died.
    """

    def __init__(self, pool: Any) -> None:
        context = ray.get_runtime_context()
        self._pool = pool
        self._group = context.get_task_id()
        self.last_words = f"{context.get_temp_dir()}/rayclip-decoder-{self._group}-{os.getpid()}"
        process = Process(context.get_node_id(), self.last_words)
        self.again: bool = ask_pool(pool.begin_group.remote(self._group, process))

    def __enter__(self) -> RemoteAttempts:
        return self

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, *__: object
    ) -> None:
        if isinstance(error, RunStopped):
            ask_pool(self._pool.stop.remote(str(error)))
        self._pool.end_group.remote(self._group)

    def begin(self, position: int, video: str) -> list[Death]:
        # Waited for, although it may say nothing new: who is noted late would be blamed on others.
        deaths: list[Death] = ask_pool(self._pool.begin.remote(self._group, position, video))
        return deaths

    def made(self, position: int) -> None:
        self._pool.made.remote(self._group, position)

    def end(self, position: int, result: VideoResult) -> None:
        failed = result.failure is not None
        self._pool.end.remote(self._group, position, failed, result.frames)


class RemoteEncoders:
    """The encoders of a run as one task sees them.

    Each chunk goes to the one that is through first, on the same node where that is alike; none
    gets more than it said that it takes.
    """

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._node_id = ray.get_runtime_context().get_node_id()
        self._task = secrets.token_hex(8)
        self._addresses: list[EncoderAddress] = []
        self._refreshed = 0.0
        self._debts: dict[int, Debt] = {}
        self._unanswered: dict[ray.ObjectRef[Any], tuple[int, int]] = {}
        self._gone: set[int] = set()
        self._given_up = False

    def submit(self, frames: NDArray[np.uint8]) -> RemoteChunk:
        return RemoteChunk(self, ray.put(frames), len(frames))

    def send(
        self, stored: ray.ObjectRef[Any], frames: int, name: str
    ) -> tuple[EncoderAddress, ray.ObjectRef[Any]]:
        """Send frames that are in the object store; waits until some encoder takes them.

        Raises:
            RunStopped: no encoder can start, or none is left.
        """
        address = self._choose(frames)
        reply = address.handle.encode.remote(stored, name, self._task)
        self._debts[address.index].frames += frames
        self._unanswered[reply] = address.index, frames
        return address, reply

    def answered(self, reply: ray.ObjectRef[Any], terms: Terms | None = None) -> None:
        """Note that an answer has come, and what the encoder said with it."""
        if reply in self._unanswered:
            index, frames = self._unanswered.pop(reply)
            self._debts[index].frames -= frames
            if terms is not None:
                self._debts[index].terms = terms

    def _choose(self, frames: int) -> EncoderAddress:
        while True:
            if not self._addresses or time.monotonic() - self._refreshed > REFRESH_S:
                self._refresh()
            takers = [a for a in self._addresses if self._debts[a.index].allows(frames)]
            if takers:
                return min(takers, key=self._preference)
            ready, _ = ray.wait(list(self._unanswered), num_returns=1, timeout=REFRESH_S)
            for reply in ready:
                self.answered(reply, _terms_of(reply))

    def _preference(self, address: EncoderAddress) -> tuple[int, bool, float]:
        load_s = self._debts[address.index].load_s
        return int(load_s / ALIKE_S), address.node_id != self._node_id, random.random()

    def lost(self, address: EncoderAddress, error: RayActorError) -> None:
        """Never use this encoder again: Ray says that it will not come back."""
        self._gone.add(address.index)
        self._given_up = left_for_good(error)
        self._refresh()

    def is_silent(self, address: EncoderAddress) -> bool:
        """Whether an encoder does not answer, while others do."""
        self._refresh()
        return address.index not in [usable.index for usable in self._addresses]

    def _refresh(self) -> None:
        self._refreshed = time.monotonic()
        self._addresses = ask_pool(self._pool.encoders.remote(frozenset(self._gone)))
        for address in self._addresses:
            if address.index not in self._debts:
                self._debts[address.index] = Debt(terms=address.terms)
        if not self._addresses:
            why = ": their devices keep failing" if self._given_up else ""
            raise RunStopped(f"No encoder is left{why}.")


class RemoteChunk:
    """A chunk that is with an encoder; it is sent again, from memory, if that one is lost or does
    not answer.

    Its name stays the same, so that an encoder that died of it knows it again. An answer that
    comes late does no harm: nobody looks at it then.
    """

    def __init__(self, encoders: RemoteEncoders, stored: ray.ObjectRef[Any], frames: int) -> None:
        self._encoders = encoders
        self._stored = stored
        self._frames = frames
        self._name = secrets.token_hex(8)
        self._send()

    def _send(self) -> None:
        self._address, self._reply = self._encoders.send(self._stored, self._frames, self._name)

    def done(self) -> bool:
        return bool(ray.wait([self._reply], timeout=0)[0])

    def result(self) -> NDArray[np.float32]:
        """Wait for float32 ``[n, D]``.

        Raises:
            RuntimeError: the encoder could not encode these frames.
            RunStopped: no encoder is left.
        """
        while True:
            try:
                features, terms = ray.get(self._reply, timeout=PATIENCE_S)
            except GetTimeoutError:
                if not self._encoders.is_silent(self._address):
                    continue
            except RayTaskError as error:
                self._encoders.answered(self._reply)
                kind = RunStopped if isinstance(error, RunStopped) else RuntimeError
                raise kind(reason_of(error)) from None
            except RayActorError as error:
                self._encoders.lost(self._address, error)
            except RayError:  # the reply was lost with its node
                pass
            else:
                self._encoders.answered(self._reply, terms)
                return np.array(features)  # a copy, so that the shared memory is free at once
            self._encoders.answered(self._reply)
            self._send()


def _terms_of(reply: ray.ObjectRef[Any]) -> Terms | None:
    try:
        terms: Terms = ray.get(reply)[1]
    except RayError:  # whoever waits for the features will see
        return None
    return terms


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
