"""Names of shards, and of the videos in them."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Sequence

from rayclip.errors import UsageError

SHARD_SUFFIX = ".parquet"
JOINED = "joined"  # instead of a task's key in shards from ``rayclip compact``
SHARD = re.compile(r"(?P<task>[0-9a-f]{16}|joined)-[0-9a-f]{16}-(?P<rows>\d+)\.parquet")

VIDEO = "video"
ADDED = ("clip", "timestamps_ms", "fps")
"""The columns that rayclip adds, besides the video."""

PREDICTED = ("pred_labels", "pred_probs")
"""The columns that it adds with ``show_pred``."""


def row_name(video: str) -> str:
    """Return a video's input path or URL; bytes that are not UTF-8 become backslash escapes."""
    return os.fsencode(video).decode("utf-8", "backslashreplace")


def names_key(names: Iterable[str]) -> str:
    """Hash names in this order to 16 hex digits, the same on every machine."""
    joined = "\0".join(names).encode("utf-8", "surrogateescape")
    return hashlib.blake2b(joined, digest_size=8).hexdigest()


def shard_name(task: str, names: Sequence[str]) -> str:
    """Return a shard's name, which depends on its content: other rows give another file.

    Args:
        task: the :func:`names_key` of the task that writes it, or :data:`JOINED`.
        names: the names of its videos.
    """
    return f"{task}-{names_key(names)}-{len(names)}{SHARD_SUFFIX}"


def row_count(file: str) -> int:
    """Return the number of rows of a shard, from its name."""
    found = SHARD.fullmatch(file)
    assert found is not None, file
    return int(found["rows"])


def refuse_reserved_columns(columns: Iterable[str]) -> None:
    """Refuse extra columns that shards cannot have.

    Args:
        columns: the names of all columns except that of the videos.

    Raises:
        UsageError: a name is reserved, or occurs twice.
    """
    reserved = (VIDEO, *ADDED, *PREDICTED)
    seen = {*reserved}
    for column in columns:
        if column in seen:
            raise UsageError(
                f"The list has a column {column!r}, which save_parquet cannot copy, because the "
                f"name is reserved ({', '.join(reserved)}) or occurs twice: rename it."
            )
        seen.add(column)
