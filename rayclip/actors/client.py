"""A task's way to the encoders."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import RayActorError, RayError, RayTaskError

from rayclip.actors.credits import Debt, Terms
from rayclip.actors.decoder import CHUNK_FRAMES
from rayclip.actors.fleet import Directory, EncoderAddress, left_for_good, reason_of
from rayclip.actors.pieces import SmallChunk
from rayclip.actors.routing import NEAR_S, candidates
from rayclip.errors import RunStopped

REFRESH_S = 10.0  # after which a task asks again which encoders there are
WAIT_S = 0.2  # for more frames, before few are sent
PATIENCE_S = 20.0  # with one answer, after which a task asks whether its encoder is still there


Features = NDArray[np.float32]


class Answer(NamedTuple):
    """What an encoder will say.

    Attributes:
        reply: as Ray knows it.
        future: of the same; waiting for this, a task keeps its CPUs.
    """

    reply: ray.ObjectRef[Any]
    future: Future[tuple[list[Features | Exception], Terms]]


class RemoteEncoders:
    """The encoders of a run as one task sees them.

    Each chunk goes to an encoder on the same node, for that costs no network; but where another
    would run dry meanwhile, to the one that is through first. None gets more than it said that it
    takes.
    """

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._node_id = ray.get_runtime_context().get_node_id()
        self._task = secrets.token_hex(8)
        self._addresses: list[EncoderAddress] = []
        self._users = 1
        self._refreshed = 0.0
        self._debts: dict[int, Debt] = {}
        self._unanswered: dict[Answer, tuple[int, int]] = {}
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
        if not any(parcel.is_sent for parcel in parcels):
            for parcel in parcels:
                parcel.send()
        while not (done := [chunk for chunk in chunks if chunk.parcel.is_back]):
            sent = {parcel.answer: parcel for parcel in parcels if parcel.is_sent}
            answers = self.first_of(sent, PATIENCE_S)
            for answer in answers:
                sent[answer].take_answer()
            if not answers:
                for parcel in sent.values():
                    parcel.chase()
        return done

    def first_of(self, answers: Iterable[Answer], timeout_s: float) -> Collection[Answer]:
        """Wait until there are some; gives those that are there.

        While a task waits with ``ray.wait``, Ray gives its CPUs to others. Where several runs share
        the devices, each gets its turn by that. One alone would only get more and more processes
        of its own, which cost seconds of CPU each.
        """
        by_future = {answer.future: answer for answer in answers}
        if self._users > 1:
            replies = [answer.reply for answer in by_future.values()]
            if not ray.wait(replies, num_returns=1, timeout=timeout_s)[0]:
                return []
        return [by_future[one] for one in wait(by_future, timeout_s, FIRST_COMPLETED).done]

    def send(
        self, stored: ray.ObjectRef[Any], chunks: Sequence[SmallChunk]
    ) -> tuple[EncoderAddress, Answer]:
        """Send frames that are in the object store; waits until some encoder takes them.

        Raises:
            RunStopped: no encoder can start, or none is left.
        """
        frames = sum(chunk.frames for chunk in chunks)
        address = self._choose(frames)
        reply = address.handle.encode.remote(stored, chunks, self._task)
        answer = Answer(reply, reply.future())
        self._debts[address.index].frames += frames
        self._unanswered[answer] = address.index, frames
        return address, answer

    def answered(self, answer: Answer, terms: Terms | None = None) -> None:
        """Note that an answer has come, and what the encoder said with it."""
        if answer in self._unanswered:
            index, frames = self._unanswered.pop(answer)
            self._debts[index].frames -= frames
            if terms is not None:
                self._debts[index].terms = terms
                self._debts[index].told_s = time.monotonic()

    def _choose(self, frames: int) -> EncoderAddress:
        begun = time.monotonic()
        while True:
            now = time.monotonic()
            if not self._addresses or now - self._refreshed > REFRESH_S:
                self._refresh()
            there = {address.index: address for address in self._addresses}
            found = candidates(
                loads_s={number: self._debts[number].load_s(now) for number in there},
                near=[number for number in there if there[number].node_id == self._node_id],
                open_=[number for number in there if self._debts[number].allows(frames)],
                waited_s=now - begun,
            )
            if found:
                return there[random.choice(found)]
            for answer in self.first_of(self._unanswered, NEAR_S):
                self.answered(answer, _terms_of(answer))

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
        told: Directory = ask_pool(self._pool.encoders.remote(frozenset(self._gone)))
        self._addresses, self._users = told
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
        answer: what the encoder will say, once it is sent.
    """

    answer: Answer

    def __init__(self, encoders: RemoteEncoders) -> None:
        self._encoders = encoders
        self._begun = time.monotonic()
        self.is_sent = False
        self._frames: list[NDArray[np.uint8]] = []
        self._chunks: list[SmallChunk] = []
        self._stored: ray.ObjectRef[Any] | None = None
        self._results: list[Features | Exception] | None = None

    @property
    def is_back(self) -> bool:
        return self._results is not None

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
        self._address, self.answer = self._encoders.send(self._stored, self._chunks)

    def done(self) -> bool:
        """Whether the results are here; sends it again where they will not come.

        Raises:
            RunStopped: no encoder is left.
        """
        if time.monotonic() - self._begun > WAIT_S:
            self.send()
        if self.is_sent and not self.is_back and self.answer.future.done():
            self.take_answer()
        return self.is_back

    def results(self) -> list[Features | Exception]:
        """Wait for float32 ``[n, D]`` of each chunk, or what went wrong with it.

        Raises:
            RunStopped: no encoder is left.
        """
        self.send()
        while self._results is None:
            self.take_answer()
        return self._results

    def chase(self) -> None:
        """Send it again where its encoder is silent while others answer.

        Raises:
            RunStopped: no encoder is left.
        """
        if self._encoders.is_silent(self._address):
            self._send_again()

    def take_answer(self) -> None:
        """Wait for the answer with patience; send it again where none will come.

        Raises:
            RunStopped: no encoder is left.
        """
        if not self._encoders.first_of([self.answer], PATIENCE_S):
            self.chase()
            return
        try:
            results, terms = self.answer.future.result()
        except RayTaskError as error:
            kind = RunStopped if isinstance(error, RunStopped) else RuntimeError
            self._end([kind(reason_of(error))] * len(self._chunks))
        except RayActorError as error:
            self._encoders.lost(self._address, error)
            self._send_again()
        except RayError:  # the answer was lost with its node
            self._send_again()
        else:
            # copies, so that the shared memory is free at once
            copies = [one if isinstance(one, Exception) else np.array(one) for one in results]
            self._end(copies, terms)

    def _send_again(self) -> None:
        self._encoders.answered(self.answer)
        self._send()

    def _end(self, results: list[Features | Exception], terms: Terms | None = None) -> None:
        self._encoders.answered(self.answer, terms)
        self._results = results
        self._stored = None  # the frames


@dataclass(frozen=True)
class RemoteChunk:
    """A chunk in a parcel."""

    parcel: Parcel
    place: int

    def done(self) -> bool:
        return self.parcel.done()

    def result(self) -> Features:
        """Wait for float32 ``[n, D]``.

        Raises:
            RuntimeError: the encoder could not encode these frames.
            RunStopped: no encoder is left.
        """
        result = self.parcel.results()[self.place]
        if isinstance(result, Exception):
            raise result
        return result


def _terms_of(answer: Answer) -> Terms | None:
    failed = answer.future.exception()  # the parcel will see what it was
    return None if failed else answer.future.result()[1]


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
