"""Chooses the encoder for the next frames of a task, and tracks which calls are answered."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError

from rayclip.actors.flow_control import CHUNK_BYTES, Outstanding
from rayclip.actors.messages import EncoderAddress, EncodeReply
from rayclip.actors.ray_calls import HOLD_S, RAY, Runtime, get_reply, is_permanent
from rayclip.errors import RunStopped

MAX_REFRESH_S = 10.0  # between two requests of a task for the list of encoders
MIN_REFRESH_S = 1.0  # the same when the task begins, and if an encoder is silent
SPILL_BYTES = 4 * CHUNK_BYTES  # in flight to encoders on this node, then frames go to other nodes
PROMPT_S = 0.1  # in which the control actor answers if it need not wait for an encoder
ROOM_TIMEOUT_S = 1.0  # without room at any encoder, then the task requests the list again


def choose(encoders: Mapping[int, Outstanding], local: Collection[int], size: int) -> Sequence[int]:
    """Return the numbers of the encoders that suit the next frames equally well; none if they must
    wait.

    Frames stay on their node until :data:`SPILL_BYTES` are in flight there: then its encoders are
    behind. Otherwise, the encoder with the least outstanding is best.

    Args:
        encoders: what this task has outstanding, by the encoder's number.
        local: the encoders on this node.
        size: of the frames to be sent, in bytes.
    """
    usable = [number for number, outstanding in encoders.items() if outstanding.allows(size)]
    near = [number for number in usable if number in local]
    near = [number for number in near if encoders[number].size < SPILL_BYTES]
    least = min((encoders[number].size for number in near or usable), default=0)
    return [number for number in near or usable if encoders[number].size == least]


@dataclass(frozen=True, eq=False)
class Call:
    """A request to an encoder.

    Attributes:
        reply: of the encoder.
        address: of the encoder.
        size: of its frames, in bytes.
    """

    reply: ray.ObjectRef[Any]
    address: EncoderAddress
    size: int

    @cached_property
    def future(self) -> Future[Any]:
        """Done when the reply is here."""
        future: Future[Any] = self.reply.future()
        return future


class EncoderRouter:
    """The encoders of a run as one task sees them."""

    def __init__(self, control: Any, runtime: Runtime = RAY) -> None:
        self._runtime = runtime
        self._ray, self._clock = runtime.ray, runtime.clock
        self._control = control
        self._node_id = self._ray.get_runtime_context().get_node_id()
        self._addresses: dict[int, EncoderAddress] = {}
        self._waits_since: float | None = None
        self._refreshed = 0.0
        self._refresh_s = MIN_REFRESH_S / 2
        self._outstanding: dict[int, Outstanding] = {}
        self._calls: set[Call] = set()
        self._lost: set[int] = set()
        self._is_given_up = False

    def send(self, request: ray.ObjectRef[Any], size: int) -> Call:
        """Send a request from the object store, of this many bytes; wait first until an encoder has
        room for it.

        Raises:
            RunStopped: no encoder can start, or none remains.
        """
        while True:
            if self._clock() - self._refreshed > self._refresh_s or not self._addresses:
                self._refresh()
            outstanding = {number: self._outstanding[number] for number in self._addresses}
            local = [a.number for a in self._addresses.values() if a.node_id == self._node_id]
            if best := choose(outstanding, local, size):
                break
            for call in self.wait(self._calls, ROOM_TIMEOUT_S):
                self.finish(call, self._window(call))
        self._waits_since = None
        address = self._addresses[random.choice(best)]
        call = Call(address.handle.encode.remote(request), address, size)
        self._outstanding[address.number].size += size
        self._calls.add(call)
        return call

    def wait(self, calls: Iterable[Call], timeout_s: float) -> Collection[Call]:
        """Wait until some calls are answered, and return those; none after the timeout, or sooner
        if the task has just waited for :data:`HOLD_S` and releases its CPUs from now on."""
        now_s = self._clock()
        if self._waits_since is None:
            self._waits_since = now_s
        hold_s = self._waits_since + HOLD_S - now_s
        if hold_s > 0:
            futures = {call.future: call for call in calls}
            done = self._runtime.first_completed(futures, min(timeout_s, hold_s))
            answered = [futures[future] for future in done]
        else:
            replies = {call.reply: call for call in calls}
            ready, _ = self._ray.wait([*replies], timeout=timeout_s)
            answered = [replies[reply] for reply in ready]
        if answered:
            self._waits_since = None
        return answered

    def finish(self, call: Call, window: int | None = None) -> None:
        """Record that a call has ended, and the window that its encoder set."""
        if call in self._calls:
            self._calls.remove(call)
            outstanding = self._outstanding[call.address.number]
            outstanding.size -= call.size
            outstanding.window = window or outstanding.window

    def drop(self, address: EncoderAddress, error: RayActorError) -> None:
        """Never use this encoder again: Ray says that it will not restart.

        Raises:
            RunStopped: none remains.
        """
        self._lost.add(address.number)
        self._is_given_up = is_permanent(error)
        self._refresh()

    def is_silent(self, address: EncoderAddress) -> bool:
        """Whether an encoder does not respond while others do."""
        if self._clock() - self._refreshed > MIN_REFRESH_S:
            self._refresh()
        return address.number not in self._addresses

    def _refresh(self) -> None:
        self._refreshed = self._clock()
        self._refresh_s = min(2 * self._refresh_s, MAX_REFRESH_S)
        reply = self._control.encoders.remote(frozenset(self._lost))
        listed: Sequence[EncoderAddress] = get_reply(reply, self._runtime, self._hold_s(reply))
        self._addresses = {address.number: address for address in listed}
        for number in self._addresses:
            self._outstanding.setdefault(number, Outstanding())
        if not self._addresses:
            reason = ": their devices keep failing" if self._is_given_up else ""
            raise RunStopped(f"No encoder is left{reason}.")

    def _hold_s(self, reply: ray.ObjectRef[Any]) -> float:
        """How much longer to keep the CPUs: encoders that have no place yet may need them."""
        if self._runtime.first_completed([reply.future()], PROMPT_S):
            return 0.0
        placed = get_reply(self._control.has_placed_encoders.remote(), self._runtime)
        return HOLD_S if placed else 0.0

    def _window(self, call: Call) -> int | None:
        try:
            reply: EncodeReply = self._ray.get(call.reply)
        except RayError:  # raised again to whoever waits for these features
            return None
        return reply.window
