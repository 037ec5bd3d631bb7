"""A task's way to the encoders."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

from rayclip.actors.credits import Debt, Terms
from rayclip.actors.decoder import CHUNK_FRAMES
from rayclip.actors.fleet import EncoderAddress, left_for_good, reason_of
from rayclip.actors.pieces import SmallChunk
from rayclip.errors import RunStopped

ALIKE_S = 0.5  # encoders that will be through with theirs so close together are alike
REFRESH_S = 10.0  # after which a task asks again which encoders there are
WAIT_S = 0.2  # for more frames, before few are sent
PATIENCE_S = 20.0  # with one answer, after which a task asks whether its encoder is still there


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
        self._filling: Parcel | None = None
        self._gone: set[int] = set()
        self._given_up = False

    def submit(self, frames: NDArray[np.uint8]) -> RemoteChunk:
        """Send frames, together with those of other small chunks where they are few: each call
        costs some milliseconds of CPU, here and there.

        Few frames wait for more until :data:`WAIT_S` is over and somebody looks, or for whoever
        waits for them.
        """
        if self._filling is not None and not self._filling.has_room(len(frames)):
            self._filling.send()
        if self._filling is None or self._filling.is_sent:
            self._filling = Parcel(self)
        chunk = self._filling.add(frames)
        if not self._filling.has_room(1):
            self._filling.send()
        return chunk

    def wait(self, chunks: Sequence[RemoteChunk]) -> Sequence[RemoteChunk]:
        """Wait until some of these are done; gives those that are.

        Raises:
            RunStopped: no encoder is left.
        """
        parcels = {chunk.parcel for chunk in chunks}
        while not (done := {parcel for parcel in parcels if parcel.done()}):
            sent = [parcel for parcel in parcels if parcel.is_sent]
            if not sent:
                for parcel in parcels:
                    parcel.send()
            elif not ray.wait([p.reply for p in sent], num_returns=1, timeout=PATIENCE_S)[0]:
                for parcel in sent:
                    parcel.chase()
        return [chunk for chunk in chunks if chunk.parcel in done]

    def send(
        self, stored: ray.ObjectRef[Any], chunks: Sequence[SmallChunk]
    ) -> tuple[EncoderAddress, ray.ObjectRef[Any]]:
        """Send frames that are in the object store; waits until some encoder takes them.

        Raises:
            RunStopped: no encoder can start, or none is left.
        """
        frames = sum(chunk.frames for chunk in chunks)
        address = self._choose(frames)
        reply = address.handle.encode.remote(stored, chunks, self._task)
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
                self._debts[index].told_s = time.monotonic()

    def _choose(self, frames: int) -> EncoderAddress:
        while True:
            if not self._addresses or time.monotonic() - self._refreshed > REFRESH_S:
                self._refresh()
            takers = [a for a in self._addresses if self._debts[a.index].allows(frames)]
            if takers:
                now = time.monotonic()
                return min(takers, key=lambda address: self._preference(address, now))
            ready, _ = ray.wait(list(self._unanswered), num_returns=1, timeout=REFRESH_S)
            for reply in ready:
                self.answered(reply, _terms_of(reply))

    def _preference(self, address: EncoderAddress, now: float) -> tuple[int, bool, float]:
        load_s = self._debts[address.index].load_s(now)
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
                self._debts[address.index] = Debt(0, address.terms, self._refreshed)
        if not self._addresses:
            why = ": their devices keep failing" if self._given_up else ""
            raise RunStopped(f"No encoder is left{why}.")


class Parcel:
    """Chunks that are with an encoder; they are sent again, from memory, if that one is lost or
    does not answer.

    Their names stay the same, so that an encoder that died of one knows it again. An answer that
    comes late does no harm: nobody looks at it then.

    Attributes:
        is_sent: whether it is on its way, or back.
        reply: what the encoder will answer, once it is sent.
    """

    reply: ray.ObjectRef[Any]

    def __init__(self, encoders: RemoteEncoders) -> None:
        self._encoders = encoders
        self._begun = time.monotonic()
        self.is_sent = False
        self._frames: list[NDArray[np.uint8]] = []
        self._chunks: list[SmallChunk] = []
        self._stored: ray.ObjectRef[Any] | None = None
        self._results: list[NDArray[np.float32] | Exception] | None = None

    def has_room(self, frames: int) -> bool:
        """Whether so many more fit; any number fits into an empty one."""
        there = sum(chunk.frames for chunk in self._chunks)
        return not there or there + frames <= CHUNK_FRAMES

    def add(self, frames: NDArray[np.uint8]) -> RemoteChunk:
        self._frames.append(frames)
        self._chunks.append(SmallChunk(secrets.token_hex(8), len(frames)))
        return RemoteChunk(self, len(self._chunks) - 1)

    def send(self) -> None:
        """Let it go, unless it is gone."""
        if self.is_sent:
            return
        one = self._frames[0] if len(self._frames) == 1 else np.concatenate(self._frames)
        self._frames.clear()
        self._stored = ray.put(one)
        self._send()
        self.is_sent = True

    def _send(self) -> None:
        assert self._stored is not None
        self._address, self.reply = self._encoders.send(self._stored, self._chunks)

    def done(self) -> bool:
        """Whether the results are here; sends it again where they will not come.

        Raises:
            RunStopped: no encoder is left.
        """
        if time.monotonic() - self._begun > WAIT_S:
            self.send()
        if self._results is None and self.is_sent and ray.wait([self.reply], timeout=0)[0]:
            self._look()
        return self._results is not None

    def results(self) -> list[NDArray[np.float32] | Exception]:
        """Wait for float32 ``[n, D]`` of each chunk, or what went wrong with it.

        Raises:
            RunStopped: no encoder is left.
        """
        self.send()
        while self._results is None:
            self._look()
        return self._results

    def chase(self) -> None:
        """Send it again where its encoder is silent while others answer."""
        if self._encoders.is_silent(self._address):
            self._send_again()

    def _look(self) -> None:
        """Wait for the answer with patience."""
        try:
            results, terms = ray.get(self.reply, timeout=PATIENCE_S)
        except GetTimeoutError:
            self.chase()
        except RayTaskError as error:
            kind = RunStopped if isinstance(error, RunStopped) else RuntimeError
            self._end([kind(reason_of(error))] * len(self._chunks))
        except RayActorError as error:
            self._encoders.lost(self._address, error)
            self._send_again()
        except RayError:  # the reply was lost with its node
            self._send_again()
        else:
            # copies, so that the shared memory is free at once
            copies = [one if isinstance(one, Exception) else np.array(one) for one in results]
            self._end(copies, terms)

    def _send_again(self) -> None:
        self._encoders.answered(self.reply)
        self._send()

    def _end(
        self, results: list[NDArray[np.float32] | Exception], terms: Terms | None = None
    ) -> None:
        self._encoders.answered(self.reply, terms)
        self._results = results
        self._stored = None  # the frames


@dataclass(frozen=True)
class RemoteChunk:
    """A chunk in a parcel."""

    parcel: Parcel
    place: int

    def done(self) -> bool:
        return self.parcel.done()

    def result(self) -> NDArray[np.float32]:
        """Wait for float32 ``[n, D]``.

        Raises:
            RuntimeError: the encoder could not encode these frames.
            RunStopped: no encoder is left.
        """
        result = self.parcel.results()[self.place]
        if isinstance(result, Exception):
            raise result
        return result


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
