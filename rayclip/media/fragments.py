"""Parts of videos as inputs: ``a.mp4#t=5,10``, as Media Fragments URIs write them.

So a part has a name of its own wherever a video has one: in lists, messages and results.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from rayclip.media.frame_choice import seconds_text

SECONDS = r"\d{1,10}(?:\.\d+)?"
PART = re.compile(
    rf"(?P<path>.+)\#t=(?P<start>{SECONDS})?(?:,(?P<end>{SECONDS}))?(?<!=)", re.DOTALL
)

LABELLED = re.compile(rf"(?P<whole>.+)_{SECONDS}-(?:end|{SECONDS})", re.DOTALL)


class VideoPart(NamedTuple):
    """A video, or the part of it that an input asks for.

    Attributes:
        path: of the video.
        start: where the part begins, in seconds; None for the beginning.
        end: where it ends; None for the end of the video.
    """

    path: str
    start: float | None = None
    end: float | None = None

    @property
    def is_whole(self) -> bool:
        return self.start is None and self.end is None

    @property
    def label(self) -> str:
        """What distinguishes its name from that of the whole video, such as ``_5-12.5``."""
        if self.is_whole:
            return ""
        end = "end" if self.end is None else seconds_text(self.end)
        return f"_{seconds_text(self.start or 0.0)}-{end}"


def parse_part(video: str) -> VideoPart:
    """The path of an input, and the part of it that is wanted."""
    found = PART.fullmatch(video) if "#t=" in video else None
    if found is None:
        return VideoPart(video)
    return VideoPart(found["path"], _seconds(found["start"]), _seconds(found["end"]))


def without_label(name: str) -> str:
    """The name of the whole video, given one that ends in the label of a part."""
    found = LABELLED.fullmatch(name)
    return name if found is None else found["whole"]


def _seconds(text: str | None) -> float | None:
    return None if text is None else round(float(text), 6)
