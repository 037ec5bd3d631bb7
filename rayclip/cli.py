"""The command line: words become Settings, and a call. Nothing is decided here."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Annotated, Any

import typer

from rayclip.errors import RayclipError, UsageError
from rayclip.settings import Settings, extraction_fps_of

SOME_FAILED = 1
INTERRUPTED = 130
TERMINATED = 143

app = typer.Typer(
    help="CLIP features of videos, on Ray.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class Terminated(BaseException):
    """SIGTERM, as an exception, so that everything is put away on the way out."""


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as version_of

        typer.echo(f"rayclip {version_of('rayclip')}")
        raise typer.Exit


def _option(name: str, text: str) -> Any:
    dashed = f"--{name.replace('_', '-')}"
    names = [dashed] if "_" not in name else [dashed, f"--{name}"]
    return typer.Option(*names, help=text)


@app.command()
def extract(
    video_paths: Annotated[list[str] | None, typer.Argument(help="Videos: paths or URLs.")] = None,
    file_with_video_paths: Annotated[
        str | None,
        _option(
            "file_with_video_paths", "A list: text, one per line, or parquet with column path."
        ),
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
    extraction_fps: Annotated[
        str | None,
        _option("extraction_fps", "Frames per second, e.g. 5 or 30000/1001; default: every frame."),
    ] = None,
    device: Annotated[
        str | None,
        _option("device", "cpu, cuda or cuda:N; by default the GPUs, else the CPU."),
    ] = None,
    on_extraction: Annotated[str, _option("on_extraction", "print or save_numpy.")] = "print",
    output_path: Annotated[
        str, _option("output_path", "Folder of the features: a path or an fsspec URL.")
    ] = "./output",
    address: Annotated[
        str | None,
        _option(
            "address", "Which Ray: auto, host:port, or none; default: RAY_ADDRESS or a private one."
        ),
    ] = None,
    encoders: Annotated[
        int | None,
        _option("encoders", "Encoder actors; by default one a GPU, or one for 8 CPU cores."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Make again what is there already.")
    ] = False,
    max_attempts: Annotated[
        int,
        _option("max_attempts", "How often a video may take its worker process down."),
    ] = 3,
    storage_options: Annotated[
        str | None, _option("storage_options", "For fsspec, as a JSON object.")
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Show Ray's messages and the encoders' figures.")
    ] = False,
) -> None:
    """Extract the CLIP features of videos.

    Exit status: 0 all done, 1 some videos failed, 2 the command was wrong, 3 the run stopped
    early, 130 interrupted, 143 terminated.
    """
    with _exit_statuses():
        settings = Settings(
            video_paths=tuple(video_paths or ()),
            file_with_video_paths=file_with_video_paths,
            model_name=model_name,
            weights=weights,
            batch_size=batch_size,
            extraction_fps=extraction_fps_of(extraction_fps),
            device=device,
            on_extraction=on_extraction,  # type: ignore[arg-type]  # Settings looks at it
            output_path=output_path,
            address=address,
            encoders=encoders,
            overwrite=overwrite,
            max_attempts=max_attempts,
            storage_options=_storage_options(storage_options),
            verbose=verbose,
        )
        from rayclip.pipeline import run_extraction
        from rayclip.printing import print_result

        summary = run_extraction(settings, None if settings.saves else print_result)
        if summary.failed:
            raise typer.Exit(SOME_FAILED)


def main() -> None:
    """Run the command line and exit with its status."""
    signal.signal(signal.SIGTERM, _terminate)
    app()


@contextmanager
def _exit_statuses() -> Iterator[None]:
    """Every way out of a command is one sentence and a status; tracebacks are for bugs of ours."""
    try:
        yield
    except RayclipError as error:
        sentence, status = str(error), error.exit_status
    except KeyboardInterrupt:
        sentence, status = "interrupted", INTERRUPTED
    except Terminated:
        sentence, status = "terminated", TERMINATED
    else:
        return
    print(f"rayclip: {sentence}", file=sys.stderr)
    raise typer.Exit(status)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


def _storage_options(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        options = json.loads(text)
    except ValueError:
        options = None
    if not isinstance(options, dict):
        raise UsageError('storage_options must be a JSON object such as {"anon": true}.')
    return options
