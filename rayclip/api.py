"""``rayclip.extract``: the command line's words, in Python."""

from __future__ import annotations

from typing import Any

from rayclip.options import takes_options
from rayclip.report.printing import printer_of
from rayclip.report.results import Summary
from rayclip.run import run_extraction
from rayclip.settings import OPTIONS, Settings


@takes_options(OPTIONS.values())
def extract(video_paths: Any = (), **options: Any) -> Summary:
    """Extract the CLIP features of videos.

    Args:
        {options}

    Returns:
        What was done, skipped and failed. A bad video is no exception: look at ``failed``.

    Raises:
        UsageError: the call was wrong; nothing was started.
        RunStopped: the run ended early; what was finished is kept.
    """
    settings = Settings(video_paths=video_paths, **options)
    return run_extraction(settings, printer_of(settings), show=settings.verbose)
