"""Answers of actors, and what their errors really say."""

from __future__ import annotations

from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from rayclip.errors import RunStopped


def ask(reply: ray.ObjectRef[Any]) -> Any:
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


def reason_of(error: BaseException) -> str:
    """The first line of what really happened, without Ray's wrapping."""
    while isinstance(error, RayTaskError) and error.cause is not None:
        error = error.cause
    return str(error).strip().partition("\n")[0] or type(error).__name__


def left_for_good(error: BaseException) -> bool:
    """Whether an encoder does not come back because it died too often."""
    return isinstance(error, RayActorError) and error.actor_init_failed
