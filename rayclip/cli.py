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

from rayclip.commands.folder_commands import compact, failures, status
from rayclip.errors import RayclipError, UsageError
from rayclip.interrupts import INTERRUPTED, Terminated, ending_status, ignore_signals
from rayclip.messages import open_standard_streams, say_to_user
from rayclip.settings import Settings, extraction_fps_of, storage_options_of
from rayclip.words import names_of, options_of, texts_of

SOME_FAILED = 1
DONE = (0, SOME_FAILED)

VALUES: list[str] = []
SWITCHES: list[str] = []

app = typer.Typer(
    help="CLIP features of videos, on Ray.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
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


def _option(name: str, text: str) -> Any:
    VALUES.append(name)
    return typer.Option(*names_of(name), help=text)


def _switch(name: str, text: str) -> Any:
    SWITCHES.append(name)
    return typer.Option(*names_of(name), help=text)


class Words(TyperCommand):
    """A command that also understands ``key=value`` words."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        with _exit_statuses():
            args = options_of(args, VALUES, SWITCHES)
        return super().parse_args(ctx, args)


@app.command(cls=Words)
def extract(
    video_paths: Annotated[
        list[str] | None,
        typer.Argument(help="Videos, folders of them or patterns ('a/**/*.mp4'): paths or URLs."),
    ] = None,
    file_with_video_paths: Annotated[
        str | None,
        _option(
            "file_with_video_paths",
            "A list: text, one per line (-: standard input), or .csv, .tsv, .jsonl, .parquet.",
        ),
    ] = None,
    path_column: Annotated[
        str, _option("path_column", "Such a table's column of paths, or key in .jsonl.")
    ] = "path",
    limit: Annotated[
        int | None, _option("limit", "Only the first so many inputs; says how long all would take.")
    ] = None,
    model_name: Annotated[
        str, _option("model_name", "A name of clip.available_models(), custom or demo.")
    ] = "ViT-B/32",
    weights: Annotated[
        str | None, _option("weights", "The checkpoint of --model-name custom.")
    ] = None,
    batch_size: Annotated[
        int | None,
        _option("batch_size", "Frames per forward pass; by default the device decides."),
    ] = None,
    precision: Annotated[
        str, _option("precision", "auto (fp16 on GPUs, fp32 on CPUs), fp32, fp16 or bf16.")
    ] = "auto",
    compile: Annotated[  # noqa: A002  # the option's name
        bool, _switch("compile", "Compile the model first: up to minutes, and a C++ compiler.")
    ] = False,
    extraction_fps: Annotated[
        str | None,
        _option("extraction_fps", "Frames per second, e.g. 5 or 30000/1001; default: every frame."),
    ] = None,
    extraction_total: Annotated[
        int | None,
        _option("extraction_total", "So many frames of each video, evenly spaced."),
    ] = None,
    device: Annotated[
        str | None,
        _option("device", "cpu, cuda or cuda:N; by default the GPUs, else the CPU."),
    ] = None,
    on_extraction: Annotated[
        str, _option("on_extraction", "print, save_numpy, save_pickle or save_parquet.")
    ] = "print",
    output_path: Annotated[
        str, _option("output_path", "Folder of the features: a path or an fsspec URL.")
    ] = "./output",
    keep_tmp_files: Annotated[
        bool,
        _switch("keep_tmp_files", "Keep videos re-encoded at the frame rate, and use them."),
    ] = False,
    tmp_path: Annotated[str, _option("tmp_path", "Local folder of re-encoded videos.")] = "./tmp",
    show_pred: Annotated[
        bool, _switch("show_pred", "Print which texts fit each frame best.")
    ] = False,
    pred_texts: Annotated[
        list[str] | None,
        _option("pred_texts", "Such a text, or a list in brackets; default: Kinetics 400."),
    ] = None,
    feature_dtype: Annotated[
        str, _option("feature_dtype", "float32 or float16, of saved features.")
    ] = "float32",
    resize: Annotated[
        str, _option("resize", "pil (OpenAI's, to the byte) or fast (up to 2 levels off).")
    ] = "pil",
    naming: Annotated[
        str, _option("naming", "stem, or path: in folders like the input's.")
    ] = "stem",
    address: Annotated[
        str | None,
        _option(
            "address",
            "Which Ray: auto, host:port, local (a private one) or none; default: RAY_ADDRESS, "
            "else local.",
        ),
    ] = None,
    encoders: Annotated[
        int | None,
        _option("encoders", "Encoder actors; by default one a GPU, or one for 8 CPU cores."),
    ] = None,
    encoders_per_gpu: Annotated[
        int, _option("encoders_per_gpu", "Encoder actors that share a GPU.")
    ] = 1,
    overwrite: Annotated[bool, _switch("overwrite", "Make again what is there already.")] = False,
    max_attempts: Annotated[
        int,
        _option("max_attempts", "How often a video may crash or hang its worker process."),
    ] = 3,
    storage_options: Annotated[
        str | None, _option("storage_options", "For fsspec, as a JSON object.")
    ] = None,
    verbose: Annotated[
        bool, _switch("verbose", "Show Ray's messages and the encoders' figures.")
    ] = False,
) -> None:
    r"""Extract the CLIP features of videos.

    Arguments can also be given as in video_features: model_name="ViT-B/32"
    video_paths="\[a.mp4, b.mp4]" show_pred=true.

    Exit status: 0 all done, 1 some videos failed, 2 the command was wrong, 3 the run stopped
    early, 130 interrupted, 143 terminated, 129 the terminal was closed.
    """
    with _exit_statuses():
        _stand_somewhere()
        settings = Settings(
            video_paths=tuple(video_paths or ()),
            file_with_video_paths=file_with_video_paths,
            path_column=path_column,
            limit=limit,
            model_name=model_name,
            weights=weights,
            batch_size=batch_size,
            precision=precision,  # type: ignore[arg-type]
            compile=compile,
            extraction_fps=extraction_fps_of(extraction_fps),
            extraction_total=extraction_total,
            device=device,
            on_extraction=on_extraction,  # type: ignore[arg-type]  # Settings looks at it
            output_path=output_path,
            keep_tmp_files=keep_tmp_files,
            tmp_path=tmp_path,
            show_pred=show_pred,
            pred_texts=tuple(text for given in pred_texts or () for text in texts_of(given)),
            feature_dtype=feature_dtype,  # type: ignore[arg-type]
            resize=resize,  # type: ignore[arg-type]
            naming=naming,  # type: ignore[arg-type]
            address=address,
            encoders=encoders,
            encoders_per_gpu=encoders_per_gpu,
            overwrite=overwrite,
            max_attempts=max_attempts,
            storage_options=storage_options_of(storage_options),
            verbose=verbose,
        )
        from rayclip.report.printing import printer_of
        from rayclip.run import run_extraction

        printer = printer_of(settings)
        with _only_results_on_standard_output(verbose):
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


for _command in (status, failures, compact):
    app.command()(_in_sentences(_command))
