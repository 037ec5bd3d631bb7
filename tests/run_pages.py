"""Run the examples of some pages, each page in a reader's folder of its own, and say how they end.

A process of its own, so that heavy modules are imported once and Ray can be connected.
"""

from __future__ import annotations

import contextlib
import glob
import io
import json
import os
import runpy
import shlex
import sys
import traceback
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import shapes
from pages import EXAMPLES, ROOT, Example
from run_cli import call

SCENES = {"cat": "circle", "dog": "star"}
ELSEWHERE = {"/shared/": "", "s3://bucket/": "bucket/"}
"""Places of the pages, and where they are in the reader's folder."""


def make_folder(folder: Path) -> None:
    """The files that the pages speak of."""
    for place in ("videos", "sample"):
        (folder / place).mkdir(parents=True)
    for name, shape in SCENES.items():
        content = folder / f"{name}.mp4"
        scenes = [("blue", "square"), ("red", shape), ("green", "cross")]
        shapes.write_video(content, scenes, seconds_per_scene=0.4)
        (folder / "videos" / content.name).symlink_to(content)
    for name in ("v_ZNVhz7ctTq0", "v_GGSY1Qvo990"):
        (folder / f"sample/{name}.mp4").symlink_to(folder / "cat.mp4")
    videos = [f"{name}.mp4" for name in SCENES]
    (folder / "videos.txt").write_text("\n".join(videos))
    pq.write_table(pa.table({"path": videos}), folder / "videos.parquet")
    (folder / "scripts").symlink_to(ROOT / "scripts")


def run_command(line: str, cluster: str | None) -> str:
    """Run one line as a shell would; what it writes to standard output."""
    output = ""
    for part in line.split(" | "):
        output = output or "cat.mp4\n"  # for a list of failures where nothing has failed
        words = shlex.split(part, comments=True)
        for place, here in ELSEWHERE.items():
            words = [word.replace(place, here) for word in words]
        words = [name for word in words for name in (sorted(glob.glob(word)) or [word])]
        output = (
            _run_script(words[1:]) if words[0] == "python" else _run(words[1:], cluster, output)
        )
    return output


def _run(words: list[str], cluster: str | None, stdin: str) -> str:
    if words[0] == "extract":
        if not any(word.endswith("demo") for word in words):  # others are a download of 350 MB
            words += ["--model-name", "demo"]
        if "--address" not in words:
            words += ["--address", "none"]
        elif "auto" in words:
            words[words.index("auto")] = str(cluster)
            words += ["--device", "cpu"]
    ended = call(*words, stdin=stdin)
    assert ended.status == 0, f"status {ended.status}: {ended.stderr}"
    return ended.stdout


def _run_script(words: list[str]) -> str:
    sys.argv = words
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        runpy.run_path(words[0], run_name="__main__")
    return printed.getvalue()


def run_python(example: Example, names: dict[str, Any]) -> str:
    """Run a block after those above it; what it prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(example.text, str(example), "exec"), names)
    return printed.getvalue()


def main(folder: Path, cluster: str | None, pages: Sequence[str]) -> dict[str, Any]:
    """How each example of these pages ends: ``{"page:line": [has it gone well, what it said]}``."""
    ended: dict[str, Any] = {}
    for page, examples in groupby(EXAMPLES, lambda example: example.page):
        if page not in pages:
            continue
        here = folder / page.replace("/", "-")
        make_folder(here)
        os.chdir(here)
        names: dict[str, Any] = {"__name__": "__main__"}
        for example in examples:
            if example.why_not is not None:
                continue
            try:
                if example.language == "python":
                    said = run_python(example, names)
                elif example.language == "sql":
                    said = str(duckdb.sql(example.text))
                else:
                    said = run_command(example.text, cluster)
                ended[str(example)] = [True, said]
            except (Exception, SystemExit):
                ended[str(example)] = [False, traceback.format_exc()]
    return ended


if __name__ == "__main__":
    output, address, *names_of_pages = sys.argv[1:]
    results = main(Path(output), address or None, names_of_pages)
    (Path(output) / "ended.json").write_text(json.dumps(results))
