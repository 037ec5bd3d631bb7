"""Run many requests concurrently: each spends most of its time waiting."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

THREADS = 16
MAX_IN_FLIGHT = 4 * THREADS

T = TypeVar("T")
R = TypeVar("R")


def concurrent_map(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Yield the results in the order of the items, which are consumed lazily.

    At most :data:`MAX_IN_FLIGHT` items are consumed ahead of the results.
    """
    in_flight: deque[Future[R]] = deque()
    with ThreadPoolExecutor(THREADS) as threads:
        for item in items:
            in_flight.append(threads.submit(function, item))
            if len(in_flight) == MAX_IN_FLIGHT:
                yield in_flight.popleft().result()
        while in_flight:
            yield in_flight.popleft().result()
