"""Gives requests for pictures and clips their turns: one slow video must not hold up the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar
from weakref import WeakValueDictionary

T = TypeVar("T")
IsGone = Callable[[], Awaitable[bool]]


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


class MediaWork:
    """Runs blocking calls for videos on threads: at most as many as cores, one for each video.

    Calls that take long, such as conversions, leave at least one core to others, if there are two.
    """

    def __init__(self, cores: int) -> None:
        self._threads = ThreadPoolExecutor(cores, thread_name_prefix="media")
        self._slots = asyncio.Semaphore(cores)
        self._long_slots = asyncio.Semaphore(max(1, cores - 1))
        self._videos: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def run(
        self, video: str, call: Callable[[], T], is_gone: IsGone, takes_long: bool = False
    ) -> T:
        """Run a call when it is its turn.

        Args:
            video: no other call for it runs meanwhile.
            call: what to run.
            is_gone: whether whoever asked for it has gone, as when a page was left.
            takes_long: whether it takes long.

        Raises:
            ClientGone: they had gone before its turn.
        """
        lock = self._videos.setdefault(video, asyncio.Lock())
        async with lock, self._slot(takes_long):
            if await is_gone():
                raise ClientGone
            return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    def close(self) -> None:
        """Start no further call."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    @asynccontextmanager
    async def _slot(self, takes_long: bool) -> AsyncIterator[None]:
        if takes_long:
            async with self._long_slots, self._slots:
                yield
        else:
            async with self._slots:
                yield
