"""Replies of actors, and the real causes of their errors."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from rayclip.errors import RunStopped

HOLD_S = 10.0
"""How long a task that waits keeps its CPUs.

``ray.get`` and ``ray.wait`` release them, and Ray then starts another task in a further process,
which costs seconds of CPU. After this time, that is wanted: an encoder, or the task of another run,
may need these CPUs before the wait can end. A task does not keep them for encoders without a place.
"""
CANCEL_S = 1.0  # after which a cancelled task that waits notices it


def first_completed(futures: Iterable[Future[Any]], timeout_s: float) -> Collection[Future[Any]]:
    """Wait until some are done, and return those; the calling task keeps its CPUs.

    Ray cancels a task by ``_thread.interrupt_main``, which does not end a wait, so none is long.
    """
    futures = [*futures]
    deadline_s = time.monotonic() + timeout_s
    while True:
        left_s = max(0.0, deadline_s - time.monotonic())
        done = wait(futures, min(left_s, CANCEL_S), FIRST_COMPLETED).done
        if done or left_s <= CANCEL_S:
            return done


@dataclass(frozen=True)
class Runtime:
    """Ray, a clock in seconds, and how to wait for futures; tests use fakes of all."""

    ray: Any = ray
    clock: Callable[[], float] = time.monotonic
    first_completed: Callable[..., Collection[Future[Any]]] = first_completed


RAY = Runtime()


def get_reply(reply: ray.ObjectRef[Any], runtime: Runtime = RAY, hold_s: float = HOLD_S) -> Any:
    """Wait for the control actor's reply. A task keeps its CPUs for ``hold_s``.

    Raises:
        RunStopped: it says so, or it has died.
    """
    runtime.first_completed([reply.future()], hold_s)
    try:
        return runtime.ray.get(reply)
    except RayTaskError as error:
        raise RunStopped(root_cause(error)) from None
    except RayActorError as error:
        raise RunStopped("The control actor of the run died.") from error


def root_cause(error: BaseException) -> str:
    """Return the first line of the original error, without Ray's wrapping."""
    while isinstance(error, RayTaskError) and error.cause is not None:
        error = error.cause
    return str(error).strip().partition("\n")[0] or type(error).__name__


def is_permanent(error: BaseException) -> bool:
    """Whether an encoder will not restart because it died too often."""
    return isinstance(error, RayActorError) and error.actor_init_failed
