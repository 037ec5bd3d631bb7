"""The report as one HTML file without any reference to another."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

ASSETS = Path(__file__).parent / "assets"
COLOURS = 8  # of curves, in report.html


@dataclass(frozen=True)
class Picture:
    """A thumbnail with its caption; without a file if it could not be decoded."""

    caption: str
    jpeg: bytes | None
    note: str = ""

    @property
    def url(self) -> str:
        """The picture as a data URL."""
        return f"data:image/jpeg;base64,{base64.b64encode(self.jpeg or b'').decode()}"


@dataclass(frozen=True)
class Timeline:
    """A video on the page.

    Attributes:
        name: of the video.
        facts: how long it is, for example.
        pictures: along its time.
        curves: values of ``points`` of SVG polylines, in the order of the texts.
        problem: why pictures are missing; None if none is.
    """

    name: str
    facts: str
    pictures: Sequence[Picture]
    curves: Sequence[str]
    problem: str | None = None


@dataclass(frozen=True)
class FailedVideos:
    """The videos that failed with one code."""

    code: str
    count: int
    meaning: str
    remedy: str
    examples: Sequence[str]


@dataclass(frozen=True)
class Report:
    """What the page shows.

    Attributes:
        title: the folder.
        figures: pairs of a number and what it counts.
        texts: the texts whose curves are drawn.
        moments: for each text its best moments.
        failures: failed videos, the most frequent code first.
        videos: the videos.
        hidden: how many more videos there are.
        settings: the settings of the run.
        notes: what else the reader should know.
    """

    title: str
    figures: Sequence[tuple[str, str]]
    texts: Sequence[str]
    moments: Sequence[tuple[str, Sequence[Picture]]]
    failures: Sequence[FailedVideos]
    videos: Sequence[Timeline]
    hidden: int
    settings: Mapping[str, str]
    notes: Sequence[str]


def templates(folder: Path) -> Environment:
    """Return the templates of a folder, in which everything is escaped."""
    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(report: Report) -> bytes:
    """Return the page as UTF-8. Everything in it is escaped: names of videos are only text."""
    page = templates(ASSETS).get_template("report.html").render(report=report, colours=COLOURS)
    return page.encode("utf-8", "backslashreplace")
