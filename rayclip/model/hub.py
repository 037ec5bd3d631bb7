"""Repositories on the Hugging Face Hub: which commit, which files, and which of them to load.

The driver looks this up once; every node then fetches files of that commit.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from rayclip.errors import UsageError
from rayclip.io import retry
from rayclip.io.retry import with_retry
from rayclip.io.storage_errors import is_transient
from rayclip.model.hub_environment import HubEnvironment, import_hub, login_token
from rayclip.model.hub_errors import network_reason, refusal, unreachable

T = TypeVar("T")

DEADLINE_S = 12.0
WEIGHTS_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")  # safetensors cannot hold code


@dataclass(frozen=True)
class HubFile:
    """A file of a repository.

    Attributes:
        name: with its folders.
        sha256: of its content, in hexadecimal; None if the hub does not say, as for small files.
    """

    name: str
    sha256: str | None = None


@dataclass(frozen=True)
class HubRepo:
    """A repository at one commit.

    Attributes:
        repo_id: its name, ``ORG/NAME``.
        revision: the hash of the commit.
        files: of that commit; only those in the cache if the hub has not been asked.
        environment: of huggingface_hub, for every process that fetches files.
        license: as the repository names it; None if unknown.
        unreachable: why the hub cannot be reached; None if it can, or must not be asked.
        is_complete: whether ``files`` are all.
    """

    repo_id: str
    revision: str
    files: tuple[HubFile, ...]
    environment: HubEnvironment
    license: str | None = None
    unreachable: str | None = None
    is_complete: bool = True

    def file(self, name: str) -> HubFile:
        """Return a file by its name.

        Raises:
            UsageError: there is none.
        """
        for file in self.files:
            if file.name == name:
                return file
        if self.is_complete:
            raise UsageError(f"{self.repo_id} has no file {name}.")
        return HubFile(name)


def resolve(repo_id: str, revision: str | None = None) -> HubRepo:
    """Look up the commit and the files of a repository: in the driver, once.

    If the hub cannot be reached, or in offline mode, the cache is looked up.

    Args:
        repo_id: its name, ``ORG/NAME``.
        revision: a branch, a tag or a commit; None for the newest commit.

    Raises:
        UsageError: there is no such repository or revision, or huggingface_hub is not installed.
        WeightsUnavailable: access is refused, or the hub cannot be reached and nothing is cached.
    """
    hub = import_hub()
    why = None
    if not hub.constants.is_offline_mode():
        try:
            return within_deadline(partial(_ask, hub, repo_id, revision))
        except Exception as error:  # those of httpx and of huggingface_hub
            if refused := refusal(error, repo_id, revision):
                raise refused from error
            why = network_reason(error)
    return _find_in_cache(hub, repo_id, revision, why)


def choose_weights(repo: HubRepo, stems: Sequence[str]) -> str:
    """Return the name of the file with the weights, in safetensors if there is one.

    Args:
        repo: the repository.
        stems: names of such files without a suffix, the preferred first.

    Raises:
        UsageError: there is none.
        WeightsUnavailable: none is cached, and the hub cannot be asked.
    """
    names = {file.name for file in repo.files}
    for suffix in WEIGHTS_SUFFIXES:
        for stem in stems:
            if stem + suffix in names:
                return stem + suffix
    wanted = " or ".join(stem + WEIGHTS_SUFFIXES[0] for stem in stems)
    if not repo.is_complete:
        raise unreachable(repo.unreachable, f"{wanted} of {repo.repo_id}")
    raise UsageError(
        f"{repo.repo_id} has no weights that rayclip can read: neither {wanted} nor the same with "
        f"{', '.join(WEIGHTS_SUFFIXES[1:])}."
    )


def _ask(hub: ModuleType, repo_id: str, revision: str | None) -> HubRepo:
    api = hub.HfApi()
    commit = api.resolve_revision(repo_id, revision=revision).resolved  # known offline from now on
    info = api.model_info(repo_id, revision=commit, files_metadata=True, timeout=DEADLINE_S)
    files = (HubFile(file.rfilename, file.lfs and file.lfs.sha256) for file in info.siblings or ())
    tags = (tag.partition(":") for tag in info.tags or ())
    licenses = [value for kind, _, value in tags if kind == "license"]
    return HubRepo(
        repo_id,
        commit,
        tuple(files),
        HubEnvironment.here(login_token(hub)),
        license=licenses[0] if licenses else None,
    )


def _find_in_cache(hub: ModuleType, repo_id: str, revision: str | None, why: str | None) -> HubRepo:
    try:
        found = hub.HfApi().resolve_revision(repo_id, revision=revision, local_files_only=True)
    except hub.errors.RevisionResolutionError as error:
        raise unreachable(why, repo_id) from error
    except hub.errors.HFValidationError as error:
        raise refusal(error, repo_id, revision) or error from error
    name = hub.file_download.repo_folder_name(repo_id=repo_id, repo_type="model")
    folder = Path(hub.constants.HF_HUB_CACHE, name, "snapshots", found.resolved)
    paths = [path for path in folder.rglob("*") if path.is_file()]
    if not paths:
        raise unreachable(why, repo_id)
    files = (HubFile(path.relative_to(folder).as_posix(), _blob_sha256(path)) for path in paths)
    return HubRepo(
        repo_id,
        found.resolved,
        tuple(files),
        HubEnvironment.here(),
        unreachable=why,
        is_complete=False,
    )


def _blob_sha256(path: Path) -> str | None:
    """Return the SHA-256 of a cached file: it is a link, which is named by what the hub says."""
    blob = os.path.basename(os.readlink(path)) if path.is_symlink() else ""
    return blob if len(blob) == 64 else None  # small files have the 40 digits of git


def within_deadline(ask: Callable[[], T]) -> T:
    """Ask the hub, with a few retries.

    Clients keep their timeouts for each address, and name resolution has none.
    """
    answer: Future[T] = Future()

    def work() -> None:
        try:
            answer.set_result(with_retry(ask, is_transient, retry.PROBE))
        except Exception as error:
            answer.set_exception(error)

    threading.Thread(target=work, name="hub", daemon=True).start()
    try:
        return answer.result(DEADLINE_S)
    except TimeoutError:
        if answer.done():
            raise
        raise TimeoutError(f"no answer in {DEADLINE_S:.0f} s") from None
