"""Run the examples of some pages, each page in its own folder, and report the results.

This is a separate process, so that heavy modules are imported once and it can connect to Ray.
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
from PIL import Image
from run_cli import call, in_this_process
from tar_factories import write_tar

SCENES = {"cat": "circle", "dog": "star"}
PLACES = {"/shared/": "", "s3://bucket/": "bucket/"}
"""Locations in the pages -> locations in the folder."""


def make_folder(folder: Path) -> None:
    """Create the files that the pages mention."""
    for place in ("videos", "sample"):
        (folder / place).mkdir(parents=True)
    for name, shape in SCENES.items():
        content = folder / f"{name}.mp4"
        scenes = [("blue", "square"), ("red", shape), ("green", "cross")]
        shapes.write_video(content, scenes, seconds_per_scene=0.4)
        (folder / "videos" / content.name).symlink_to(content)
    for name in ("v_ZNVhz7ctTq0", "v_GGSY1Qvo990"):
        (folder / f"sample/{name}.mp4").symlink_to(folder / "cat.mp4")
    (folder / "frames").mkdir()
    for number in range(3):
        Image.new("RGB", (64, 48), (80 * number, 0, 0)).save(folder / f"frames/{number}.jpg")
    (folder / "tars").mkdir()
    for number in range(4):
        content = (folder / "cat.mp4").read_bytes()
        write_tar(folder / f"tars/clips-{number:03}.tar", {"0001.mp4": content})
    videos = [f"{name}.mp4" for name in SCENES]
    (folder / "videos.txt").write_text("\n".join(videos))
    pq.write_table(pa.table({"path": videos}), folder / "videos.parquet")
    (folder / "scripts").symlink_to(ROOT / "scripts")


def run_command(line: str, cluster: str | None) -> str:
    """Run one line as a shell would, and return its standard output."""
    output = ""
    for part in line.split(" | "):
        output = output or "cat.mp4\n"  # instead of an empty list of failures
        words = shlex.split(part, comments=True)
        for documented, actual in PLACES.items():
            words = [word.replace(documented, actual) for word in words]
        words = [name for word in words for name in (sorted(glob.glob(word)) or [word])]
        output = (
            _run_script(words[1:]) if words[0] == "python" else _run(words[1:], cluster, output)
        )
    return output


def _run(words: list[str], cluster: str | None, stdin: str) -> str:
    if words[0] == "extract":
        words = _with_demo(words)
        if "--address" not in words:
            words += ["--address", "none"]
        elif "auto" in words:
            words[words.index("auto")] = str(cluster)
            words += ["--device", "cpu"]
    ended = call(*words, stdin=stdin)
    assert ended.status == 0, f"status {ended.status}: {ended.stderr}"
    return ended.stdout


def _with_demo(words: list[str]) -> list[str]:
    """Replace all models by one that is no download of 350 MB."""
    kept, remaining = [], iter(words)
    for word in remaining:
        if word == "--model-name":
            next(remaining)
        elif not word.startswith("model_name="):
            kept.append(word)
    return [*kept, "--model-name", "demo"]


def _run_script(words: list[str]) -> str:
    sys.argv = words
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        runpy.run_path(words[0], run_name="__main__")
    return printed.getvalue()


def run_python(example: Example, names: dict[str, Any]) -> str:
    """Run a block in the namespace of those above it, and return what it prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(example.text, str(example), "exec"), names)
    return printed.getvalue()


def main(folder: Path, cluster: str | None, pages: Sequence[str]) -> dict[str, Any]:
    """Run the examples of these pages; return ``{"page:line": [succeeded, output]}``."""
    results: dict[str, Any] = {}
    for page, examples in groupby(EXAMPLES, lambda example: example.page):
        if page not in pages:
            continue
        page_folder = folder / page.replace("/", "-")
        make_folder(page_folder)
        os.chdir(page_folder)
        names: dict[str, Any] = {"__name__": "__main__"}
        for example in examples:
            if example.skip_reason is not None:
                continue
            try:
                if example.language == "python":
                    output = run_python(example, names)
                elif example.language == "sql":
                    output = str(duckdb.sql(example.text))
                else:
                    output = run_command(example.text, cluster)
                results[str(example)] = [True, output]
            except (Exception, SystemExit):
                results[str(example)] = [False, traceback.format_exc()]
    return results


if __name__ == "__main__":
    output_folder, address, *pages = sys.argv[1:]
    with in_this_process():
        results = main(Path(output_folder), address or None, pages)
    (Path(output_folder) / "results.json").write_text(json.dumps(results))
