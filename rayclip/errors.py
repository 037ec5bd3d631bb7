"""What can go wrong, as sentences for people and codes for machines."""

from __future__ import annotations

from typing import Literal

Stage = Literal["open", "read", "decode", "encode", "write"]


class RayclipError(Exception):
    """A whole command or call that cannot go on. The message is one sentence for the user."""

    exit_status = 1


class UsageError(RayclipError):
    """The command or call was wrong; nothing was started."""

    exit_status = 2


class RunStopped(RayclipError):
    """The run ended early; what was finished before is kept."""

    exit_status = 3


class WeightsUnavailable(RayclipError):
    """A model's weights cannot be had: the network, a mirror, a checksum."""

    exit_status = 3


class VideoError(Exception):
    """One video failed; the others go on.

    Attributes:
        stage: where it failed: open, read, decode, encode or write.
        code: a short stable word for machines, e.g. ``no_video_stream``.
        message: one sentence for people.
    """

    def __init__(self, stage: Stage, code: str, message: str) -> None:
        super().__init__(stage, code, message)
        self.stage: Stage = stage
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return self.message


class BadVideo(VideoError):
    """The video itself is at fault: it cannot be opened (``open``) or decoded (``decode``)."""


class CredentialsRefused(VideoError):
    """Reading a video was refused, as it will be for every other one of the same storage."""
