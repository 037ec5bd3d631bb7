"""An output folder with its models, as the page sees it."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rayclip.commands.report import run_fps
from rayclip.errors import UsageError
from rayclip.output.open_run import RecordedRun, model_folders, open_run
from rayclip.search.locate import frames_fps
from rayclip.search.media_process import MediaPool
from rayclip.search.thumbnails import Thumbnails
from rayclip.serve.collection import Collection
from rayclip.serve.roots import Roots

SMALL, LARGE = 320, 1280  # pixels of a picture's longest side: in the grid, or instead of a video


@dataclass(frozen=True)
class Model:
    """A model of the folder: the name of its folder, which is in addresses, and its own name."""

    folder: str
    name: str


class Library:
    """The models of an output folder, opened when they are chosen.

    Attributes:
        notes: what the user should know.
    """

    def __init__(
        self,
        output_path: str,
        weights: str | None,
        roots: Roots,
        pool: MediaPool,
        storage_options: Mapping[str, Any],
        notes: Sequence[str] = (),
    ) -> None:
        """Open the folder.

        Args:
            output_path: of a run, or the folder of one model in it.
            weights: the checkpoint of a custom model.
            roots: where the videos may be.
            pool: the processes that decode.
            storage_options: passed to fsspec for URLs.
            notes: what the user should know.

        Raises:
            UsageError: there is no such folder.
        """
        self._output_path = output_path
        self._weights = weights
        self._roots = roots
        self._pool = pool
        self._storage_options = storage_options
        self._lock = threading.Lock()
        self._collections: dict[str, Collection] = {}
        self._thumbnails: dict[tuple[Collection, int], Thumbnails] = {}
        self.notes = notes

    def models(self) -> list[Model]:
        """List the models, also those that have been added meanwhile.

        Raises:
            UsageError, RunStopped: the folder cannot be read.
        """
        folders = sorted(self._urls())
        return [Model(folder, self._recorded(folder).run["model_name"]) for folder in folders]

    def collection(self, folder: str) -> Collection:
        """Return a model by the name of its folder; the first one if that is empty.

        Raises:
            UsageError: there is none.
        """
        with self._lock:
            if folder not in self._collections:
                folder = folder or min(self._urls())
            if folder not in self._collections:
                self._collections[folder] = Collection(
                    self._recorded(folder), self._weights, self._roots, self._storage_options
                )
            return self._collections[folder]

    def thumbnails(self, collection: Collection, size: int) -> Thumbnails:
        """Return the pictures of a model's videos, of at most this many pixels a side."""
        key = collection, size
        if key not in self._thumbnails:
            run = collection.recorded.run
            self._thumbnails[key] = Thumbnails(
                run_fps(run),
                size,
                self._storage_options,
                self._pool,
                frames_fps=frames_fps(run),
            )
        return self._thumbnails[key]

    def _recorded(self, folder: str) -> RecordedRun:
        if folder in self._collections:
            return self._collections[folder].recorded
        urls = self._urls()
        if folder not in urls:
            raise UsageError("This folder has no features of this model.")
        return open_run(urls[folder], self._storage_options)

    def _urls(self) -> dict[str, str]:
        urls = model_folders(self._output_path, self._storage_options)
        return {url.rstrip("/").rpartition("/")[2]: url for url in urls}
