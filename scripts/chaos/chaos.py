"""Kill processes of rayclip runs at random moments, and check that nothing is lost.

    python scripts/chaos/chaos.py                   # 100 rounds
    python scripts/chaos/chaos.py --minutes 480     # overnight
    python scripts/chaos/chaos.py --kinds driver,raylet --seed 7
    python scripts/chaos/chaos.py --interrupts 200  # SIGINT and SIGTERM instead, half without Ray

Each round runs ``rayclip extract`` into its own folder, without Ray or on a Ray of three nodes that
the script starts on this machine. During the run, an encoder, a decoding worker, the raylet of a
node (replaced after the round) or the command itself is killed with SIGKILL; a killed command is
then rerun. A round passes if the output equals that of an undisturbed run bit by bit, no other
files exist, no video was processed twice and the exit status is 0.
"""

from __future__ import annotations

import random
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import cycle, islice
from math import inf
from pathlib import Path
from statistics import median
from tempfile import mkdtemp
from typing import Annotated

import typer

sys.path.append(str(Path(__file__).parents[1]))  # the modules that all scripts share

import shapes
from chaos_checks import find_errors
from chaos_interrupts import ADDRESSES, SIGNALS, Interrupt, random_interrupt, time_run
from chaos_rounds import KINDS, LONE_DRIVER, Outcome, Run, play_round, undisturbed_run
from simulated_nodes import SimulatedNodes
from tables import MISSING, number, table

DRAWN = 16  # videos with different scenes
COPIES = 4  # of each, so that a decoding task has several videos
SIZE = (160, 120)
HEADER = ("killed", "rounds", "too late", "moments", "redone", "wrong", "s, median")
EXPLANATION = """\
moments: when the kills happened, as shares of the time of an undisturbed run.
too late: the run had already ended. redone: videos processed again although they were done.
lone-driver: a run without Ray. raylet: a node with all its processes."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def chaos(
    rounds: Annotated[int, typer.Option(min=1, help="Maximum number of rounds.")] = 100,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="Start no run after this many minutes.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Determines what is killed, and when.")] = 0,
    kinds: Annotated[str, typer.Option(help="What to kill, in turn.")] = ",".join(KINDS),
    interrupts: Annotated[
        int, typer.Option(min=0, help="Interrupt this many runs instead of killing.")
    ] = 0,
) -> None:
    chosen = _parse_kinds(kinds)
    rng = random.Random(seed)
    work = Path(mkdtemp(prefix="rayclip-chaos-"))
    deadline = inf if minutes is None else time.monotonic() + minutes * 60
    if interrupts:
        _interrupt(interrupts, deadline, rng, work)
        return
    outcomes: list[Outcome] = []
    with _runs(chosen, work) as runs:
        try:
            for round_number, kind in enumerate(islice(cycle(chosen), rounds), 1):
                if time.monotonic() > deadline:
                    break
                output = work / f"round{round_number:04}"
                outcome = play_round(kind, runs[kind], output, rng)
                outcomes.append(outcome)
                _say(f"round {round_number}: {_describe(outcome)}")
                if outcome.share is None:  # the machine is less busy than before
                    runs[kind] = replace(runs[kind], seconds=outcome.seconds)
                if not outcome.wrong:
                    shutil.rmtree(output)
        except KeyboardInterrupt:
            _say("interrupted")
    typer.echo(report(outcomes))
    if any(outcome.wrong for outcome in outcomes):
        typer.echo(f"The output folders of failed rounds and all logs are in {work}.")
        raise typer.Exit(1)
    shutil.rmtree(work)


def _interrupt(count: int, deadline: float, rng: random.Random, work: Path) -> None:
    videos = _draw_videos(work / "videos")[:: COPIES // 2]
    seconds = {}
    for address in ADDRESSES:
        for _ in range(2):  # the first run starts with cold caches
            shutil.rmtree(work / "out", ignore_errors=True)
            seconds[address] = time_run(videos, work / "out", address)
        _say(f"undisturbed, with --address {address}: {seconds[address]:.1f} s")
    outcomes: list[Interrupt] = []
    try:
        for place, address in enumerate(islice(cycle(ADDRESSES), count), 1):
            if time.monotonic() > deadline:
                break
            shutil.rmtree(work / "out", ignore_errors=True)
            outcome = random_interrupt(videos, work / "out", address, seconds[address], rng)
            outcomes.append(outcome)
            if outcome.wrong:
                _say(f"{place}: {outcome.number.name} at {outcome.at_s:.2f} s: {outcome.wrong}")
    except KeyboardInterrupt:
        _say("interrupted")
    typer.echo(interrupt_report(outcomes))
    shutil.rmtree(work)
    if any(outcome.wrong for outcome in outcomes):
        raise typer.Exit(1)


def interrupt_report(outcomes: Sequence[Interrupt]) -> str:
    """A table with a row for each address and signal."""
    rows = []
    for address in ADDRESSES:
        for signal in SIGNALS:
            matching = [o for o in outcomes if (o.address, o.number) == (address, signal)]
            ends = [outcome.end_s for outcome in matching if not outcome.is_late]
            cells = [
                len(matching),
                sum(outcome.is_late for outcome in matching),
                sum(bool(outcome.wrong) for outcome in matching),
                number(median(ends), 1) if ends else MISSING,
                number(max(ends), 1) if ends else MISSING,
            ]
            rows.append([f"--address {address}", signal.name, *map(str, cells)])
    return table(("run", "signal", "sent", "too late", "wrong", "end s, median", "max"), rows)


def report(outcomes: Sequence[Outcome]) -> str:
    """A table with a row for each kind of kill."""
    rows = []
    for kind in dict.fromkeys(outcome.kind for outcome in outcomes):
        matching = [outcome for outcome in outcomes if outcome.kind == kind]
        shares = [outcome.share for outcome in matching if outcome.share is not None]
        cells = [
            len(matching),
            len(matching) - len(shares),
            f"{min(shares):.0%} to {max(shares):.0%}" if shares else MISSING,
            sum(outcome.redone for outcome in matching),
            sum(bool(outcome.wrong) for outcome in matching),
            number(median(outcome.seconds for outcome in matching), 1),
        ]
        rows.append([kind, *map(str, cells)])
    return f"{table(HEADER, rows)}\n\n{EXPLANATION}"


@contextmanager
def _runs(kinds: Sequence[str], work: Path) -> Iterator[dict[str, Run]]:
    """The run that each kind of kill disturbs. Undisturbed runs must agree first."""
    videos = _draw_videos(work / "videos")
    cluster = SimulatedNodes() if set(kinds) != {LONE_DRIVER} else None
    try:
        alone = undisturbed_run(videos, None, work / "undisturbed-alone")
        runs = dict.fromkeys(kinds, alone)
        _say(f"undisturbed, a run takes {alone.seconds:.1f} s without Ray")
        if cluster is not None:
            on_ray = undisturbed_run(videos, cluster, work / "undisturbed")
            _say(f"and {on_ray.seconds:.1f} s on Ray")
            for sentence in find_errors(alone.undisturbed, work / "undisturbed"):
                raise RuntimeError(f"Undisturbed runs do not agree: {sentence}.")
            runs |= {kind: on_ray for kind in kinds if kind != LONE_DRIVER}
        yield runs
    finally:
        if cluster is not None:
            cluster.close()


def _draw_videos(folder: Path) -> list[Path]:
    """Videos of 0.4 to 2 seconds."""
    folder.mkdir()
    videos = []
    for place in range(DRAWN):
        drawn = folder / f"video{place:02}_0.mp4"
        scenes = [(colour, shape) for colour in shapes.COLOURS for shape in shapes.SHAPES]
        width, height = SIZE
        shapes.write_video(
            drawn,
            scenes[2 * place : 2 * place + 2],
            width=width,
            height=height,
            seconds_per_scene=(1 + place % 5) / 5,
            seed=place,
        )
        copies = [folder / f"video{place:02}_{copy}.mp4" for copy in range(1, COPIES)]
        for copy in copies:
            shutil.copyfile(drawn, copy)
        videos += [drawn, *copies]
    return videos


def _parse_kinds(names: str) -> list[str]:
    kinds = [name.strip() for name in names.split(",")]
    for kind in kinds:
        if kind not in KINDS:
            _say(f"--kinds must be some of {', '.join(KINDS)}, not {kind}.")
            raise typer.Exit(2)
    return kinds


def _describe(outcome: Outcome) -> str:
    when = "too late" if outcome.share is None else f"at {outcome.share:.0%}"
    verdict = "; ".join(outcome.wrong) or "passed"
    return f"{outcome.kind} killed {when}, {outcome.seconds:.1f} s: {verdict}"


def _say(sentence: str) -> None:
    """Print to standard error, apart from the table."""
    typer.echo(f"chaos: {sentence}", err=True)


if __name__ == "__main__":
    app()
