"""Expand arguments to folders of frames. As inputs, these end in a slash."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from rayclip.errors import UsageError
from rayclip.inputs.expansion import (
    MAGIC,
    WITHOUT_LISTING,
    Folder,
    below,
    has_magic,
    identity,
    readable_errors,
)
from rayclip.inputs.local_names import resolve_local_name
from rayclip.io.remote import check_protocol, file_system
from rayclip.io.retry import with_retry
from rayclip.io.storage_errors import is_transient
from rayclip.media.fragments import parse_part
from rayclip.media.image_names import is_image_name


def as_folder(video: str) -> str:
    """Return an input as a folder of frames: with a slash at the end of its path."""
    path = parse_part(video).path
    return video if path.endswith("/") else f"{path}/{video.removeprefix(path)}"


def expand_frames_folders(
    arguments: Iterable[str], storage_options: Mapping[str, Any]
) -> Iterator[str]:
    """Yield the folders of images in and below each argument, in the order of their paths.

    Args:
        arguments: paths or URLs of folders, or patterns for some.
        storage_options: passed to fsspec for URLs.

    Raises:
        UsageError: there is no folder of images in one, or it cannot be listed.
    """
    for given in arguments:
        argument = resolve_local_name(given)
        with readable_errors(argument):
            protocol = argument.partition("://")[0].lower()
            is_listed = protocol not in WITHOUT_LISTING and "::" not in argument
            if not is_listed or not parse_part(argument).is_whole:
                yield as_folder(argument)
                continue
            find = _on_storage(argument, storage_options) if "://" in argument else _here(argument)
            first = next(find, None)
            if first is None:
                raise UsageError(
                    f"{argument} has no folder of images in or below it: name folders that hold "
                    "jpg, png or webp files."
                )
            yield first
            yield from find


def _here(path: str) -> Iterator[str]:
    is_pattern = has_magic(path) and not os.path.lexists(path)
    found = sorted(glob.iglob(path, recursive=True), key=os.fsencode) if is_pattern else [path]
    done: set[str] = set()
    for folder in filter(os.path.isdir, found):
        for inner in _in_folder(folder, frozenset([identity(folder)])):
            if inner not in done:  # ``**`` matches folders in folders
                yield inner
            done |= {inner} if is_pattern else set()


def _in_folder(folder: str, closed: frozenset[Folder]) -> Iterator[str]:
    inner, has_images = [], False
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir() and not entry.name.startswith("."):
                inner.append(entry.name)
            else:
                has_images |= is_image_name(entry.name)
    if has_images:
        yield os.path.join(folder, "")
    for name in sorted(inner, key=os.fsencode):
        path = os.path.join(folder, name)
        if (opened := identity(path)) not in closed:
            yield from _in_folder(path, closed | {opened})


def _on_storage(url: str, storage_options: Mapping[str, Any]) -> Iterator[str]:
    check_protocol(url.partition("://")[0].lower())
    fs, path = file_system(url, storage_options)
    fs.invalidate_cache()
    roots, base = [path], url.rstrip("/") + "/"
    if has_magic(url) and not with_retry(lambda: fs.exists(path), is_transient):
        roots = with_retry(lambda: fs.glob(path), is_transient)
        base = MAGIC.split(url, maxsplit=1)[0].rpartition("/")[0] + "/"
    folders = set()
    for root in roots:
        files = with_retry(partial(fs.find, root), is_transient)
        inner = (file for file in files if "/." not in file.removeprefix(root))
        folders |= {file.rpartition("/")[0] for file in inner if is_image_name(_name(file))}
    for folder in below(base, fs, folders):
        yield folder.rstrip("/") + "/"


def _name(path: str) -> str:
    return path.rpartition("/")[2]
