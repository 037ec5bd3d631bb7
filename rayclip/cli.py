"""The command line: words become Settings, and a call. Nothing is decided here."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from functools import wraps
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from rayclip.cli_options import takes_settings
from rayclip.commands.folder_commands import compact, failures, status
from rayclip.console import open_standard_streams, say_to_user
from rayclip.errors import RayclipError, UsageError
from rayclip.interrupts import INTERRUPTED, Terminated, ending_status, ignore_signals
from rayclip.key_value_args import translate_key_values
from rayclip.settings import OPTIONS, Settings

SOME_FAILED = 1
DONE = (0, SOME_FAILED)

SWITCHES = [one.name for one in OPTIONS.values() if one.is_switch]
VALUES = [name for name in OPTIONS if name not in (*SWITCHES, "video_paths")]

app = typer.Typer(
    help="CLIP features of videos, on Ray.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"token_normalize_func": lambda name: name.replace("_", "-")},
)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        from importlib.metadata import version as version_of

        typer.echo(f"rayclip {version_of('rayclip')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    pass


class Words(TyperCommand):
    """A command that also understands ``key=value`` words."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        with _exit_statuses():
            args = translate_key_values(args, VALUES, SWITCHES)
        return super().parse_args(ctx, args)


@takes_settings(*OPTIONS)
def extract(settings: Settings) -> None:
    r"""Extract the CLIP features of videos.

    Arguments can also be given as in video_features: model_name="ViT-B/32"
    video_paths="\[a.mp4, b.mp4]" show_pred=true.

    Exit status: 0 all done, 1 some videos failed, 2 the command was wrong,
    3 the run stopped early, 130 interrupted, 143 terminated, 129 the terminal was
    closed.
    """
    from rayclip.report.printing import printer_of
    from rayclip.run import run_extraction

    printer = printer_of(settings)
    with _only_results_on_standard_output(settings.verbose):
        summary = run_extraction(settings, printer)
    if summary.failed:
        raise typer.Exit(SOME_FAILED)


def run() -> None:
    """Run the command line and exit with its status, whatever signals come."""
    open_standard_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names and texts in any encoding
    try:
        with _exit_statuses():
            app()
    except typer.Exit as end:
        status = end.exit_code
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    status = ending_status() or status  # typer makes 1 of an interrupt
    ignore_signals()
    if status in DONE:
        sys.exit(status)
    # At once: threads of libraries that are still at work would abort an orderly exit of Python,
    # and Ray would wait for processes that died.
    _let_go_of_standard_output()
    os._exit(status)


@contextmanager
def _exit_statuses() -> Iterator[None]:
    """Every way out of a command is one sentence and a status; tracebacks are for bugs of ours."""
    try:
        yield
    except RayclipError as error:
        sentence, status = str(error), error.exit_status
    except KeyboardInterrupt:
        sentence, status = "interrupted", INTERRUPTED
    except (Terminated, Exception) as error:
        if (ended := ending_status()) is None:
            raise  # an Exception is what compiled code makes of an interrupt, or a bug of ours
        sentence, status = ("terminated" if isinstance(error, Terminated) else "interrupted"), ended
    else:
        return
    say_to_user(f"rayclip: {sentence}")
    _let_go_of_standard_output()
    raise typer.Exit(status)


def _in_sentences(command: Callable[..., None]) -> Callable[..., None]:
    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        with _exit_statuses():
            _stand_somewhere()
            command(*args, **kwargs)

    return run


@contextmanager
def _only_results_on_standard_output(verbose: bool) -> Iterator[None]:
    """Ray prints there when a worker died, whatever it is told."""
    with open(os.devnull, "w") as nowhere:
        elsewhere = sys.stderr if verbose else nowhere
        with redirect_stdout(elsewhere if sys.stdout else None):
            yield


def _let_go_of_standard_output() -> None:
    """Where it cannot be written, Python would complain once more at the very end."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _stand_somewhere() -> None:
    try:
        os.getcwd()
    except FileNotFoundError:
        raise UsageError("The working folder does not exist any more: change to another.") from None


app.command(cls=Words)(_in_sentences(extract))
for _command in (status, failures, compact):
    app.command()(_in_sentences(_command))
