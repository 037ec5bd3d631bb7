"""The failed inputs of a run, as a list that another run can read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, BinaryIO

from rayclip.errors import RunStopped, UsageError
from rayclip.inputs.lists import fits_a_line
from rayclip.output.open_run import model_folders, open_run


def write_failed(output_path: str, storage_options: Mapping[str, Any], out: BinaryIO) -> list[str]:
    """Write what failed, one input per line, in the bytes that it was given in.

    Args:
        output_path: of a run, or the folder of one model in it.
        storage_options: given to fsspec for a URL.
        out: takes the lines.

    Returns:
        Those inputs that no line can hold: their names have line ends in them, or begin or end
        with white space. They were not written.

    Raises:
        UsageError: there is no such folder, or there are several models' in it.
        RunStopped: ``out`` cannot be written.
    """
    folders = model_folders(output_path, storage_options)
    if len(folders) > 1:
        raise UsageError(
            f"{output_path} holds the features of several models, which need not have had the "
            f"same inputs: name one of {', '.join(folders)}."
        )
    left_out = []
    try:
        for failure in open_run(folders[0], storage_options).folder.read_failures():
            if fits_a_line(failure["video"]):
                out.write(os.fsencode(failure["video"]) + b"\n")
            else:
                left_out.append(failure["video"])
        out.flush()
    except (OSError, ValueError) as error:
        raise RunStopped(f"Standard output cannot be written: {error}.") from error
    return left_out
