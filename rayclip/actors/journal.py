"""What a process notes of its videos in the file of its last words: it is read when the process is
dead, and so nobody has to be told of each video at once."""

from __future__ import annotations

import json
import re

_NOTED = re.compile(r"^([+-])(\d+)(?: (\".*\"))?$", re.MULTILINE)


def note_of_begin(position: int, video: str) -> str:
    """The line for a video, at this place of its group, that is begun."""
    return f"+{position} {json.dumps(video)}"


def note_of_end(position: int) -> str:
    """The line for one that is no more at work."""
    return f"-{position}"


def busy_by(words: str | None) -> dict[int, str] | None:
    """Which videos were, or are, at work, by their places; None where nothing was noted."""
    noted = _NOTED.findall(words or "")
    busy: dict[int, str] = {}
    for sign, position, video in noted:
        if sign == "+":
            busy[int(position)] = json.loads(video)
        else:
            busy.pop(int(position), None)
    return busy if noted else None
