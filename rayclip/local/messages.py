"""What crosses between the command and its worker process."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayclip.actors.encoder import EncoderSettings
from rayclip.errors import RayclipError
from rayclip.io.crash_log import Death
from rayclip.model.models import CustomWeights, ModelSpec
from rayclip.model.zeroshot import ZeroShot
from rayclip.report.results import VideoResult
from rayclip.report.run_stats import BatchStats

# ---- command -> worker; an ExtractionJob says what to do with each video ----


@dataclass(frozen=True)
class DescribeModel:
    """Look up a model whose family needs torch for that."""

    model_name: str
    custom: CustomWeights
    revision: str | None


@dataclass(frozen=True)
class LoadModel:
    """Load the models on each device.

    Attributes:
        devices: for each, its models.
        cores: how many videos, or segments of one, to decode at once.
        tasks: how many tasks may be handed out at once.
        is_restart: whether an earlier worker process has died: then each device is tried.
    """

    devices: Sequence[Sequence[EncoderSettings]]
    cores: int
    tasks: int
    is_restart: bool = False


@dataclass(frozen=True)
class EncodeTexts:
    """Encode the texts that frames are compared with."""

    texts: tuple[str, ...]


TAR_POSITIONS = 2**32
"""Positions in the run for each tar file, whose number of videos is unknown. The last one is that
of its own results."""


@dataclass(frozen=True)
class Task:
    """Videos that one thread extracts. Keys of mappings are their positions in the task.

    Attributes:
        start: position of the first one in the run, which identifies the task.
        videos: their names; or that of the tar file whose videos these are.
        extra_columns: further columns of them, as an Arrow table.
        finished: those that are finished, or in another task meanwhile.
        deaths: of earlier worker processes, for each video that was in progress then.
        is_retry: whether a worker process died with this task.
        lacking: for each video, or for the tar file, the numbers of the models that lack it; None
            if all do.
        of_tar: whether this is a tar file.
        only: position of the only video of a tar file that is extracted; None for all.
    """

    start: int
    videos: Sequence[str]
    extra_columns: Any = None
    finished: frozenset[int] = frozenset()
    deaths: Mapping[int, Sequence[Death]] = field(default_factory=dict)
    is_retry: bool = False
    lacking: Sequence[Sequence[int]] | None = None
    of_tar: bool = False
    only: int | None = None

    def lacks(self, position: int) -> bool:
        """Whether there is a video at this position, as far as is known, that is not finished."""
        if self.of_tar:
            is_ours = 0 <= position < TAR_POSITIONS and self.only in (None, position)
        else:
            is_ours = 0 <= position < len(self.videos)
        return is_ours and position not in self.finished

    def alone(self, position: int, death: Death) -> Task:
        """Return a retry of one video, which was in progress at a death."""
        deaths = {position: [*self.deaths.get(position, ()), death]}
        if self.of_tar:
            return replace(self, only=position, deaths=deaths, is_retry=True)
        others = frozenset(range(len(self.videos))) - {position}
        return replace(self, finished=others, deaths=deaths, is_retry=True)

    def without(self, positions: Collection[int]) -> Task | None:
        """Return a retry of the videos that are not finished, without these; None if there are
        none."""
        finished = self.finished | {*positions}
        is_empty = self.only in positions if self.of_tar else len(finished) == len(self.videos)
        return None if is_empty else replace(self, finished=finished, deaths={}, is_retry=True)

    def with_again(self, position: int) -> Task:
        """Return the same with a video that was in another task meanwhile."""
        return replace(self, finished=self.finished - {position})


# ---- worker -> command; a ModelSpec answers DescribeModel, and a ZeroShot EncodeTexts ----


@dataclass(frozen=True)
class Started:
    """The worker is ready to load a model, on one of this many GPUs."""

    gpus: int


@dataclass(frozen=True)
class Loaded:
    """The models are loaded on at least one device."""


@dataclass(frozen=True)
class Failed:
    """A request failed, or the run cannot go on."""

    error: RayclipError


@dataclass(frozen=True)
class Rows:
    """The next features of a video, float32 ``[n, D]``, before its results.

    Attributes:
        position: of the video in the run.
        model: which of its results they belong to.
    """

    position: int
    model: int
    features: NDArray[np.float32]


@dataclass(frozen=True)
class Finished:
    """The results of the video or of the tar file at this position in the run, one for each model.
    Features were sent before."""

    position: int
    results: Sequence[VideoResult]


@dataclass(frozen=True)
class TaskEnded:
    start: int


@dataclass(frozen=True)
class Report:
    """What the worker has done.

    Attributes:
        encoders: statistics for each device.
        waiting: frames outstanding at each.
        oldest: the video that has been in progress longest, and for how many seconds.
    """

    encoders: tuple[BatchStats, ...]
    waiting: tuple[int, ...]
    oldest: tuple[str, float] | None


FromWorker = Started | ModelSpec | Loaded | Failed | ZeroShot | Rows | Finished | TaskEnded | Report
