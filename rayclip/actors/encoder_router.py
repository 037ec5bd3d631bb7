"""Which encoder gets the next frames of a task, and who has answered."""

from __future__ import annotations

import random
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError

from rayclip.actors.flow_control import Outstanding
from rayclip.actors.messages import EncoderAddress, EncodeReply, EncoderList
from rayclip.actors.ray_calls import ask, left_for_good
from rayclip.errors import RunStopped

REFRESH_S = 10.0  # after which a task asks again which encoders there are, in the long run
FRESH_S = 1.0  # the same at its beginning, when encoders start, and if one is silent
SPILL_FRAMES = 256  # with an encoder on this node, before frames travel to others
ROOM_S = 1.0  # after which a task that no encoder has room for asks for new ones


def choose(
    encoders: Mapping[int, Outstanding], local: Collection[int], frames: int
) -> Sequence[int]:
    """The encoders that are equally good for the next frames of a task; none if they must wait.

    Frames of 150 kB stay on their node until :data:`SPILL_FRAMES` are outstanding there: then its
    encoders are behind. Otherwise, the encoder with the least outstanding frames gets them.

    Args:
        encoders: what this task has with each, by number.
        local: those on this node.
        frames: how many are to be sent.
    """
    open_ = [number for number, one in encoders.items() if one.allows(frames)]
    near = [number for number in open_ if number in local]
    near = [number for number in near if encoders[number].frames < SPILL_FRAMES]
    least = min((encoders[number].frames for number in near or open_), default=0)
    return [number for number in near or open_ if encoders[number].frames == least]


@dataclass(frozen=True, eq=False)
class Call:
    """A request that an encoder has not answered, as far as this task has looked.

    Attributes:
        reply: of the encoder.
        address: of the encoder.
        frames: in the request.
    """

    reply: ray.ObjectRef[Any]
    address: EncoderAddress
    frames: int

    @cached_property
    def future(self) -> Future[Any]:
        """Done when the reply is there: a task that waits for this keeps its CPUs."""
        future: Future[Any] = self.reply.future()
        return future


class EncoderRouter:
    """The encoders of a run as one task sees them."""

    def __init__(self, control: Any) -> None:
        self._control = control
        self._node_id = ray.get_runtime_context().get_node_id()
        self._addresses: dict[int, EncoderAddress] = {}
        self._hold_cpus = True
        self._refreshed = 0.0
        self._refresh_s = FRESH_S / 2
        self._outstanding: dict[int, Outstanding] = {}
        self._calls: set[Call] = set()
        self._lost: set[int] = set()
        self._is_given_up = False

    def send(self, request: ray.ObjectRef[Any], frames: int) -> Call:
        """Send a request from the object store; waits until an encoder has room for it.

        Raises:
            RunStopped: no encoder can start, or none is left.
        """
        while True:
            if time.monotonic() - self._refreshed > self._refresh_s or not self._addresses:
                self._refresh()
            there = {number: self._outstanding[number] for number in self._addresses}
            local = [n for n, one in self._addresses.items() if one.node_id == self._node_id]
            if found := choose(there, local, frames):
                break
            for call in self.wait(self._calls, ROOM_S):
                self.finish(call, _window_of(call))
        address = self._addresses[random.choice(found)]
        call = Call(address.handle.encode.remote(request), address, frames)
        self._outstanding[address.number].frames += frames
        self._calls.add(call)
        return call

    def wait(self, calls: Iterable[Call], timeout_s: float) -> Collection[Call]:
        """Wait until some are answered, and give those.

        ``ray.wait`` releases this task's CPUs, so Ray may start another worker. That is wanted if
        encoders run on CPUs, where one may be starting again, and for other runs while no encoder
        answers. Otherwise wait on futures, which keeps the CPUs: each further process costs seconds
        of CPU.
        """
        if self._hold_cpus:
            futures = {call.future: call for call in calls}
            return [futures[done] for done in wait(futures, timeout_s, FIRST_COMPLETED).done]
        replies = {call.reply: call for call in calls}
        return [replies[reply] for reply in ray.wait([*replies], timeout=timeout_s)[0]]

    def is_answered(self, call: Call) -> bool:
        """Look, without waiting and without releasing CPUs that the task holds."""
        if self._hold_cpus:
            return call.future.done()
        return bool(ray.wait([call.reply], timeout=0)[0])

    def finish(self, call: Call, window: int | None = None) -> None:
        """Note that a call is over, and the window that its encoder set."""
        if call in self._calls:
            self._calls.remove(call)
            outstanding = self._outstanding[call.address.number]
            outstanding.frames -= call.frames
            outstanding.window = window or outstanding.window

    def lose(self, address: EncoderAddress, error: RayActorError) -> None:
        """Never use this encoder again: Ray says that it will not come back.

        Raises:
            RunStopped: none is left.
        """
        self._lost.add(address.number)
        self._is_given_up = left_for_good(error)
        self._refresh()

    def is_silent(self, address: EncoderAddress) -> bool:
        """Whether an encoder does not answer, while others do."""
        if time.monotonic() - self._refreshed > FRESH_S:
            self._refresh()
        return address.number not in self._addresses

    def _refresh(self) -> None:
        self._refreshed = time.monotonic()
        self._refresh_s = min(2 * self._refresh_s, REFRESH_S)
        told: EncoderList = ask(self._control.encoders.remote(frozenset(self._lost)))
        self._addresses = {address.number: address for address in told.encoders}
        self._hold_cpus = told.hold_cpus
        for number in self._addresses:
            self._outstanding.setdefault(number, Outstanding())
        if not self._addresses:
            why = ": their devices keep failing" if self._is_given_up else ""
            raise RunStopped(f"No encoder is left{why}.")


def _window_of(call: Call) -> int | None:
    try:
        reply: EncodeReply = ray.get(call.reply)
    except RayError:  # whoever waits for these features will see what it was
        return None
    return reply.window
