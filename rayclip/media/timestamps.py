"""Which of a frame's two timestamps to use, and how long the last frame is shown."""

from __future__ import annotations


class BestEffortTimestamp:
    """libavcodec's ``guess_correct_pts``: use pts unless they went back more often than dts.

    ffmpeg uses ``AVFrame.best_effort_timestamp``, which PyAV does not expose.
    """

    def __init__(self) -> None:
        self._last_pts = self._last_dts = -(1 << 63)
        self._faulty_pts = self._faulty_dts = 0

    def update(self, pts: int | None, dts: int | None) -> int | None:
        """The best timestamp of the next frame; None if it has neither."""
        if dts is not None:
            self._faulty_dts += dts <= self._last_dts
            self._last_dts = dts
        elif pts is not None:
            self._last_dts = pts
        if pts is not None:
            self._faulty_pts += pts <= self._last_pts
            self._last_pts = pts
        elif dts is not None:
            self._last_pts = dts
        pts_is_better = self._faulty_pts <= self._faulty_dts or dts is None
        return pts if pts is not None and pts_is_better else dts


def display_duration(duration: int, step: int) -> int:
    """How long the last frame is shown, as ffmpeg estimates it.

    Arguments and result are in units of the stream's time base.

    Args:
        duration: from the packet; 0 if unknown. libavformat also makes up 1, so a much larger
            ``step`` takes precedence over that.
        step: from the previous frame to this one; 0 if this is the first.
    """
    if duration == 1 and step > 2:
        return step
    return duration or step or 1
