"""What the page shows, as its address says it: each state is a link."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from rayclip.errors import UsageError

TOP, MOST = 30, 300  # moments
MAX_TEXT = 1000  # characters
VIDEO = re.compile("[0-9a-f]{16}")
PICTURE = re.compile("[0-9a-f]{32}")


@dataclass(frozen=True)
class Place:
    """A time of a video.

    Attributes:
        video: the video's ID.
        seconds: from the start of the video.
    """

    video: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.video}@{self.seconds!r}"


@dataclass(frozen=True)
class PageState:
    """The state of the page.

    Attributes:
        model: the name of the model's folder; empty takes the first.
        q: the text to look for.
        like: the moment to whose frame others should be similar.
        picture: the ID of a picture that was dropped.
        video: the ID of the only video to search.
        names: a part of the names of the videos to search.
        top: how many moments to show.
        at: the place that is played.
    """

    model: str = ""
    q: str = ""
    like: Place | None = None
    picture: str | None = None
    video: str | None = None
    names: str = ""
    top: int = TOP
    at: Place | None = None

    @property
    def has_query(self) -> bool:
        """Whether there is something to look for."""
        return bool(self.q or self.like or self.picture)

    def link(self, **changes: Any) -> str:
        """Return the address of this state with some changes."""
        changed = replace(self, **changes)
        values = {
            name: str(value)
            for name in PageState.__dataclass_fields__
            if (value := getattr(changed, name)) != getattr(PageState, name)
        }
        return f"/?{urlencode(values)}" if values else "/"

    def asking(self, **query: Any) -> str:
        """Return the address of another query in the same videos."""
        return self.link(
            **{"q": "", "like": None, "picture": None, "top": TOP, "at": None, **query}
        )


def parse_state(values: Mapping[str, str]) -> PageState:
    """Read a state from the parameters of an address.

    Raises:
        UsageError: one of them is malformed.
    """
    for name in ("q", "names", "model"):
        if len(values.get(name, "")) > MAX_TEXT:
            raise UsageError(f"{name} has more than {MAX_TEXT} characters: make it shorter.")
    video, picture, like, at = (values.get(name) for name in ("video", "picture", "like", "at"))
    if picture and not PICTURE.fullmatch(picture):
        raise UsageError("This is no picture of this page.")
    return PageState(
        model=values.get("model", ""),
        q=values.get("q", "").strip(),
        like=parse_place(like) if like else None,
        picture=picture or None,
        video=parse_video(video) if video else None,
        names=values.get("names", "").strip(),
        top=_parse_top(values.get("top", str(TOP))),
        at=parse_place(at) if at else None,
    )


def parse_place(text: str) -> Place:
    """Read ``VIDEO@SECONDS``; raises UsageError."""
    video, _, seconds = text.partition("@")
    return Place(parse_video(video), parse_seconds(seconds))


def parse_video(text: str) -> str:
    """Check the ID of a video; raises UsageError."""
    if not VIDEO.fullmatch(text):
        raise UsageError("This is no video of this folder.")
    return text


def parse_seconds(text: str) -> float:
    """Read a time; raises UsageError."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < 1e9:
        raise UsageError("This is no time of a video.")
    return seconds


def _parse_top(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text[:9]) <= MOST:
        raise UsageError(f"top must be 1 to {MOST}.")
    return int(text)
