"""The failed inputs of a run, as a list that another run can read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO

from rayclip.errors import RunStopped, UsageError
from rayclip.inputs.lists import fits_a_line
from rayclip.media.tar_names import split_member
from rayclip.output.open_run import RecordedRun, model_folders, open_run


def write_failed(output_path: str, storage_options: Mapping[str, Any], out: BinaryIO) -> list[str]:
    """Write the failed inputs, one per line, in their original bytes; for a video in a tar file,
    the tar file.

    Args:
        output_path: the output folder of a run, or the folder of one model in it.
        storage_options: passed to fsspec for a URL.
        out: receives the lines.

    Returns:
        The inputs that do not fit on a line, because they contain a line break, start or end with
        white space, or start with a ``~`` that is no home folder. They are not written.

    Raises:
        UsageError: the folder does not exist, or it holds several models.
        RunStopped: ``out`` cannot be written.
    """
    folders = model_folders(output_path, storage_options)
    if len(folders) > 1:
        raise UsageError(
            f"{output_path} holds several models, whose failed inputs may differ: name one of "
            f"{', '.join(folders)}."
        )
    skipped = []
    try:
        for video in _failed(open_run(folders[0], storage_options)):
            if fits_a_line(video):
                out.write(os.fsencode(video) + b"\n")
            else:
                skipped.append(video)
        out.flush()
    except (OSError, ValueError) as error:
        raise RunStopped(f"Standard output cannot be written: {error}.") from error
    return skipped


def _failed(recorded: RecordedRun) -> Iterable[str]:
    videos = [failure["video"] for failure in recorded.folder.read_failures()]
    if recorded.run.get("of_tars"):
        return dict.fromkeys(split_member(video)[0] for video in videos)
    return videos
