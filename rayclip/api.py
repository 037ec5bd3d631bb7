"""``rayclip.extract``: the ``extract`` command as a Python function."""

from __future__ import annotations

from typing import Any

from rayclip.options import takes_options
from rayclip.report.display import Display
from rayclip.report.printing import result_printer
from rayclip.report.results import Summary
from rayclip.run import run_extraction
from rayclip.settings import OPTIONS, Settings


@takes_options(OPTIONS.values())
def extract(video_paths: Any = (), **options: Any) -> Summary:
    """Extract the CLIP features of videos.

    Args:
        {options}

    Returns:
        What was done, skipped and failed. A bad video raises nothing: it is listed in ``failed``.

    Raises:
        UsageError: an argument is wrong; nothing was started.
        RunStopped: the run ended early; finished videos are kept.
    """
    settings = Settings(video_paths=video_paths, **options)
    with Display(show=settings.verbose) as display:
        return run_extraction(settings, result_printer(settings), display)
