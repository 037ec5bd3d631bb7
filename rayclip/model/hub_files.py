"""Fetch files of a repository on the Hugging Face Hub into the cache of huggingface_hub.

Only files are fetched: no code of a repository ever runs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from functools import partial
from types import ModuleType
from typing import Any

from rayclip.errors import RayclipError, WeightsUnavailable
from rayclip.io import retry
from rayclip.io.retry import with_retry
from rayclip.io.storage_errors import is_transient, reason
from rayclip.model.checkpoint import file_sha256
from rayclip.model.hub import DEADLINE_S, HubFile, HubRepo, within_deadline
from rayclip.model.hub_environment import import_hub
from rayclip.model.hub_errors import network_reason, refusal, unreachable, unsaved
from rayclip.model.load_stage import bytes_reporter, stage


class _DamagedError(ConnectionError):
    """A download differs from the file on the hub."""


def fetch(repo: HubRepo, name: str) -> str:
    """Return the local path of a file; downloads it, once a node, unless it is cached.

    A file whose SHA-256 is known is verified.

    Raises:
        UsageError: there is no such file, or huggingface_hub is not installed.
        WeightsUnavailable: it cannot be downloaded or saved, or access is refused.
    """
    repo.environment.apply()
    hub = import_hub()
    file = repo.file(name)
    if path := _intact(hub, repo, file):
        return path
    _check_reachable(hub, repo, name)
    try:
        with stage(f"Downloading {name} of {repo.repo_id}"):
            return with_retry(partial(_download, hub, repo, file), is_transient, retry.RESTART)
    except Exception as error:
        raise _explain(error, hub, repo, name) from error


def fetched_sha256(repo: HubRepo, name: str) -> str:
    """Return the SHA-256 of a file, which is downloaded if the hub does not say."""
    return repo.file(name).sha256 or file_sha256(fetch(repo, name))


def check_available(repo: HubRepo, names: Iterable[str]) -> None:
    """Check that :func:`fetch` has these files or can start to download them.

    Raises:
        UsageError: huggingface_hub is not installed.
        WeightsUnavailable: neither is the case.
    """
    repo.environment.apply()
    hub = import_hub()
    missing = [name for name in names if _cached(hub, repo, name) is None]
    if missing:
        _check_reachable(hub, repo, missing[0])


def _cached(hub: ModuleType, repo: HubRepo, name: str) -> str | None:
    found = hub.try_to_load_from_cache(repo.repo_id, name, revision=repo.revision)
    return found if isinstance(found, str) else None


def _intact(hub: ModuleType, repo: HubRepo, file: HubFile) -> str | None:
    """Return the path of a cached file; None if it is not there or damaged."""
    path = _cached(hub, repo, file.name)
    if path is not None and file.sha256 not in (None, file_sha256(path)):
        return None
    return path


def _download(hub: ModuleType, repo: HubRepo, file: HubFile) -> str:
    if path := _intact(hub, repo, file):  # another process was faster
        return path
    try:
        hub.hf_hub_download(
            repo.repo_id,
            file.name,
            revision=repo.revision,
            force_download=_cached(hub, repo, file.name) is not None,  # it is damaged
            tqdm_class=_progress_bar(bytes_reporter()),
        )
    except OSError as error:
        if type(error) is OSError and error.errno is None:  # its size is wrong
            raise _DamagedError("its size is not the one that the hub states") from error
        raise
    path = _intact(hub, repo, file)
    if path is None:
        raise _DamagedError("its SHA-256 is not the one that the hub states")
    return path


def _check_reachable(hub: ModuleType, repo: HubRepo, name: str) -> None:
    """Check that a download can start: huggingface_hub itself would retry for a minute."""
    if hub.constants.is_offline_mode() or repo.unreachable:
        raise unreachable(repo.unreachable, f"{name} of {repo.repo_id}")
    url = hub.hf_hub_url(repo.repo_id, name, revision=repo.revision)
    try:
        within_deadline(partial(hub.get_hf_file_metadata, url, timeout=DEADLINE_S))
    except Exception as error:
        raise _explain(error, hub, repo, name) from error


def _explain(error: Exception, hub: ModuleType, repo: HubRepo, name: str) -> RayclipError:
    if isinstance(error.__cause__, _DamagedError):
        return WeightsUnavailable(
            f"{name} of {repo.repo_id} arrives damaged from {hub.constants.ENDPOINT}: "
            f"{reason(error)}. Check the proxy, or set HF_ENDPOINT to a mirror."
        )
    return (
        refusal(error, repo.repo_id, repo.revision, name)
        or unsaved(error, hub.constants.HF_HUB_CACHE)
        or unreachable(network_reason(error), f"{name} of {repo.repo_id}")
    )


def _progress_bar(report: Callable[[int, int], None]) -> type:
    """Return a class of progress bars that are not drawn but reported."""
    from tqdm import tqdm

    most = 0

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "disable": True})

        def update(self, n: float = 1) -> None:
            nonlocal most
            self.n += n
            most = max(most, int(self.n))  # there may be two: of bytes received, and written
            report(most, int(self.total or 0))

    Bar.set_lock(threading.RLock())  # tqdm's own starts a process
    return Bar
