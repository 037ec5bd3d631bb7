"""``rayclip search``: the moments of an output folder that fit texts and pictures best."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from rayclip.console import shown
from rayclip.errors import UsageError
from rayclip.output.open_run import RecordedRun, one_model_folder, open_run
from rayclip.report.progress_words import count
from rayclip.search.clips import cut_moments
from rayclip.search.index import index_location, open_index
from rayclip.search.indexed import coverage, indexed_moments
from rayclip.search.locate import frames_fps, locate
from rayclip.search.moments import Found, Moment, Query, moments
from rayclip.search.queries import QueryEncoder
from rayclip.search.timeline import clock
from rayclip.session.cores import available_cores

MAX_DAMAGED = 3  # damaged files that are named


@dataclass(frozen=True)
class SearchRequest:
    """What to search for.

    Attributes:
        output_path: the output folder of a run, or the folder of one model in it.
        texts: the texts.
        pictures: local files of pictures.
        top: how many moments to find for each of them.
        model_name: the model; None takes the only one.
        weights: the checkpoint of a custom model.
        videos: the folder to which the videos were moved; None if they are where they were.
    """

    output_path: str
    texts: Sequence[str]
    pictures: Sequence[str]
    top: int
    model_name: str | None
    weights: str | None
    videos: str | None


@dataclass(frozen=True)
class Answer:
    """The answer to a request.

    Attributes:
        recorded: the folder that was searched.
        found: the moments.
        paths: where each video is that was found, by name.
        index: whether an index was used, for people; empty if there is none.
    """

    recorded: RecordedRun
    found: Found
    paths: Mapping[str, str]
    index: str


def search(request: SearchRequest, storage_options: Mapping[str, Any]) -> Answer:
    """Search an output folder.

    Args:
        request: what to search for.
        storage_options: passed to fsspec for URLs.

    Raises:
        UsageError: there is no such folder, model, picture or text.
    """
    names = [*request.texts, *request.pictures]
    if not names:
        raise UsageError("There is nothing to search for: give a text, or a picture with image.")
    if len(set(names)) < len(names):
        raise UsageError("A text or picture is given twice: give each once.")
    if request.top < 1:
        raise UsageError(f"top must be at least 1, not {request.top}.")
    url = one_model_folder(request.output_path, request.model_name, storage_options)
    recorded = open_run(url, storage_options)
    encoder = QueryEncoder(recorded.run, request.weights, storage_options)
    queries = [*encoder.texts(request.texts), *encoder.pictures(request.pictures)]
    encoder.close()
    found, index = find(recorded, queries, request.top)
    videos = {moment.video: moment.source for moment in found.moments}
    paths = locate(videos, recorded.folder, recorded.run, request.videos, storage_options)
    return Answer(recorded, found, paths, index)


def find(recorded: RecordedRun, queries: Sequence[Query], top: int) -> tuple[Found, str]:
    """Search a folder, through its index if there is one; also returns what to say of that."""
    folder, run = recorded
    location = index_location(folder)
    if not location.is_dir():
        return moments(folder, queries, top), ""
    try:
        index = open_index(location, run)
    except UsageError as error:  # usearch is not installed here
        return moments(folder, queries, top), f"The index was not used. {error}"
    covered = coverage(index, folder) if index else None
    if index is None or covered is None:
        stale = "The index was not used: it is not of these features. `rayclip index` updates it."
        return moments(folder, queries, top), stale
    found = indexed_moments(index, covered, folder, queries, top)
    new = f"; {count(len(covered.new), 'newer file')} read" if covered.new else ""
    return found, f"Found with the index{new}."


def json_moments(answer: Answer) -> list[dict[str, Any]]:
    """The moments as objects for JSON; docs/search.md has their keys."""
    return [
        {
            "video": moment.video,
            "path": answer.paths.get(moment.video),
            "start_s": round(moment.start_s, 6),
            "end_s": round(moment.end_s, 6),
            "best_s": round(moment.best_s, 6),
            "query": moment.query,
            "score": moment.score.cosine,
            "stands_out": moment.score.stands_out,
            "scores": {
                name: {"score": score.cosine, "stands_out": score.stands_out}
                for name, score in moment.scores.items()
            },
        }
        for moment in answer.found.moments
    ]


def write_answer(answer: Answer, as_json: bool, out: TextIO, note: Callable[[str], None]) -> None:
    """Write an answer for people or for programs.

    Args:
        answer: from :func:`search`.
        as_json: write a JSON list.
        out: receives the moments.
        note: is told what is missing.
    """
    found = answer.found
    if as_json:
        print(json.dumps(json_moments(answer), indent=1), file=out)
    else:
        print("\n".join(table(found)), file=out)
    if answer.index:
        note(answer.index)
    damaged = found.damaged
    for file in damaged[:MAX_DAMAGED]:
        note(f"{shown(f'{answer.recorded.folder.url}/{file.file}')} was left out: {file.reason}")
    if len(damaged) > MAX_DAMAGED:
        note(f"… and {len(damaged) - MAX_DAMAGED} more damaged files")
    missing = sorted({moment.video for moment in found.moments} - answer.paths.keys())
    if missing:
        note(
            f"{count(len(missing), 'video')} cannot be found, such as {shown(missing[0])}: "
            "name the folder of the videos with --videos"
        )


def cut_answer(
    answer: Answer, folder: str, storage_options: Mapping[str, Any], note: Callable[[str], None]
) -> bool:
    """Write the moments of an answer as clips; returns whether some could not be.

    Raises:
        UsageError: the folder cannot be created.
    """
    moments, cores = answer.found.moments, available_cores()
    failed = 0
    fps = frames_fps(answer.recorded.run)
    for file, problem in cut_moments(moments, answer.paths, folder, storage_options, cores, fps):
        if problem is not None:
            failed += 1
            note(f"{shown(file)} was not written: {problem}")
    note(f"{count(len(moments) - failed, 'clip')} in {shown(folder)}")
    return failed > 0


def table(found: Found) -> list[str]:
    """The moments as lines; several queries have a column each."""
    searched = f"{count(found.frames, 'frame')} of {count(found.videos, 'video')}"
    if not found.moments:
        return [f"Nothing found in {searched}."]
    names = list(found.moments[0].scores)
    heads = [shown(name) for name in names]
    rows = [[*_cells(moment, names)] for moment in found.moments]
    titles = ["from", "to", "best", *heads, "video"]
    widths = [max(len(row[column]) for row in [titles, *rows]) for column in range(len(titles) - 1)]
    lines = [
        "  ".join([*map(str.rjust, row[:-1], widths), row[-1]]).rstrip() for row in [titles, *rows]
    ]
    legend = "For each query: the cosine, and how many standard deviations it is above the mean."
    return [f"Searched {searched}. {legend}", "", *lines]


def _cells(moment: Moment, names: Sequence[str]) -> list[str]:
    scores = [
        f"{'*' if name == moment.query and len(names) > 1 else ''}{score.cosine:.3f} "
        f"{score.stands_out:+.1f}"
        for name, score in moment.scores.items()
    ]
    times = map(clock, (moment.start_s, moment.end_s, moment.best_s))
    return [*times, *scores, shown(moment.video)]
