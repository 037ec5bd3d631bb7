"""``rayclip export``: an export, in words."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rayclip.console import say_to_user, shown
from rayclip.export.export import Exported, export
from rayclip.export.options import ExportOptions
from rayclip.report.progress_words import count, duration


def export_and_say(
    output_path: str,
    target: str,
    options: ExportOptions,
    model_name: str | None,
    storage_options: Mapping[str, Any],
) -> None:
    """Export, and print what the target holds; raises the same errors as :func:`export`."""
    started = time.monotonic()
    exported = export(
        output_path,
        target,
        options,
        model_name=model_name,
        storage_options=storage_options,
        say=lambda line: say_to_user(f"rayclip: {line}"),
    )
    print(sentence(shown(target), exported, time.monotonic() - started))


def sentence(target: str, exported: Exported, seconds: float) -> str:
    """Say what a target holds, and what was done in how many seconds."""
    held = f"{count(exported.videos, 'video')}, {count(exported.rows, 'row')}"
    files = f"{count(exported.files, 'file')}, {exported.size:,} bytes, sizes checked"
    done = f"{count(exported.written, 'video')} written in {duration(seconds)}"
    if exported.removed:
        done += f", {count(exported.removed, 'stale file')} removed"
    return f"{target}: {held}; {files}; {done}"
