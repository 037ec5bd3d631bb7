"""The features of one model, as the page sees them: queries, moments, and places of videos."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayclip.commands.search import find
from rayclip.errors import UsageError
from rayclip.output.array_folder import ArrayFolder
from rayclip.output.done import name_hash
from rayclip.output.finished import reading_order
from rayclip.output.open_run import RecordedRun
from rayclip.output.rows import ScannedVideo
from rayclip.output.video_files import DamagedFile
from rayclip.search.locate import locate
from rayclip.search.moments import Found, Query, moments
from rayclip.search.queries import CUSTOM, QueryEncoder
from rayclip.serve.roots import Roots
from rayclip.serve.state import Place

LOOK_AGAIN_S = 30.0  # for videos that were not found


@dataclass(frozen=True)
class Known:
    """A video of the folder.

    Attributes:
        name: its name in the folder.
        source: the input path or URL; None if the folder does not say it.
    """

    name: str
    source: str | None


class Collection:
    """The features of one model. Methods block, and may be called from several threads."""

    def __init__(
        self,
        recorded: RecordedRun,
        weights: str | None,
        roots: Roots,
        storage_options: Mapping[str, Any],
    ) -> None:
        """Prepare; nothing is read.

        Args:
            recorded: the output folder of the model.
            weights: the checkpoint of a custom model.
            roots: where its videos may be.
            storage_options: passed to fsspec for URLs.
        """
        self.recorded = recorded
        self._weights = weights
        self._roots = roots
        self._storage_options = storage_options
        self._encoder: QueryEncoder | None = None
        self._encoding, self._locating = threading.Lock(), threading.Lock()
        self._known: dict[str, Known] = {}
        self._paths: dict[str, str] = {}
        self._missing: dict[str, float] = {}

    def load_model(self) -> QueryEncoder:
        """Return the model, which is loaded first if needed, in seconds.

        Raises:
            UsageError, WeightsUnavailable: it cannot be loaded.
        """
        with self._encoding:
            if self._encoder is None:
                run = self.recorded.run
                weights = self._weights if run["model_name"] == CUSTOM else None
                self._encoder = QueryEncoder(run, weights, self._storage_options)
            return self._encoder

    def text_query(self, text: str) -> Query:
        """Encode a text; raises UsageError if the model refuses it."""
        encoder = self.load_model()
        with self._encoding:
            return encoder.texts([text])[0]

    def picture_query(self, rgb: NDArray[np.uint8]) -> Query:
        """Encode a picture: uint8 RGB ``[height, width, 3]``."""
        encoder = self.load_model()
        with self._encoding:
            return encoder.picture("picture", rgb)

    def frame_query(self, place: Place) -> Query:
        """Take the feature of the frame that is next to a place.

        Raises:
            UsageError: there is no such video.
        """
        for video in self._videos_of(place.video):
            try:
                away_ms = np.abs(video.timestamps_ms() - 1000 * place.seconds)
                feature = _row(video.blocks, int(np.argmin(away_ms)))
            except DamagedFile as error:
                raise UsageError(f"{error.file} is damaged: {error.reason}.") from error
            norm = np.linalg.norm(feature)
            return Query("frame", (feature / (norm or 1)).astype(np.float32))
        raise UsageError("This video is not in this folder.")

    def search(self, query: Query, top: int, video: str | None, names: str) -> Found:
        """Find the best moments: of one video by its ID, or of those whose names have a part.

        Raises:
            UsageError, RunStopped: the folder cannot be read.
        """
        if video is None and not names:
            found, _ = find(self.recorded, [query], top)
        else:
            found = moments(self.recorded.folder, [query], top, _filter(video, names))
        for moment in found.moments:
            self._known[video_id(moment.video)] = Known(moment.video, moment.source)
        return found

    def known(self, video: str) -> Known:
        """Return a video by its ID.

        Raises:
            UsageError: there is none.
        """
        if video not in self._known:
            for found in self._videos_of(video):
                self._known[video] = Known(found.name, found.source)
                break
            else:
                raise UsageError("This video is not in this folder.")
        return self._known[video]

    def locate(self, videos: Sequence[Known]) -> None:
        """Find the files of videos that are not found yet, all at once."""
        with self._locating:
            now = time.monotonic()
            wanted = {
                video.name: video.source
                for video in videos
                if video.name not in self._paths
                and now - self._missing.get(video.name, -LOOK_AGAIN_S) >= LOOK_AGAIN_S
            }
            for root in (None, *self._roots.folders):
                if wanted:
                    found = self._locate_below(wanted, root)
                    self._paths |= found
                    wanted = {name: wanted[name] for name in wanted.keys() - found.keys()}
            self._missing |= dict.fromkeys(wanted, now)

    def path(self, video: str) -> str | None:
        """Return the file to open for a video, by its ID; None if there is none that may be shown.

        Raises:
            UsageError: there is no such video.
        """
        known = self.known(video)
        self.locate([known])
        path = self._paths.get(known.name)
        return path and self._roots.allowed(path)

    def _locate_below(self, wanted: Mapping[str, str | None], root: str | None) -> dict[str, str]:
        folder, run = self.recorded
        run = {**run, "inputs": self._roots.inputs_below(run.get("inputs"))}
        try:
            found = locate(wanted, folder, run, root, self._storage_options)
        except UsageError:  # there is no video below the root
            return {}
        return {name: path for name, path in found.items() if self._roots.allowed(path)}

    def _videos_of(self, video: str) -> Iterator[ScannedVideo]:
        """Find a video by its ID."""
        folder = self.recorded.folder
        one_each = isinstance(folder, ArrayFolder)
        for file in folder.feature_files():
            if one_each and video_id(reading_order(file.path)) != video:
                continue
            try:
                for scanned in folder.scan_file(file.path):
                    if video_id(scanned.name) == video:
                        yield scanned
            except (FileNotFoundError, DamagedFile):  # of others; or it was removed meanwhile
                continue


def video_id(name: str) -> str:
    """Return the ID of a video in addresses: 16 hexadecimal digits, which are no path."""
    return f"{name_hash(name):016x}"


def _filter(video: str | None, names: str) -> Callable[[str], bool]:
    part = names.casefold()

    def wanted(name: str) -> bool:
        return part in name.casefold() and (video is None or video_id(name) == video)

    return wanted


def _row(blocks: Iterator[NDArray[Any]], row: int) -> NDArray[np.float64]:
    for block in blocks:
        if row < len(block):
            return np.asarray(block[row], np.float64)
        row -= len(block)
    raise UsageError("This frame is not in this folder.")
