"""A fake of Ray with a clock, which constructors take in place of the real one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

from rayclip.actors.messages import EncoderReport
from rayclip.actors.ray_calls import Runtime
from rayclip.model.load_stage import LoadStage
from rayclip.report.run_stats import BatchStats

NODE = "a node"


class Method:
    """A method of an actor handle."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self.remote = call


class Reply:
    """A reference to the reply of an actor; without a value, it never comes."""

    def __init__(self, *value: Any) -> None:
        self._future: Future[Any] = Future()
        for content in value:
            self._future.set_result(content)

    def future(self) -> Future[Any]:
        return self._future


class FakeEncoder:
    """An encoder actor that tests make start, report, fail and die.

    Attributes:
        gpus: that it requested.
        may_start: set when it is up.
        may_load: set when its model is loaded; it waits for that before it is ready.
        may_answer: set when it may report.
        is_loaded: as it reports.
        loading: what it reports to be doing for its model.
        error: raised by its report.
        asked: how often it was polled.
        is_killed: whether it was released.
    """

    def __init__(self, gpus: float) -> None:
        self.gpus = gpus
        self.may_start, self.may_answer = asyncio.Event(), asyncio.Event()
        self.may_answer.set()
        self.may_load = asyncio.Event()
        self.may_load.set()
        self.is_loaded = True
        self.loading: LoadStage | None = None
        self.error: Exception | None = None
        self.asked = 0
        self.is_killed = False
        self.placed = Method(self._start)
        self.ready = Method(self._load)
        self.report = Method(self._report)

    async def _start(self) -> str:
        await self.may_start.wait()
        return NODE

    async def _load(self) -> str:
        await self.may_load.wait()
        return await self._start()

    async def _report(self) -> EncoderReport:
        self.asked += 1
        await self.may_answer.wait()
        if self.error is not None:
            raise self.error
        return EncoderReport(1, NODE, BatchStats(loading=self.loading), 0, self.is_loaded)


class FakeRay:
    """Objects are their own references, or a :class:`Reply`; actors are :class:`FakeEncoder`; a
    ``wait`` passes the time unless a test has answered.

    Attributes:
        now_s: the time on the clock.
        encoders: the actors that were started.
        has_room: whether actors started now are placed on a node.
        answered: references that a ``wait`` finds answered.
        when_got: called before a value is got.
        released_s: how long a task has waited without its CPUs.
    """

    def __init__(self) -> None:
        self.now_s = self.released_s = 0.0
        self.answered: set[Any] = set()
        self.when_got: Callable[[], object] = lambda: None
        self.encoders: list[FakeEncoder] = []
        self.has_room = True

    @property
    def runtime(self) -> Runtime:
        return Runtime(self, lambda: self.now_s, self._first_completed)

    def remote(self, **options: Any) -> Callable[[type], Any]:
        def start(*_: Any) -> FakeEncoder:
            encoder = FakeEncoder(options["num_gpus"])
            if self.has_room:
                encoder.may_start.set()
            self.encoders.append(encoder)
            return encoder

        return lambda _: Method(start)

    def get(self, reference: Any) -> Any:
        if isinstance(reference, Reply) and not reference.future().done():
            self.when_got()
        return reference.future().result() if isinstance(reference, Reply) else reference

    def put(self, value: Any) -> Any:
        return value

    def wait(self, references: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        ready = [reference for reference in references if reference in self.answered]
        if not ready:
            self.now_s += timeout
            self.released_s += timeout
        return ready, [reference for reference in references if reference not in ready]

    def _first_completed(
        self, futures: Iterable[Future[Any]], timeout_s: float
    ) -> Collection[Future[Any]]:
        done = [future for future in futures if future.done()]
        self.now_s += 0 if done else timeout_s
        return done

    def kill(self, encoder: FakeEncoder) -> None:
        encoder.is_killed = True

    def nodes(self) -> list[dict[str, Any]]:
        return [{"NodeID": NODE, "Alive": True, "Resources": {"GPU": 2.0}}]

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(get_node_id=lambda: NODE)

    @property
    def living(self) -> list[float]:
        """GPUs of the encoders that were not released."""
        return [encoder.gpus for encoder in self.encoders if not encoder.is_killed]
