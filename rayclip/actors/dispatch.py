"""Sends the frames of a task to encoders: which there are, what each may have, and who answers."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from rayclip.actors.credits import Debt, Terms
from rayclip.actors.fleet import Directory, EncoderAddress, left_for_good, reason_of
from rayclip.actors.pieces import SmallChunk
from rayclip.actors.routing import NEAR_S, candidates
from rayclip.errors import RunStopped

REFRESH_S = 10.0  # after which a task asks again which encoders there are, in the long run
FRESH_S = 1.0  # the same at its beginning, when they may just be starting, and where one is silent


@dataclass(frozen=True, eq=False)
class Answer:
    """What an encoder will say; whoever wants it asks Ray for the reply."""

    reply: ray.ObjectRef[Any]

    @cached_property
    def future(self) -> Future[Any]:
        """Done when the reply is there: a task that waits for this keeps its CPUs."""
        future: Future[Any] = self.reply.future()
        return future


class Dispatch:
    """The encoders of a run as one task sees them.

    Frames go to an encoder on the same node, for that costs no network; but where another would run
    dry meanwhile, to the one that is through first. None gets more than it said that it takes.
    """

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._node_id = ray.get_runtime_context().get_node_id()
        self._task = secrets.token_hex(8)
        self._addresses: list[EncoderAddress] = []
        self._keeps_cpus = True
        self._refreshed = 0.0
        self._refresh_s = FRESH_S / 2
        self._debts: dict[int, Debt] = {}
        self._unanswered: dict[Answer, tuple[int, int]] = {}
        self._gone: set[int] = set()
        self._given_up = False

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
        answer = Answer(reply)
        self._debts[address.index].frames += frames
        self._unanswered[answer] = address.index, frames
        return address, answer

    def first_of(self, answers: Iterable[Answer], timeout_s: float) -> Collection[Answer]:
        """Wait until there are some; gives those that are there.

        While a task waits with ``ray.wait``, Ray gives its CPUs to others: to other runs while no
        encoder of this one answers, and if encoders are on CPUs, to one that is to be started again
        or to the task that decodes what it is to have next. Otherwise they would go to more
        processes of this run, which cost seconds of CPU each, so it keeps them.
        """
        if self._keeps_cpus:
            futures = {answer.future: answer for answer in answers}
            return [futures[done] for done in wait(futures, timeout_s, FIRST_COMPLETED).done]
        replies = {answer.reply: answer for answer in answers}
        return [replies[reply] for reply in ray.wait([*replies], timeout=timeout_s)[0]]

    def is_there(self, answer: Answer) -> bool:
        """Look, without waiting. Where a task keeps its CPUs, Ray must not take it for idle now,
        either."""
        if self._keeps_cpus:
            return answer.future.done()
        return bool(ray.wait([answer.reply], timeout=0)[0])

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
            if not self._addresses or now - self._refreshed > self._refresh_s:
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
        if time.monotonic() - self._refreshed > FRESH_S:
            self._refresh()
        return address.index not in [usable.index for usable in self._addresses]

    def _refresh(self) -> None:
        self._refreshed = time.monotonic()
        self._refresh_s = min(2 * self._refresh_s, REFRESH_S)
        told: Directory = ask_pool(self._pool.encoders.remote(frozenset(self._gone)))
        self._addresses, self._keeps_cpus = told
        for address in self._addresses:
            if address.index not in self._debts:
                self._debts[address.index] = Debt(0, address.terms, self._refreshed)
        if not self._addresses:
            why = ": their devices keep failing" if self._given_up else ""
            raise RunStopped(f"No encoder is left{why}.")


def _terms_of(answer: Answer) -> Terms | None:
    try:
        terms: Terms = ray.get(answer.reply)[1]
    except RayError:  # the parcel will see what it was
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
