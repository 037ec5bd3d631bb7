"""Write what a folder holds into another one, in another format."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import IO, Any

from fsspec.implementations.local import LocalFileSystem

from rayclip.console import shown
from rayclip.errors import RunStopped
from rayclip.export.formats import open_format
from rayclip.export.options import ExportOptions
from rayclip.export.planning import plan_parts
from rayclip.export.records import Part, Records
from rayclip.export.source import Source, SourceFile
from rayclip.export.videos import ExportedVideo
from rayclip.io.atomic_write import is_stale_tmp
from rayclip.io.folder import Folder
from rayclip.output.open_run import one_model_folder, open_run
from rayclip.output.run_record import COMPARED

SAY_EVERY_S = 30.0

Say = Callable[[str], object]


@dataclass(frozen=True)
class Exported:
    """What a target holds after an export.

    Attributes:
        videos: the number of its videos.
        rows: the number of their features.
        files: the number of its files.
        size: their bytes.
        written: the number of videos that this export wrote.
        removed: the number of files that it removed.
    """

    videos: int
    rows: int
    files: int
    size: int
    written: int
    removed: int


def export(
    output_path: str,
    target: str,
    options: ExportOptions,
    *,
    model_name: str | None = None,
    storage_options: Mapping[str, Any],
    say: Say,
) -> Exported:
    """Export the features of a model, or go on with an export.

    Args:
        output_path: the ``output_path`` of a run, or the folder of one model in it.
        target: a folder; a local path or an fsspec URL.
        options: what is written.
        model_name: the model; required if there are several.
        storage_options: passed to fsspec for both.
        say: called with a line from time to time.

    Raises:
        UsageError: there are no features, or the target has other files.
        RunStopped: something cannot be written or has changed; what is exported is kept.
        RayclipError: a saved file is damaged; what is exported is kept.
    """
    url = one_model_folder(output_path, model_name, storage_options)
    recorded = open_run(url, storage_options)
    export_format = open_format(options.format)
    folder = Folder(target, storage_options, nested=True)
    source = Source(
        recorded.folder,
        options.naming,
        for_any_storage=not _is_local(folder),
        of_tars=recorded.run.get("of_tars") is True,
    )
    files = source.files(with_different_keys=export_format.has_files_per_video)
    options = replace(options, dtype=options.dtype or recorded.run["feature_dtype"])
    settings = {name: recorded.run.get(name) for name in COMPARED}
    folder.prepare()
    listing = _listing(folder)
    records = Records(folder)
    records.agree({"source": _place(recorded.folder), **asdict(options), **settings}, not listing)
    plan = plan_parts(files, records.parts(listing), listing, export_format)
    records.forget(plan.forgotten)
    parts = dict(plan.kept)
    progress = _Progress(sum(len(group) for group in plan.new.values()), say)
    for number, group in plan.new.items():
        written = _PartWriter(folder)
        videos = (
            ExportedVideo(video, source.key_of(video), options) for video in source.read(group)
        )
        export_format.write_part(number, written.counted(videos), written.put)
        parts[number] = written.part(group)
        records.write(number, parts[number])
        progress.wrote(len(group))
    current = (name for part in parts.values() for name in part.files)
    removed = records.remove_stale(current, listing)
    _check_sizes(folder, parts.values())
    return Exported(
        sum(part.videos for part in parts.values()),
        sum(part.rows for part in parts.values()),
        sum(len(part.files) for part in parts.values()),
        sum(sum(part.files.values()) for part in parts.values()),
        sum(parts[number].videos for number in plan.new),
        removed,
    )


@dataclass
class _PartWriter:
    """Writes the files of a part, and counts what is in them."""

    folder: Folder
    files: dict[str, int] = field(default_factory=dict)
    videos: int = 0
    rows: int = 0

    def counted(self, videos: Iterable[ExportedVideo]) -> Iterator[ExportedVideo]:
        for video in videos:
            self.videos += 1
            self.rows += video.shape[0]
            yield video

    def put(self, name: str, write: Callable[[IO[bytes]], object]) -> None:
        self.folder.prepare_parent(name)
        self.files[name] = self.folder.write_once(name, write)

    def part(self, group: Iterable[SourceFile]) -> Part:
        sources = tuple(file.stamp for file in group)
        return Part(sources, self.files, self.videos, self.rows)


class _Progress:
    """Says how far an export is, now and then."""

    def __init__(self, total: int, say: Say) -> None:
        self._total = total
        self._say = say
        self._done = 0
        self._next = time.monotonic() + SAY_EVERY_S

    def wrote(self, files: int) -> None:
        self._done += files
        if time.monotonic() > self._next:
            self._say(f"{self._done:,} of {self._total:,} files of features exported")
            self._next = time.monotonic() + SAY_EVERY_S


def _is_local(folder: Folder) -> bool:
    return isinstance(folder.fs_and_path()[0], LocalFileSystem)


def _place(folder: Folder) -> str:
    """Return the name of a folder that does not depend on the working folder."""
    return os.path.abspath(folder.fs_and_path()[1]) if _is_local(folder) else folder.url.rstrip("/")


def _listing(folder: Folder) -> dict[str, int]:
    """Return the files of a target and their sizes; remove what a killed export has left."""
    now, sizes, stale = time.time(), {}, []
    for path, size, modified in folder.listing(("",)):
        if modified is not None and is_stale_tmp(path.rpartition("/")[2], now - modified):
            stale.append(path)
        else:
            sizes[path] = size
    folder.remove(stale)
    return sizes


def _check_sizes(folder: Folder, parts: Iterable[Part]) -> None:
    """Compare the files of an export with a new listing.

    Raises:
        RunStopped: one is missing or has another size.
    """
    sizes = {file.path: file.size for file in folder.listing(("",))}
    for part in parts:
        for name, size in part.files.items():
            if sizes.get(name) != size:
                raise RunStopped(
                    f"{shown(f'{folder.url}/{name}')} should have {size:,} bytes, and has "
                    f"{sizes.get(name, 0):,}: rerun this command to write it again."
                )
