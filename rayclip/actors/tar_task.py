"""Extract the videos of a tar file, which are not known before it is read."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from rayclip.actors.decoder import VideoExtractor, is_interrupted
from rayclip.actors.job import ExtractionJob, TaskVideo
from rayclip.errors import BadVideo, Code, CredentialsRefused, RunStopped, VideoError
from rayclip.inputs.tar_videos import TarVideo, TarVideos
from rayclip.inputs.videos import absolute
from rayclip.io import retry
from rayclip.io.retry import RetriesExhausted, with_retry
from rayclip.io.storage_errors import stop_reason
from rayclip.media.tar_names import member_name
from rayclip.report.results import Failure, TarCounts, VideoResult

SAME_NAME = "an earlier video of this tar file has the same name without its suffix"


def extract_tar(
    extractor: VideoExtractor,
    job: ExtractionJob,
    tar: str,
    models: Sequence[int],
    finished: Collection[int] = (),
    only: int | None = None,
) -> Iterator[VideoResult]:
    """Extract the videos of a tar file, and yield their results in its order, as soon as each is
    saved. Then yield one result of the tar file itself for each model.

    The position of a video is its number among those that some of the models lack.

    Args:
        extractor: extracts the videos.
        job: of the extractor.
        tar: the input.
        models: the numbers of the models that have not finished it.
        finished: positions of videos that are passed over.
        only: position of the only video that is extracted; then the tar file has no results.

    Raises:
        RunStopped: as of the extractor, or the storage refuses the credentials.
    """
    reading = _Reading(job, tar, models, finished, only)
    yield from extractor.run([tar], reading.videos())
    if only is None:
        yield from reading.results()


class _Reading:
    """A tar file that is read once, or again from its beginning after an interruption."""

    def __init__(
        self,
        job: ExtractionJob,
        tar: str,
        models: Sequence[int],
        finished: Collection[int],
        only: int | None,
    ) -> None:
        self._job = job
        self._tar = tar
        self._models = models
        self._finished = set(finished)
        self._only = only
        self._error: VideoError | None = None
        self._begin()

    def _begin(self) -> None:
        path = absolute(self._tar, self._job.folder_of_inputs)
        self._archive = TarVideos(path, self._job.storage_options)
        self._found = self._archive.read(self._position_of)
        self._names: set[str] = set()
        self._clashes: set[int] = set()
        self._positions = 0

    def videos(self) -> Iterator[TaskVideo]:
        """Yield the videos to extract; an error of the tar file ends them."""
        while found := self._next():
            position, member, content, columns = found
            video, error = member_name(self._tar, member), None
            if position in self._clashes:
                error = BadVideo("open", Code.SAME_NAME, SAME_NAME)
            models = self._models if error else self._lacking(video)
            yield TaskVideo(position, video, models, columns, content, error)
            if position == self._only:
                return
            self._finished.add(position)

    def results(self) -> Iterator[VideoResult]:
        """Yield the results of the tar file.

        Raises:
            RunStopped: no other tar file could be read either.
        """
        error, count = self._error, self._archive.count
        if isinstance(error, CredentialsRefused):
            raise RunStopped(str(stop_reason(error, self._tar))) from error
        if error is None and not count:
            message = "it holds no file with the suffix of a video, such as .mp4"
            error = BadVideo("open", Code.TAR_WITHOUT_VIDEOS, message)
        counts = TarCounts(count, count - self._positions)
        for model in self._models:
            label = self._job.models[model].label
            failure = None if error is None else Failure.of(self._tar, error, 1, label)
            yield VideoResult(self._tar, 0, failure, model=label, tar=counts)

    def _next(self) -> TarVideo | None:
        """Read the next video; None at the end, or after an error."""
        try:
            return with_retry(self._read, is_interrupted, retry.RESTART)
        except RetriesExhausted as error:
            self._error = VideoError("read", Code.READ_FAILED, str(error))
        except VideoError:
            pass
        return None

    def _read(self) -> TarVideo | None:
        if self._error is not None:  # it was interrupted
            self._error = None
            self._begin()
        try:
            return next(self._found, None)
        except VideoError as error:
            self._error = error
            raise

    def _position_of(self, member: str) -> int | None:
        """Return the position of the next video; None if it is passed over."""
        video = member_name(self._tar, member)
        name = self._job.folders[0].name_of(video) if self._job.folders else video
        clashes = name in self._names
        self._names.add(name)
        if not clashes and not self._lacking(video):
            return None
        position = self._positions
        self._positions += 1
        if clashes:
            self._clashes.add(position)
        is_wanted = position not in self._finished and self._only in (None, position)
        return position if is_wanted else None

    def _lacking(self, video: str) -> Sequence[int]:
        return [model for model in self._models if not self._job.models[model].has(video)]
