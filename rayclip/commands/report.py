"""``rayclip report``: a page that shows a run, its videos and the curves of texts."""

from __future__ import annotations

import os
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayclip.commands.status import Status, read_status
from rayclip.errors import Code, RunStopped, UsageError
from rayclip.output.finished import scan_features
from rayclip.output.open_run import RecordedRun, one_model_folder, open_run
from rayclip.output.video_files import DamagedFile
from rayclip.report.progress_words import count
from rayclip.search.curves import Curve, Scan, compare
from rayclip.search.locate import frames_fps, locate
from rayclip.search.media_process import MediaPool, Pictures
from rayclip.search.moments import Moment, Query, best_moments
from rayclip.search.page import FailedVideos, Picture, Report, Timeline, render
from rayclip.search.queries import QueryEncoder
from rayclip.search.thumbnails import Thumbnails
from rayclip.search.timeline import clock, points, polyline, spread
from rayclip.session.cores import available_cores

MAX_VIDEOS = 100  # on the page
PICTURES = 240  # along the timelines of all videos, if each gets at least MIN_PICTURES
MIN_PICTURES, MAX_PICTURES = 3, 12
MOMENTS = 6  # of each text
SIZE = 160  # pixels of a picture's longest side
LOWEST = -2.0  # standard deviations at the bottom of the curves
MAX_EXAMPLES = 20
NO_VIDEO = "This video cannot be found: name the folder of the videos with --videos."


@dataclass(frozen=True)
class ReportRequest:
    """What to report.

    Attributes:
        output_path: the output folder of a run, or the folder of one model in it.
        texts: whose curves and best moments are shown; may be empty.
        to: the local file to write.
        model_name: the model; None takes the only one.
        weights: the checkpoint of a custom model.
        videos: the folder to which the videos were moved; None if they are where they were.
    """

    output_path: str
    texts: Sequence[str]
    to: str
    model_name: str | None
    weights: str | None
    videos: str | None


def write_report(request: ReportRequest, storage_options: Mapping[str, Any]) -> None:
    """Write the page.

    Args:
        request: what to report.
        storage_options: passed to fsspec for URLs.

    Raises:
        UsageError: there is no such folder, model or text, or the file cannot be written.
        RunStopped: the file could not be written after all.
    """
    texts, to = request.texts, request.to
    if len(set(texts)) < len(texts):
        raise UsageError("A text is given twice: give each once.")
    if "://" in to or not os.path.isdir(os.path.dirname(to) or "."):
        raise UsageError(f"{to} cannot be written: name a file in an existing local folder.")
    url = one_model_folder(request.output_path, request.model_name, storage_options)
    recorded = open_run(url, storage_options)
    queries: list[Query] = []
    if texts:
        encoder = QueryEncoder(recorded.run, request.weights, storage_options)
        queries = encoder.texts(texts)
        encoder.close()
    with closing(MediaPool(available_cores())) as pool:
        rate, of_images = run_fps(recorded.run), frames_fps(recorded.run)
        thumbnails = Thumbnails(rate, SIZE, storage_options, pool, frames_fps=of_images)
        maker = _ReportMaker(recorded, queries, thumbnails)
        maker.locate(request.videos, storage_options)
        _write_file(to, render(maker.report()))


def run_fps(run: dict[str, Any]) -> Fraction | None:
    """The frames per second of a run; None if it took frames at their own times."""
    fps = run.get("extraction_fps")
    return None if fps is None else Fraction(str(fps))


class _ReportMaker:
    """Gathers what the page shows."""

    def __init__(
        self, recorded: RecordedRun, queries: Sequence[Query], thumbnails: Thumbnails
    ) -> None:
        self._recorded = recorded
        self._queries = queries
        self._thumbnails = thumbnails
        self._scan = _scan(recorded, queries)
        self._curves = _shown_curves(self._scan)
        self._moments = best_moments(self._scan, queries, MOMENTS)
        self._paths: Mapping[str, str] = {}

    def locate(self, root: str | None, storage_options: Mapping[str, Any]) -> None:
        """Find the videos that are shown, below a root or where they were."""
        shown = {curve.video: curve.source for curve in self._curves}
        shown |= {moment.video: moment.source for moment in self._moments}
        folder, run = self._recorded
        self._paths = locate(shown, folder, run, root, storage_options)

    def report(self) -> Report:
        with ThreadPoolExecutor(available_cores()) as threads:
            moments = [self._best_of(query, threads) for query in self._queries]
            videos = [video for video in threads.map(self._timeline, self._curves) if video]
        status = read_status(self._recorded, None, _last_change(self._recorded))
        damaged = self._scan.damaged
        return Report(
            title=self._recorded.folder.url,
            figures=_figures(self._scan, status),
            texts=[query.name for query in self._queries],
            moments=moments,
            failures=_failures(self._recorded),
            videos=videos,
            hidden=max(self._scan.videos - len(self._curves), 0),
            settings={
                name: str(value)
                for name, value in self._recorded.run.items()
                if value is not None and name not in ("inputs", "versions")
            },
            notes=[f"{file.file} was left out: {file.reason}" for file in damaged[:MAX_EXAMPLES]],
        )

    def _best_of(self, query: Query, threads: ThreadPoolExecutor) -> tuple[str, Sequence[Picture]]:
        best = [moment for moment in self._moments if moment.query == query.name]
        return query.name, [*threads.map(self._moment_picture, best)]

    def _moment_picture(self, moment: Moment) -> Picture:
        pictures = self._pictures(moment.video, [moment.best_s * 1000])
        span = f"{clock(moment.start_s)} to {clock(moment.end_s)}"
        score = f"{moment.score.cosine:.3f}, {moment.score.stands_out:+.1f} sd"
        jpeg = next(iter(pictures.jpegs.values()), None)
        return Picture(f"{span}, {score}", jpeg, moment.video)

    def _timeline(self, curve: Curve) -> Timeline | None:
        try:
            times_ms = curve.timestamps_ms()
        except DamagedFile as error:
            self._scan.damaged.append(error)
            return None
        number = min(MAX_PICTURES, max(MIN_PICTURES, PICTURES // len(self._curves)))
        times = spread(times_ms, number)
        pictures = self._pictures(curve.video, times)
        return Timeline(
            curve.video,
            f"{count(len(times_ms), 'frame')}, {clock(float(times_ms[-1]) / 1000)}",
            [Picture(clock(time_ms / 1000), pictures.jpegs.get(time_ms)) for time_ms in times]
            if pictures.jpegs
            else [],
            self._polylines(curve, times_ms),
            pictures.error and f"Pictures are missing: {pictures.error}",
        )

    def _pictures(self, video: str, times_ms: Sequence[float]) -> Pictures:
        path = self._paths.get(video)
        return Pictures({}, NO_VIDEO) if path is None else self._thumbnails.get(path, times_ms)

    def _polylines(self, curve: Curve, times_ms: NDArray[np.float64]) -> list[str]:
        scan = self._scan
        scores = (curve.cosines - scan.mean) / np.maximum(scan.deviation, 1e-9)
        return [
            polyline(points(times_ms, scores[:, column], LOWEST, self._highest(column)))
            for column in range(len(self._queries))
        ]

    def _highest(self, column: int) -> float:
        """The top of all curves: the highest score of any of them."""
        scan = self._scan
        return max(
            float((curves[0].cosines[:, query].max() - scan.mean[query]) / scan.deviation[query])
            for query, curves in enumerate(scan.curves)
            if curves and scan.deviation[query] > 0
        )


def _scan(recorded: RecordedRun, queries: Sequence[Query]) -> Scan:
    damaged: list[DamagedFile] = []
    videos = scan_features(recorded.folder, damaged.append)
    dim = int(recorded.run["dim"])
    vectors = [query.vector for query in queries] or [np.zeros(dim, np.float32)]
    return compare(videos, np.stack(vectors), MAX_VIDEOS, damaged)


def _shown_curves(scan: Scan) -> list[Curve]:
    """The videos on the page, by name: the best of each text, in turn, if there are too many."""
    shown: dict[str, Curve] = {}
    for rank in range(MAX_VIDEOS):
        for curves in scan.curves:
            if rank < len(curves) and len(shown) < MAX_VIDEOS:
                shown.setdefault(curves[rank].video, curves[rank])
    return sorted(shown.values(), key=lambda curve: curve.video)


def _last_change(recorded: RecordedRun) -> float:
    """When the last file was written, in seconds since 1970: rates are those of the run's end."""
    times = [file.modified for file in recorded.folder.files() if file.modified is not None]
    return max(times, default=time.time())


def _figures(scan: Scan, status: Status) -> list[tuple[str, str]]:
    figures = [
        (f"{scan.videos:,}", "videos"),
        (f"{scan.frames:,}", "frames"),
        (f"{status.failed.total():,}", "failed"),
    ]
    if (rate := status.recent.rate()) is not None:
        figures.append((f"{rate.frames / rate.seconds:,.1f}", "frames/s at the end"))
    return figures


def _failures(recorded: RecordedRun) -> list[FailedVideos]:
    examples: dict[str, list[str]] = defaultdict(list)
    counts: Counter[str] = Counter()
    done = recorded.folder.done()
    for failure in recorded.folder.read_failures():
        if recorded.folder.name_of(failure["video"]) in done:
            continue  # it has succeeded since
        code = str(failure.get("code"))
        counts[code] += 1
        if len(examples[code]) < MAX_EXAMPLES:
            examples[code].append(f"{failure['video']}: {failure.get('message')}")
    return [
        FailedVideos(code, number, *_explanation(code), examples[code])
        for code, number in counts.most_common()
    ]


def _explanation(code: str) -> tuple[str, str]:
    with suppress(ValueError):
        known = Code(code)
        return known.meaning, known.remedy
    return "This code is of another version of rayclip.", ""


def _write_file(path: str, content: bytes) -> None:
    """Write a local file, whole or not at all."""
    target = Path(path)
    temporary = target.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RunStopped(f"{path} cannot be written: {error}.") from error
