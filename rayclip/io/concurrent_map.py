"""Many requests at once: most of the time of each is waiting."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

THREADS = 16
AHEAD = 4 * THREADS  # calls that are begun before the first of them is answered

T = TypeVar("T")
R = TypeVar("R")


def concurrent_map(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """What a function says of each item, in their order; the items are not gone through at once."""
    begun: deque[Future[R]] = deque()
    with ThreadPoolExecutor(THREADS) as threads:
        for item in items:
            begun.append(threads.submit(function, item))
            if len(begun) == AHEAD:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
