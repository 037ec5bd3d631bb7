"""Replies of actors, and the real causes of their errors."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from rayclip.errors import RunStopped


@dataclass(frozen=True)
class Runtime:
    """Ray and a clock in seconds; tests use fakes of both."""

    ray: Any = ray
    clock: Callable[[], float] = time.monotonic


RAY = Runtime()


def get_reply(reply: ray.ObjectRef[Any], get: Callable[..., Any] = ray.get) -> Any:
    """Wait for the control actor's reply.

    Raises:
        RunStopped: it says so, or it has died.
    """
    try:
        return get(reply)
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
