"""Empty files that show whether machines mean the same folder, and whether they can write there.

Only what a folder's storage says is believed, and what was written is removed at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from rayclip.io.faults import passes
from rayclip.io.patience import A_LOOK, persistently
from rayclip.io.whole_files import temporary_name


@contextmanager
def marked(fs: Any, folder: str) -> Iterator[str]:
    """Have an empty file in a folder for the length of the block, or in the nearest one above it.

    Args:
        fs: an fsspec file system.
        folder: a path on it, that may not exist yet and is not made.

    Yields:
        The file's path, for :func:`try_beside` on other machines.

    Raises:
        Exception: why nothing can be written there.
    """
    marker = _mark(fs, folder)
    try:
        yield marker
    finally:
        _unmark(fs, marker)


def try_beside(fs: Any, marker: str) -> bool:
    """Write a file beside a marker of another machine, and remove it.

    Returns:
        Whether the marker is there; nothing is written where it is not.

    Raises:
        Exception: why nothing can be written there.
    """
    with suppress(Exception):  # not everybody who may write may look
        if not fs.exists(marker):
            return False
    _unmark(fs, _mark(fs, marker.rpartition("/")[0]))
    return True


def _mark(fs: Any, folder: str) -> str:
    marker = f"{folder}/{temporary_name()}"
    try:
        persistently(lambda: fs.pipe_file(marker, b""), passes, A_LOOK)
    except FileNotFoundError:
        if "/" not in folder:
            raise
        return _mark(fs, folder.rpartition("/")[0])
    return marker


def _unmark(fs: Any, marker: str) -> None:
    with suppress(Exception):  # not everybody who may write may remove
        fs.rm_file(marker)
