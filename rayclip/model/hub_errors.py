"""What went wrong with the Hugging Face Hub, in a sentence that says what to do."""

from __future__ import annotations

import os
from json import JSONDecodeError
from typing import Any

from rayclip.errors import RayclipError, UsageError, WeightsUnavailable
from rayclip.io.retry import RetriesExhausted
from rayclip.io.storage_errors import causes, reason
from rayclip.model.hub_environment import OFFLINE, import_hub

BUSY = (408, 429)  # and all from 500: a later request may succeed
REFUSED = (401, 403)


def refusal(
    error: Exception, repo_id: str, revision: str | None, file_name: str | None = None
) -> RayclipError | None:
    """Return the error for the user if the hub has answered; None if it cannot be reached.

    Args:
        error: raised by huggingface_hub.
        repo_id: the repository.
        revision: that was asked for; None for the newest.
        file_name: that was asked for, if one was.
    """
    hub = import_hub()
    errors, endpoint = hub.errors, hub.constants.ENDPOINT
    for link in causes(error):
        if isinstance(link, errors.HFValidationError):
            return UsageError(f"There is no repository {repo_id!r}: {reason(link).rstrip('.')}.")
        if isinstance(link, errors.GatedRepoError):
            return WeightsUnavailable(
                f"{repo_id} is gated: accept its terms at {endpoint}/{repo_id}, and set HF_TOKEN "
                "to a token of the account that did."
            )
        if isinstance(link, errors.RepositoryNotFoundError):
            return UsageError(
                f"There is no repository {repo_id} at {endpoint}, or it is private: check the "
                "name, or set HF_TOKEN to a token that may read it."
            )
        if isinstance(link, errors.RevisionNotFoundError):
            return UsageError(
                f"{repo_id} has no revision {revision}: name a branch, a tag or a commit of it."
            )
        if isinstance(link, errors.RemoteEntryNotFoundError):
            return UsageError(f"{repo_id} has no file {file_name}.")
        if isinstance(link, errors.HfHubHTTPError) and link.response.status_code in REFUSED:
            return WeightsUnavailable(
                f"{endpoint} refuses access to {repo_id} ({_answer(link)}): set HF_TOKEN to a "
                "token that may read it."
            )
        if isinstance(link, errors.HfHubHTTPError) and not _is_busy(link):
            return WeightsUnavailable(
                f"{endpoint} has no answer for {repo_id} ({_answer(link)}): check the name, and "
                "that HF_ENDPOINT is a hub."
            )
    return None


def unsaved(error: Exception, cache: str) -> WeightsUnavailable | None:
    """Return the error for the user if a file cannot be saved in the cache; None if it can."""
    cause = error.__cause__ if isinstance(error, RetriesExhausted) else error
    if not isinstance(cause, OSError) or cause.errno is None:  # of a file; httpx has its own errors
        return None
    return WeightsUnavailable(
        f"The weights cannot be saved in {cache} ({reason(cause)}): make sure that the folder is "
        "writable and has free space, or set HF_HOME to another."
    )


def unreachable(why: str | None, missing: str) -> WeightsUnavailable:
    """Return the error for the user if something is not cached and cannot be downloaded.

    Args:
        why: the hub cannot be reached; None if it must not be asked.
        missing: what is not in the cache.
    """
    constants = import_hub().constants
    cache = constants.HF_HUB_CACHE
    if why is None:
        switch = next((name for name in OFFLINE if os.environ.get(name)), OFFLINE[0])
        return WeightsUnavailable(
            f"{missing} is not in the cache {cache}, and {switch} forbids downloads: unset it, or "
            "set HF_HOME to a folder that has it."
        )
    return WeightsUnavailable(
        f"{constants.ENDPOINT} cannot be reached ({why}), and {missing} is not in the cache "
        f"{cache}: check the network, or set HF_ENDPOINT to a mirror, or HF_HOME to a folder that "
        "has it."
    )


def network_reason(error: Exception) -> str:
    """Return why the hub cannot be reached, in a few words."""
    for link in causes(error):
        if getattr(link, "response", None) is not None:
            return _answer(link)
    *_, root = causes(error)
    if isinstance(root, JSONDecodeError):
        return "its answer is not a hub's, but maybe a proxy's"
    return reason(root)


def _is_busy(error: Any) -> bool:
    status: int = error.response.status_code
    return status in BUSY or status >= 500


def _answer(error: Any) -> str:
    """Return a server's error, without what huggingface_hub adds to it."""
    status = f"HTTP status {error.response.status_code}"
    message = " ".join((getattr(error, "server_message", None) or "").split())
    return f"{status}: {message}" if message else status
