"""Which of a frame's two timestamps to believe, and how long it is shown."""

from __future__ import annotations


class BestEffortTimestamp:
    """libavcodec's ``guess_correct_pts``: trust pts unless they have gone back more often than dts.

    PyAV does not expose ``AVFrame.best_effort_timestamp``, which is what ffmpeg works with.
    """

    def __init__(self) -> None:
        self._last_pts = self._last_dts = -(1 << 63)
        self._faulty_pts = self._faulty_dts = 0

    def of(self, pts: int | None, dts: int | None) -> int | None:
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


def shown_for(duration: int, step: int) -> int:
    """How long a frame is shown after which no other comes, as ffmpeg estimates it.

    Args:
        duration: what the packet says; 0 where it says nothing. Of 1, which libavformat also makes
            up, a far larger step since the frame before is believed more.
        step: from the frame before to this one; 0 where it is the first. Both, and the result, in
            units of the stream's time base.
    """
    if duration == 1 and step > 2:
        return step
    return duration or step or 1
