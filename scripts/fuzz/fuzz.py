"""Run rayclip on damaged videos, and check the outcome of each.

    python scripts/fuzz/fuzz.py  # 2,000 videos
    python scripts/fuzz/fuzz.py --videos 200 --seed 7 --folder ~/videos

Small videos of many formats are generated and damaged: bytes flipped, numbers set to extreme
values, parts cut off, boxes spliced. Three runs of ``rayclip extract`` on Ray take a third each:
every frame, five per second, eight in total. Undamaged videos among them must have the same
features as without damaged ones. Each video must be done or reported, the runs must end, and no
process may use too much memory.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Annotated

import typer

sys.path.append(str(Path(__file__).parents[1]))  # the modules that all scripts share

from fuzz_mutations import MUTATIONS
from fuzz_videos import UNTOUCHED, Mutant, draw_sources, make_mutants
from peak_memory import MemoryWatch, Peak
from peak_memory import report as memory_report
from tables import table

CHOICES = {
    "every frame": (),
    "5 fps": ("--extraction-fps", "5"),
    "8 in all": ("--extraction-total", "8"),
}
"""Frame selection -> its arguments."""
DONE, LOST = "done", "never reported"
WRONG = ("internal_error", LOST)
KEPT_CODES = ("worker_crashed", "worker_hung", "worker_killed", "too_much_memory", *WRONG)
TIMEOUT_S = 3600.0
MAX_BYTES = 2**31
VIDEO_SUFFIXES = {".mp4", ".mkv", ".webm", ".avi", ".mov", ".ts", ".mpg", ".flv", ".gif"}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Fuzzed:
    """The result of one run.

    Attributes:
        outcomes: for each video, ``done``, the code of its failure, or ``never reported``.
        peaks: the peak memory of the processes of the run.
        seconds: wall time.
        wrong: sentences about everything that is wrong.
    """

    outcomes: Mapping[Mutant, str]
    peaks: Sequence[Peak]
    seconds: float
    wrong: Sequence[str]


@app.command(help=__doc__)
def fuzz(
    videos: Annotated[int, typer.Option(min=3, help="Number of damaged videos.")] = 2000,
    seed: Annotated[int, typer.Option(help="Determines the damage.")] = 0,
    folder: Annotated[
        Path | None, typer.Option(help="Damage the videos in this folder, too.")
    ] = None,
) -> None:
    work = Path(mkdtemp(prefix="rayclip-fuzz-"))
    sources = [*draw_sources(work / "sources"), *(_videos_in(folder) if folder else [])]
    mutants = list(make_mutants(sources, videos, seed, work / "videos"))
    typer.echo(f"fuzz: {len(mutants)} videos, from {len(sources)} sources", err=True)
    runs = []
    for place, (name, words) in enumerate(CHOICES.items()):
        share = mutants[place :: len(CHOICES)]
        runs.append(run_fuzz(share, words, work / name.replace(" ", "_")))
        typer.echo(f"fuzz: {name}: {runs[-1].seconds:.0f} s", err=True)
    typer.echo(report(runs))
    wrong = [sentence for run in runs for sentence in run.wrong]
    kept = [m.path for run in runs for m, code in run.outcomes.items() if code in KEPT_CODES]
    for sentence in wrong:
        typer.echo(f"wrong: {sentence}")
    if wrong or kept:
        typer.echo(f"All files and logs are in {work}; look at: {', '.join(p.name for p in kept)}")
    else:
        shutil.rmtree(work)
    raise typer.Exit(bool(wrong))


def run_fuzz(mutants: Sequence[Mutant], choice: Sequence[str], output: Path) -> Fuzzed:
    """Run rayclip on damaged videos with a private Ray."""
    healthy = _features_of_healthy(mutants, choice, output.with_name(f"{output.name}_healthy"))
    listed = output.with_suffix(".txt")
    listed.write_text("\n".join(str(mutant.path) for mutant in mutants))
    started, log = time.monotonic(), output.with_suffix(".log")
    with (
        log.open("w") as file,
        subprocess.Popen(
            _command(["--file-with-video-paths", str(listed), *choice], output),
            stdout=subprocess.DEVNULL,
            stderr=file,
        ) as command,
        MemoryWatch(command.pid) as watch,
    ):
        try:
            status: int | None = command.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            command.kill()
            status = None
    outcomes = {mutant: _outcome(mutant, output) for mutant in mutants}
    outcomes = _with_failures(outcomes, output)
    seconds = time.monotonic() - started
    wrong = [*_find_errors(outcomes, watch.peaks), *_find_differences(healthy, mutants, output)]
    if status not in (0, 1):
        wrong.append(f"the status of the run was {status}: see {log}")
    return Fuzzed(outcomes, watch.peaks, seconds, wrong)


def _command(words: Sequence[str], output: Path) -> list[str]:
    command = [sys.executable, "-m", "rayclip", "extract", "--model-name", "demo", *words]
    return [*command, "--on-extraction", "save_numpy", "--output-path", str(output)]


def _features_of_healthy(
    mutants: Sequence[Mutant], choice: Sequence[str], output: Path
) -> Mapping[Path, bytes | None]:
    """The features of the undamaged videos from a run without Ray.

    None for those that fail: a video of the user's may be bad.
    """
    copies = {mutant.source: mutant for mutant in mutants if mutant.mutation == UNTOUCHED}
    words = [*(str(mutant.path) for mutant in copies.values()), *choice, "--address", "none"]
    if copies:
        subprocess.run(_command(words, output), stderr=subprocess.DEVNULL)
    return {source: _content(_features(copy, output)) for source, copy in copies.items()}


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _features(mutant: Mutant, output: Path) -> Path:
    return output / "clip" / "demo" / f"{mutant.path.stem}_clip.npy"


def _outcome(mutant: Mutant, output: Path) -> str:
    return DONE if _features(mutant, output).exists() else LOST


def _with_failures(outcomes: Mapping[Mutant, str], output: Path) -> dict[Mutant, str]:
    log = output / "clip" / "demo" / "failures.jsonl"
    lines = log.read_text().splitlines() if log.exists() else []
    codes = {failure["video"]: failure["code"] for failure in map(json.loads, lines)}
    return {mutant: codes.get(str(mutant.path), code) for mutant, code in outcomes.items()}


def _find_errors(outcomes: Mapping[Mutant, str], peaks: Sequence[Peak]) -> Iterator[str]:
    for mutant, code in outcomes.items():
        if code in WRONG:
            yield f"{mutant.path.name}: {code}"
    for peak in peaks:
        if peak.own > MAX_BYTES:
            yield f"{peak.name} had {peak.own // 2**20} MB of memory of its own"


def _find_differences(
    healthy: Mapping[Path, bytes | None], mutants: Sequence[Mutant], output: Path
) -> Iterator[str]:
    for mutant in mutants:
        same = healthy.get(mutant.source)
        if mutant.mutation == UNTOUCHED and _content(_features(mutant, output)) != same:
            yield f"{mutant.path.name} has other features than without damaged videos"


def report(runs: Sequence[Fuzzed]) -> str:
    """Tables of the outcomes and of the peak memory of processes."""
    pairs = Counter(
        (mutant.mutation, code) for run in runs for mutant, code in run.outcomes.items()
    )
    codes = Counter(code for run in runs for code in run.outcomes.values())
    mutations = [name for name in (*MUTATIONS, UNTOUCHED) if any(name == m for m, _ in pairs)]
    rows = [
        [code, *(str(pairs[mutation, code]) for mutation in mutations), str(count)]
        for code, count in codes.most_common()
    ]
    sums = [sum(pairs[mutation, code] for code in codes) for mutation in mutations]
    rows.append(["all", *map(str, sums), str(sum(sums))])
    seconds = sum(run.seconds for run in runs)
    peaks = [peak for run in runs for peak in run.peaks]
    return "\n\n".join(
        [
            table(["outcome", *mutations, "all"], rows),
            f"{len(runs)} runs, {seconds:.0f} s",
            memory_report(peaks),
        ]
    )


def _videos_in(folder: Path) -> list[Path]:
    found = (path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES)
    return sorted(path for path in found if path.stat().st_size)


if __name__ == "__main__":
    app()
