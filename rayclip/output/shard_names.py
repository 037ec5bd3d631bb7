"""How shards, and the videos in them, are called."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Sequence

from rayclip.errors import UsageError

SHARD_SUFFIX = ".parquet"
JOINED = "joined"  # in place of a group, where ``rayclip compact`` made the shard
SHARD = re.compile(r"(?P<task>[0-9a-f]{16}|joined)-[0-9a-f]{16}-(?P<rows>\d+)\.parquet")

VIDEO = "video"
ADDED = ("clip", "timestamps_ms", "fps")
"""The columns beside the video and those that its list has."""


def row_name(video: str) -> str:
    """A video as it was given; bytes that are no UTF-8 become backslash escapes."""
    return os.fsencode(video).decode("utf-8", "backslashreplace")


def names_key(names: Iterable[str]) -> str:
    """16 hex digits of these names in this order, the same on every machine."""
    joined = "\0".join(names).encode("utf-8", "surrogateescape")
    return hashlib.blake2b(joined, digest_size=8).hexdigest()


def shard_name(group: str, names: Sequence[str]) -> str:
    """A shard of so many rows, by what it holds: whoever writes other rows writes another file.

    Args:
        group: the key of all videos of the group that made it, or :data:`JOINED`.
        names: of the rows.
    """
    return f"{group}-{names_key(names)}-{len(names)}{SHARD_SUFFIX}"


def row_count(file: str) -> int:
    """How many rows a shard has, as its name tells."""
    found = SHARD.fullmatch(file)
    assert found is not None, file
    return int(found["rows"])


def refuse_reserved_columns(columns: Iterable[str]) -> None:
    """Make sure that columns of a list can be carried into shards.

    Args:
        columns: those beside the videos.

    Raises:
        UsageError: one is called like one of ours, or two are alike.
    """
    seen = {VIDEO, *ADDED}
    for column in columns:
        if column in seen:
            raise UsageError(
                f"The list has a column {column!r}, which save_parquet cannot carry: there is one "
                f"of that name beside it ({', '.join((VIDEO, *ADDED))} are ours). Rename it."
            )
        seen.add(column)
