"""File names that are valid on any storage and stay in the output folder, for any video name."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import PurePosixPath
from urllib.parse import unquote

from rayclip.media.fragments import parse_part
from rayclip.media.tar_names import split_member
from rayclip.output.folder import FAILURES_FILE, FINISHED_TARS, RUN_FILE

FORBIDDEN = re.compile(r"[\0\\\ud800-\udc7f\udd00-\udfff]")
"""NUL, text that no file system accepts, and the folder separator of some storages."""

MAX_NAME = 255  # bytes of one file or folder on most file systems
MAX_SUFFIX = len("_timestamps_ms.npy")
MAX_PATH = (
    900  # bytes of a whole path: object stores limit keys to 1024, including the output folder
)
RESERVED = (RUN_FILE, FAILURES_FILE, FINISHED_TARS)  # names at the top of the folder
NOT_UTF8 = re.compile(r"[\udc80-\udcff]")
PARTIAL_CHARACTER = re.compile(rf"{NOT_UTF8.pattern}{{1,3}}$")


def stem(video: str) -> str:
    """Return a video's file name without folders and suffix: ``a/b.c.mp4`` gives ``b.c``. A folder
    of frames ends in a slash and has no suffix: ``a/b.c/`` gives ``b.c``."""
    scheme, is_url, path = video.partition("://")
    path = _path_in(scheme, path)[1] if is_url else video
    return PurePosixPath(path).name if path.endswith("/") else PurePosixPath(path).stem


def output_name(video: str, naming: str) -> str:
    """Return the base name of a video's files in the output folder, which is always inside it.

    Args:
        video: an input path or URL, or a part of it (``a.mp4#t=5,10`` gives ``a_5-10``).
        naming: ``stem`` gives the stem, ``path`` prepends the folders of the input.
    """
    part = parse_part(video)
    name = stem(part.path) + part.label
    if naming == "stem":
        return safe_name(name)
    scheme, is_url, path = part.path.partition("://")
    path = "/".join((scheme, *_path_in(scheme, path))) if is_url else os.path.normpath(part.path)
    return safe_name(*_folders(path.rstrip("/")), name)


def tar_output_name(video: str, naming: str) -> str:
    """Return the base name of the files of a video in a tar file, in a folder named after that:
    ``tars/a.tar/b/c.mp4`` gives ``a/b/c``. Of a tar file itself, return the name of that folder.

    Args:
        video: a tar file, or a video in it, as :mod:`rayclip.media.tar_names` names it.
        naming: of the folder, as for :func:`output_name`.
    """
    tar, member = split_member(video)
    folder = output_name(tar, naming)
    if folder in RESERVED or folder.rpartition("/")[2] in (".", ".."):
        folder = hashed(folder, folder, MAX_NAME)
    if not member:
        return folder
    file = PurePosixPath(member).stem
    name = safe_name(*_folders(member), file)
    if len(os.fsencode(f"{folder}/{name}")) > MAX_PATH:
        name = hashed(member, file, MAX_NAME - MAX_SUFFIX)
    return f"{folder}/{name}"


def _folders(path: str) -> list[str]:
    return [folder for folder in path.split("/")[:-1] if folder not in ("", ".", "..")]


def _path_in(scheme: str, rest: str) -> tuple[str, str]:
    """Return the host, for http(s), and the path of a URL, without parts that may be secret."""
    if scheme.lower() not in ("http", "https"):
        return "", rest.partition("::")[0]  # zip://member::archive
    host, _, path = re.split("[?#]", rest, maxsplit=1)[0].partition("/")
    return host.rpartition("@")[2], unquote(path)


def safe_name(*parts: str) -> str:
    """Return the path of a video's files in the output folder, before their suffixes.

    Valid names stay unchanged. In others, invalid characters are replaced and ``~`` and 16 hex
    digits of a hash of the original are appended. So different names stay different, and a resumed
    run finds the same ones.

    Args:
        parts: folders and the video's stem; no folder is empty, ``.`` or ``..``.
    """
    *folders, stem = parts
    if folders and folders[0] in RESERVED:
        folders[0] = hashed(folders[0], folders[0], MAX_NAME)
    folders = [_fit(folder, MAX_NAME) for folder in folders]
    path = "/".join([*folders, _fit(stem, MAX_NAME - MAX_SUFFIX)])
    if len(os.fsencode(path)) > MAX_PATH:
        return hashed("/".join(parts), stem, MAX_NAME - MAX_SUFFIX)
    return path


def utf8_name(name: str) -> str:
    """Make a name valid UTF-8, for object stores; local file names may be any bytes.

    Args:
        name: from :func:`output_name`.
    """
    if NOT_UTF8.search(name) is None:
        return name
    return hashed(name, NOT_UTF8.sub("_", name.rpartition("/")[2]), MAX_NAME - MAX_SUFFIX)


def _fit(name: str, max_bytes: int) -> str:
    if FORBIDDEN.search(name) is None and len(os.fsencode(name)) <= max_bytes:
        return name
    return hashed(name, name, max_bytes)


def hashed(identity: str, name: str, max_bytes: int) -> str:
    """Return the beginning of a name, followed by ``~`` and a hash of ``identity``."""
    content = identity.encode("utf-8", "surrogatepass")
    mark = f"~{hashlib.blake2b(content, digest_size=8).hexdigest()}"
    beginning = os.fsencode(FORBIDDEN.sub("_", name))
    if len(beginning) > max_bytes - len(mark):
        beginning = os.fsencode(PARTIAL_CHARACTER.sub("", os.fsdecode(beginning[: max_bytes - 17])))
    return os.fsdecode(beginning) + mark
