"""The command line: parses arguments into Settings and calls the command. Nothing else."""

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
from rayclip.commands.folder_commands import compact, export, failures, status
from rayclip.commands.model_commands import models
from rayclip.commands.search_commands import index, report, search
from rayclip.console import open_standard_streams, say_to_user
from rayclip.errors import RayclipError, UsageError
from rayclip.interrupts import INTERRUPTED, Terminated, ending_status, ignore_signals
from rayclip.key_value_args import drop_retired, translate_key_values
from rayclip.serve.command import serve
from rayclip.settings import OPTIONS, Settings

SOME_FAILED = 1
DONE = (0, SOME_FAILED)

SWITCHES = [option.name for option in OPTIONS.values() if option.is_switch]
VALUES = [name for name in OPTIONS if name not in (*SWITCHES, "video_paths")]

app = typer.Typer(
    help="CLIP features of videos, on Ray.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"token_normalize_func": lambda name: name.replace("_", "-")},
)


def _print_version(is_requested: bool) -> None:
    if is_requested:
        from importlib import metadata

        typer.echo(f"rayclip {metadata.version('rayclip')}")
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


class KeyValueCommand(TyperCommand):
    """A command that also accepts ``key=value`` arguments."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        with _exit_statuses():
            args = translate_key_values(drop_retired(args), VALUES, SWITCHES)
        return super().parse_args(ctx, args)


@takes_settings(*OPTIONS)
def extract(settings: Settings) -> None:
    r"""Extract the CLIP features of videos.

    Arguments can also be given as in video_features: model_name="ViT-B/32"
    video_paths="\[a.mp4, b.mp4]" show_pred=true.

    Exit status: 0 success, 1 some videos failed, 2 usage error, 3 the run stopped
    early, 130 interrupted, 143 terminated, 129 terminal closed.
    """
    from rayclip.report.display import Display

    with Display() as display:  # before slow imports
        from rayclip.report.printing import result_printer
        from rayclip.run import run_extraction

        printer = result_printer(settings)
        with _only_results_on_standard_output(settings.verbose):
            summary = run_extraction(settings, printer, display)
    if summary.failed or summary.failed_before:
        raise typer.Exit(SOME_FAILED)


def run() -> None:
    """Run the command line and exit with its status, even if signals arrive."""
    open_standard_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names may not fit the encoding
    try:
        with _exit_statuses():
            app()
    except typer.Exit as end:
        status = end.exit_code
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    status = ending_status() or status  # typer turns an interrupt into 1
    ignore_signals()
    if status in DONE and "ray" not in sys.modules:
        sys.exit(status)
    # Skip an orderly exit: running threads of libraries may abort it, as Ray's have done after
    # ray.shutdown(), and Ray would wait for processes that died.
    _flush_standard_output()
    os._exit(status)


@contextmanager
def _exit_statuses() -> Iterator[None]:
    """Turn errors and interrupts into one sentence and an exit status.

    Other exceptions are bugs and keep their traceback.
    """
    try:
        yield
    except RayclipError as error:
        sentence, status = str(error), error.exit_status
    except KeyboardInterrupt:
        sentence, status = "interrupted", INTERRUPTED
    except (Terminated, Exception) as error:
        if (ended := ending_status()) is None:
            raise  # a bug; after a signal, an exception into which compiled code turned it
        sentence, status = ("terminated" if isinstance(error, Terminated) else "interrupted"), ended
    else:
        return
    say_to_user(f"rayclip: {sentence}")
    _flush_standard_output()
    raise typer.Exit(status)


def _with_exit_statuses(command: Callable[..., None]) -> Callable[..., None]:
    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        with _exit_statuses():
            _check_working_folder()
            command(*args, **kwargs)

    return run


@contextmanager
def _only_results_on_standard_output(verbose: bool) -> Iterator[None]:
    """Redirect what others print: Ray always writes to standard output when a worker dies."""
    with open(os.devnull, "w") as devnull:
        target = sys.stderr if verbose else devnull
        with redirect_stdout(target if sys.stdout else None):
            yield


def _flush_standard_output() -> None:
    """If standard output cannot be written, discard it: Python would report the error at exit."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _check_working_folder() -> None:
    try:
        os.getcwd()
    except FileNotFoundError:
        raise UsageError("The working folder no longer exists: change to another one.") from None


app.command(cls=KeyValueCommand)(_with_exit_statuses(extract))
for _command in (search, serve, index, report, status, failures, compact, export, models):
    app.command()(_with_exit_statuses(_command))
