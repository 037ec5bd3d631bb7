"""``rayclip index``: make or update the index of an output folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from rayclip.console import shown
from rayclip.output.open_run import one_model_folder, open_run
from rayclip.output.video_files import DamagedFile
from rayclip.report.progress_words import count
from rayclip.search.index import index_location, update_index

SAY_EVERY_S = 10.0


def write_index(
    output_path: str,
    model_name: str | None,
    storage_options: Mapping[str, Any],
    note: Callable[[str], None],
) -> None:
    """Add what is new to the index of a folder, and print what it covers.

    Args:
        output_path: the output folder of a run, or the folder of one model in it.
        model_name: the model; None takes the only one.
        storage_options: passed to fsspec for URLs.
        note: is told how far it is, and which files are damaged.

    Raises:
        UsageError: there is no such folder or model, or usearch is not installed.
        RunStopped: the index cannot be written.
    """
    folder, run = open_run(
        one_model_folder(output_path, model_name, storage_options), storage_options
    )
    said_s = time.monotonic()

    def on_progress(frames: int) -> None:
        nonlocal said_s
        if time.monotonic() - said_s >= SAY_EVERY_S:
            said_s = time.monotonic()
            note(f"{count(frames, 'frame')} indexed")

    def on_damaged(error: DamagedFile) -> None:
        note(f"{shown(f'{folder.url}/{error.file}')} was left out: {error.reason}")

    index, new = update_index(folder, run, on_progress, on_damaged)
    where = shown(str(index_location(folder)))
    print(f"{where}: {count(index.frames, 'frame')}, {new:,} of them new")
