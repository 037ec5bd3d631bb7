"""Kill what a run of rayclip is made of, at random moments, and look whether anything is lost.

    python scripts/chaos/chaos.py                   # 100 rounds
    python scripts/chaos/chaos.py --minutes 480     # for a night
    python scripts/chaos/chaos.py --kinds driver,raylet --seed 7
    python scripts/chaos/chaos.py --interrupts 200  # SIGINT and SIGTERM instead, half without Ray

Every round is a run of ``rayclip extract`` into a folder of its own, on a Ray of three nodes that
the script starts on this machine, or without Ray. In its middle an encoder, a decoding worker, the
raylet of a node (a new node comes after the round) or the command itself is killed with SIGKILL;
after the last, the command is given again. A round is right when every video is there with the
bits of an undisturbed run, with nothing beside it, nothing done twice and the exit status 0.
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
from pathlib import Path
from statistics import median
from tempfile import mkdtemp
from typing import Annotated

import typer

sys.path.append(str(Path(__file__).parents[1]))  # the modules that all scripts share

import shapes
from chaos_checks import what_is_wrong
from chaos_interrupts import ADDRESSES, SIGNALS, Interrupt, random_interrupt, seconds_of
from chaos_rounds import KINDS, LONE_DRIVER, Outcome, Run, play_round, undisturbed_run
from pretended_nodes import PretendedNodes
from tables import MISSING, number, table

DRAWN = 16  # videos, each with scenes of its own
COPIES = 4  # of each, so that a decoding task has several videos
SIZE = (160, 120)
HEADER = ("killed", "rounds", "too late", "moments", "done again", "wrong", "s, median")
EXPLANATION = """\
moments: of the kills, as shares of the time that an undisturbed run takes.
too late: the run had ended. done again: videos, though they were done before the kill.
lone-driver: a run without Ray. raylet: a node with all that was on it."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def chaos(
    rounds: Annotated[int, typer.Option(min=1, help="So many at most.")] = 100,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="No round begins after so many.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides what is killed, and when.")] = 0,
    kinds: Annotated[str, typer.Option(help="What is killed, in turn.")] = ",".join(KINDS),
    interrupts: Annotated[
        int, typer.Option(min=0, help="Interrupt so many runs instead of killing.")
    ] = 0,
) -> None:
    chosen = _kinds_named(kinds)
    rng = random.Random(seed)
    work = Path(mkdtemp(prefix="rayclip-chaos-"))
    if interrupts:
        _interrupt(interrupts, rng, work)
        return
    outcomes: list[Outcome] = []
    with _runs(chosen, work) as runs:
        until = None if minutes is None else time.monotonic() + minutes * 60
        try:
            for place, kind in enumerate(islice(cycle(chosen), rounds), 1):
                if until is not None and time.monotonic() > until:
                    break
                output = work / f"round{place:04}"
                outcome = play_round(kind, runs[kind], output, rng)
                outcomes.append(outcome)
                _say(f"round {place}: {_described(outcome)}")
                if outcome.share is None:  # the machine has less to do than it had
                    runs[kind] = replace(runs[kind], seconds=outcome.seconds)
                if not outcome.wrong:
                    shutil.rmtree(output)
        except KeyboardInterrupt:
            _say("interrupted")
    typer.echo(report(outcomes))
    if any(outcome.wrong for outcome in outcomes):
        typer.echo(f"The output folders of what was wrong, and all logs, are in {work}.")
        raise typer.Exit(1)
    shutil.rmtree(work)


def _interrupt(count: int, rng: random.Random, work: Path) -> None:
    videos = _draw_videos(work / "videos")[:: COPIES // 2]
    seconds = {}
    for address in ADDRESSES:
        for _ in range(2):  # the first one finds nothing in the caches of the system
            shutil.rmtree(work / "out", ignore_errors=True)
            seconds[address] = seconds_of(videos, work / "out", address)
        _say(f"undisturbed, with --address {address}: {seconds[address]:.1f} s")
    outcomes = []
    for place, address in enumerate(islice(cycle(ADDRESSES), count), 1):
        shutil.rmtree(work / "out", ignore_errors=True)
        outcome = random_interrupt(videos, work / "out", address, seconds[address], rng)
        outcomes.append(outcome)
        if outcome.wrong:
            _say(f"{place}: {outcome.number.name} at {outcome.at_s:.2f} s: {outcome.wrong}")
    typer.echo(report_of_interrupts(outcomes))
    shutil.rmtree(work)
    if any(outcome.wrong for outcome in outcomes):
        raise typer.Exit(1)


def report_of_interrupts(outcomes: Sequence[Interrupt]) -> str:
    """A table with a row for each address and signal."""
    rows = []
    for address in ADDRESSES:
        for one in SIGNALS:
            alike = [o for o in outcomes if (o.address, o.number) == (address, one)]
            ends = [outcome.end_s for outcome in alike if not outcome.is_late]
            cells = [
                len(alike),
                sum(outcome.is_late for outcome in alike),
                sum(bool(outcome.wrong) for outcome in alike),
                number(median(ends), 1) if ends else MISSING,
                number(max(ends), 1) if ends else MISSING,
            ]
            rows.append([f"--address {address}", one.name, *map(str, cells)])
    return table(("run", "signal", "sent", "too late", "wrong", "end s, median", "most"), rows)


def report(outcomes: Sequence[Outcome]) -> str:
    """A table with a row for each kind of kill."""
    rows = []
    for kind in dict.fromkeys(outcome.kind for outcome in outcomes):
        alike = [outcome for outcome in outcomes if outcome.kind == kind]
        shares = [outcome.share for outcome in alike if outcome.share is not None]
        cells = [
            len(alike),
            len(alike) - len(shares),
            f"{min(shares):.0%} to {max(shares):.0%}" if shares else MISSING,
            sum(outcome.redone for outcome in alike),
            sum(bool(outcome.wrong) for outcome in alike),
            number(median(outcome.seconds for outcome in alike), 1),
        ]
        rows.append([kind, *map(str, cells)])
    return f"{table(HEADER, rows)}\n\n{EXPLANATION}"


@contextmanager
def _runs(kinds: Sequence[str], work: Path) -> Iterator[dict[str, Run]]:
    """What each kind of kill is to disturb; the runs are tried first, and must agree."""
    videos = _draw_videos(work / "videos")
    cluster = PretendedNodes() if set(kinds) != {LONE_DRIVER} else None
    try:
        alone = undisturbed_run(videos, None, work / "undisturbed-alone")
        runs = dict.fromkeys(kinds, alone)
        _say(f"undisturbed, a run takes {alone.seconds:.1f} s without Ray")
        if cluster is not None:
            on_ray = undisturbed_run(videos, cluster, work / "undisturbed")
            _say(f"and {on_ray.seconds:.1f} s on Ray")
            for sentence in what_is_wrong(alone.undisturbed, work / "undisturbed"):
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


def _kinds_named(names: str) -> list[str]:
    kinds = [name.strip() for name in names.split(",")]
    for kind in kinds:
        if kind not in KINDS:
            _say(f"--kinds must be some of {', '.join(KINDS)}, not {kind}.")
            raise typer.Exit(2)
    return kinds


def _described(outcome: Outcome) -> str:
    when = "too late" if outcome.share is None else f"at {outcome.share:.0%}"
    what = "; ".join(outcome.wrong) or "right"
    return f"{outcome.kind} killed {when}, {outcome.seconds:.1f} s: {what}"


def _say(sentence: str) -> None:
    """Tell people, apart from the table."""
    typer.echo(f"chaos: {sentence}", err=True)


if __name__ == "__main__":
    app()
