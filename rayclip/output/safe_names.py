"""Names of files that stay where they are put, on any storage, whatever a video is called."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import PurePosixPath
from urllib.parse import unquote

from rayclip.output.folder import FAILURES_FILE, RUN_FILE

FORBIDDEN = re.compile(r"[\0\\\ud800-\udc7f\udd00-\udfff]")
"""NUL and text that no file system takes, and what parts folders on some storages."""

MAX_NAME = 255  # bytes of one file or folder on most file systems
MAX_SUFFIX = len("_timestamps_ms.npy")
MAX_PATH = 900  # bytes of all: keys of object stores have 1024, with those of the folder
RESERVED = (RUN_FILE, FAILURES_FILE)  # at the top of the folder
NOT_UTF8 = re.compile(r"[\udc80-\udcff]")
PARTIAL_CHARACTER = re.compile(rf"{NOT_UTF8.pattern}{{1,3}}$")


def stem(video: str) -> str:
    """A video's name without folders and suffix: ``a/b.c.mp4`` gives ``b.c``."""
    scheme, is_url, path = video.partition("://")
    return PurePosixPath(_path_in(scheme, path)[1] if is_url else video).stem


def output_name(video: str, naming: str) -> str:
    """The name of a video's files in the output folder; it never leads out of there.

    Args:
        video: a path or URL, as it was given.
        naming: ``stem`` gives the stem, ``path`` puts folders like the input's before it.
    """
    if naming == "stem":
        return safe_name(stem(video))
    scheme, is_url, path = video.partition("://")
    path = "/".join((scheme, *_path_in(scheme, path))) if is_url else os.path.normpath(video)
    folders = [part for part in path.split("/")[:-1] if part not in ("", ".", "..")]
    return safe_name(*folders, stem(video))


def _path_in(scheme: str, rest: str) -> tuple[str, str]:
    """The host, where that is told apart, and the path of a URL, without what may be secret."""
    if scheme.lower() not in ("http", "https"):
        return "", rest.partition("::")[0]  # zip://member::archive
    host, _, path = re.split("[?#]", rest, maxsplit=1)[0].partition("/")
    return host.rpartition("@")[2], unquote(path)


def safe_name(*parts: str) -> str:
    """The path of a video's files in the output folder, before their suffixes.

    Names that can be kept are. Others lose what makes them impossible, and end in ``~`` and 16
    digits of a hash of what they were, so that different ones stay different and a second run
    finds the same.

    Args:
        parts: folders and the video's stem; none of the folders is empty, ``.`` or ``..``.
    """
    *folders, stem = parts
    if folders and folders[0] in RESERVED:
        folders[0] = _hashed(folders[0], folders[0], MAX_NAME)
    folders = [_fit(folder, MAX_NAME) for folder in folders]
    path = "/".join([*folders, _fit(stem, MAX_NAME - MAX_SUFFIX)])
    if len(os.fsencode(path)) > MAX_PATH:
        return _hashed("/".join(parts), stem, MAX_NAME - MAX_SUFFIX)
    return path


def utf8_name(name: str) -> str:
    """The same for storages whose names are UTF-8, as those of object stores are; local ones may be
    any bytes.

    Args:
        name: from :func:`output_name`.
    """
    if NOT_UTF8.search(name) is None:
        return name
    return _hashed(name, NOT_UTF8.sub("_", name.rpartition("/")[2]), MAX_NAME - MAX_SUFFIX)


def _fit(name: str, max_bytes: int) -> str:
    if FORBIDDEN.search(name) is None and len(os.fsencode(name)) <= max_bytes:
        return name
    return _hashed(name, name, max_bytes)


def _hashed(identity: str, name: str, max_bytes: int) -> str:
    """The beginning of a name, and a hash of all that tells it from others."""
    content = identity.encode("utf-8", "surrogatepass")
    mark = f"~{hashlib.blake2b(content, digest_size=8).hexdigest()}"
    beginning = os.fsencode(FORBIDDEN.sub("_", name))
    if len(beginning) > max_bytes - len(mark):
        beginning = os.fsencode(PARTIAL_CHARACTER.sub("", os.fsdecode(beginning[: max_bytes - 17])))
    return os.fsdecode(beginning) + mark
