"""Expand arguments: a video, a folder of videos, or a pattern."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any, TypeVar

import pyarrow as pa
from braceexpand import braceexpand

from rayclip.errors import UsageError
from rayclip.inputs.arrow_arrays import binary_array
from rayclip.inputs.local_names import resolve_local_name
from rayclip.io.remote import INDIRECT_PROTOCOLS, check_protocol, file_system
from rayclip.io.retry import with_retry
from rayclip.io.storage_errors import is_transient, reason
from rayclip.media.fragments import parse_part
from rayclip.media.tar_names import is_tar_name

T = TypeVar("T")

VIDEO_NAME = re.compile(
    r""".+\.(3g2|3gp|asf|avi|divx|dv|f4v|flv|m2ts|m2v|m4v|mkv|mov|mp4|mpeg|mpg|mts|mxf|ogv|
    rm|rmvb|ts|vob|webm|wmv|y4m)""",
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
"""Names of videos in folders."""

WITHOUT_LISTING = ("http", "https")  # their URLs may contain * and ?, too
MAGIC = re.compile(r"[*?[]")
SORT_BLOCK = 65_536
NO_MATCH = "No file matches {}."
NO_VIDEOS = (
    "The folder {} has no files with a video suffix such as .mp4: name videos with other suffixes, "
    "or tar files by a pattern, or list them in a file."
)

Folder = tuple[int, int]
"""The identity of a local folder: its device and inode."""


def expand(
    arguments: Iterable[str], storage_options: Mapping[str, Any], excluded: str | None = None
) -> Iterator[str]:
    """Yield the videos of each argument in order; those of a folder or a pattern are sorted.

    An existing file with pattern characters in its name is not a pattern. URLs with the suffix of a
    video or of a tar file cost no request. URLs of http(s) and chained ones (``zip://...::...``)
    are never expanded. Tar files may be written with braces: ``clips-{000..099}.tar``.

    Args:
        arguments: paths or URLs of videos and folders, or patterns such as ``videos/**/*.mp4``.
        storage_options: passed to fsspec for URLs.
        excluded: a local folder to skip inside other folders.

    Raises:
        UsageError: a folder has no videos, nothing matches a pattern, or it cannot be listed.
    """
    for argument in map(resolve_local_name, _without_braces(arguments)):
        with readable_errors(argument):
            if "://" in argument:
                yield from _expand_url(argument, storage_options)
            else:
                yield from _expand_path(argument, excluded)


def _without_braces(arguments: Iterable[str]) -> Iterator[str]:
    """Expand the braces of names of tar files, as bash does."""
    for argument in arguments:
        if "{" in argument and is_tar_name(argument) and not os.path.lexists(argument):
            with suppress(ValueError):  # of unbalanced braces
                yield from braceexpand(argument)
                continue
        yield argument


@contextmanager
def readable_errors(argument: str) -> Iterator[None]:
    """Convert the errors of looking up an argument into a UsageError."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:  # each storage has exceptions of its own
        raise UsageError(
            f"The input {argument} cannot be read ({reason(error)}): check the path or URL."
        ) from error


def is_video_name(name: str) -> bool:
    """Whether a file name has the suffix of a video."""
    return VIDEO_NAME.fullmatch(name) is not None


def _expand_path(path: str, excluded: str | None) -> Iterator[str]:
    if os.path.isdir(path):
        closed = [identity(path)]
        if excluded is not None and os.path.isdir(excluded):
            closed.append(identity(excluded))
        yield from _require_any(_in_folder(path, frozenset(closed)), NO_VIDEOS, path)
    elif has_magic(path) and not os.path.lexists(path):
        found = filter(os.path.isfile, glob.iglob(path, recursive=True))
        yield from _require_any(map(os.fsdecode, _sorted(map(os.fsencode, found))), NO_MATCH, path)
    else:
        yield path


def _in_folder(folder: str, closed: frozenset[Folder]) -> Iterator[str]:
    """Yield the videos below a folder in byte order of their paths. Links are followed, but not in
    cycles.

    Only the names in this folder and its parents are in memory.
    """
    for name in map(os.fsdecode, _sorted(_entries(folder))):
        path = os.path.join(folder, name)
        if not name.endswith("/"):
            yield path
        elif (inner := identity(path)) not in closed:
            yield from _in_folder(path, closed | {inner})


def _entries(folder: str) -> Iterator[bytes]:
    """Yield the names of videos, and of folders with a slash at the end; skips hidden ones."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield os.fsencode(entry.name) + b"/"
            elif is_video_name(entry.name):
                yield os.fsencode(entry.name)


def identity(folder: str) -> Folder:
    """What a local folder is recognised by, under whatever name."""
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _sorted(names: Iterator[bytes]) -> Iterator[bytes]:
    """Sort names in Arrow, which takes a third of a list's memory."""
    held = []
    while block := list(islice(names, SORT_BLOCK)):
        held.append(binary_array(block))
    column = pa.chunked_array(held, pa.large_binary()).sort()
    for start in range(0, len(column), SORT_BLOCK):
        yield from column.slice(start, SORT_BLOCK).to_pylist()


def _expand_url(url: str, storage_options: Mapping[str, Any]) -> Iterator[str]:
    protocol = url.partition("://")[0].lower()
    if "::" in url or protocol in INDIRECT_PROTOCOLS:
        yield url
        return
    check_protocol(protocol)
    is_file = is_video_name(parse_part(url).path) or is_tar_name(url)
    if protocol in WITHOUT_LISTING or (is_file and not has_magic(url)):
        yield url
        return
    fs, path = file_system(url, storage_options)
    fs.invalidate_cache()
    if has_magic(url) and not _retried(lambda: fs.exists(path)):
        found = _retried(lambda: fs.glob(path, detail=True))
        files = [name for name, entry in found.items() if entry["type"] == "file"]
        base = MAGIC.split(url, maxsplit=1)[0].rpartition("/")[0] + "/"
        yield from _require_any(below(base, fs, files), NO_MATCH, url)
    elif url.endswith("/") or _retried(lambda: fs.isdir(path)):
        files = list(filter(is_video_name, _retried(lambda: fs.find(path))))
        base = url.rstrip("/") + "/"
        visible = (name for name in below(base, fs, files) if "/." not in name[len(base) - 1 :])
        yield from _require_any(visible, NO_VIDEOS, url)
    else:
        yield url


def below(base: str, fs: Any, files: Iterable[str]) -> Iterator[str]:
    """Return the URLs of files, sorted, with the same beginning as the user's URL."""
    root = fs._strip_protocol(base).rstrip("/")
    for name in sorted(files):
        yield base + name[len(root) :].lstrip("/")


def _retried(call: Callable[[], T]) -> T:
    return with_retry(call, is_transient)


def has_magic(argument: str) -> bool:
    """Whether an argument contains pattern characters."""
    return MAGIC.search(argument) is not None


def _require_any(videos: Iterator[str], none: str, argument: str) -> Iterator[str]:
    first = next(videos, None)
    if first is None:
        raise UsageError(none.format(argument))
    yield first
    yield from videos
