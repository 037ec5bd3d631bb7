"""Export a million features in every format: how fast, and with how much memory.

    python scripts/benchmarks/measure_export.py FOLDER

FOLDER needs 8 GB for a moment. The features are random, float32 of 512 numbers.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from tables import number, table

from rayclip.export.options import FORMATS
from rayclip.output.array_folder import model_folder
from rayclip.output.folder import FeatureFolder
from rayclip.output.open_run import FolderFormat, open_folder
from rayclip.output.rows import Extraction, Row

DIM = 512
FEATURES = 1_000_000
VIDEOS_AT_ONCE = 32  # in a shard, as a run writes them
SOURCES = {
    "npy, 1,000 videos": ("save_numpy", 1_000),
    "npy, one video": ("save_numpy", 1),
    "shards, 1,000 videos": ("save_parquet", 1_000),
}
"""Names -> the form of the features, and the number of videos."""

HEADER = ("features", "format", "MB/s", "peak memory, MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="for the features and the exports")
    folder = parser.parse_args().folder
    rows = [row for name in SOURCES for row in measured(name, folder)]
    print(table(HEADER, rows))


def measured(name: str, folder: Path) -> Iterator[tuple[str, ...]]:
    """Make features, and yield a line for each format."""
    # in another process: the peak of a command begins with the memory of the process that starts it
    maker = get_context("spawn").Process(target=make, args=(*SOURCES[name], folder / "source"))
    maker.start()
    maker.join()
    assert maker.exitcode == 0, name
    for export_format in FORMATS:
        words = [folder / "source", folder / "target", "--format", export_format]
        started = time.monotonic()
        command = subprocess.Popen(
            [sys.executable, "-m", "rayclip", "export", *words], stdout=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(command.pid, 0)
        seconds = time.monotonic() - started
        assert status == 0, export_format
        speed = FEATURES * DIM * 4 / 1e6 / seconds
        yield name, f"`{export_format}`", number(speed, 0), number(usage.ru_maxrss * 1024 / 1e6, 0)
        shutil.rmtree(folder / "target")
    shutil.rmtree(folder / "source")


def make(on_extraction: str, videos: int, output: Path) -> None:
    """Make an output folder with all features in this many videos."""
    form = FolderFormat(DIM, on_extraction, "float32", "stem")
    folder = open_folder(model_folder(str(output), "demo"), form, {})
    folder.prepare()
    folder.write_run({"model_name": "demo", **form._asdict()})
    names = [f"video_{index:04}.mp4" for index in range(videos)]
    for start in range(0, videos, VIDEOS_AT_ONCE):
        save(folder, names[start : start + VIDEOS_AT_ONCE], FEATURES // videos)


def save(folder: FeatureFolder, videos: list[str], frames: int) -> None:
    numbers = np.random.default_rng(0)
    rows = [
        Row(
            position,
            video,
            Extraction(
                numbers.standard_normal((frames, DIM), np.float32), np.arange(frames) * 40.0, 25.0
            ),
        )
        for position, video in enumerate(videos)
    ]
    folder.writer(videos, None).save(rows)


if __name__ == "__main__":
    main()
