"""Options and habits that the commands of the benchmarks share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, TypeVar

import typer

from rayclip.errors import RayclipError, UsageError
from rayclip.model_options import Precision

T = TypeVar("T")
ModelOption = Annotated[
    str, typer.Option(help="A name of OpenAI's, or small, with random weights; or demo.")
]
BatchSizeOption = Annotated[
    int | None, typer.Option(min=1, help="Frames per forward pass; default: rayclip's.")
]
PrecisionOption = Annotated[
    Precision, typer.Option(help="Precision of rayclip; the reference uses its own.")
]
WaysOption = Annotated[list[str] | None, typer.Option("--way", help="Only this row; repeatable.")]
SecondsOption = Annotated[float, typer.Option(help="Duration of each encoder measurement.")]
RoundsOption = Annotated[int, typer.Option(min=1, help="Number of measurements.")]
FolderOption = Annotated[
    Path | None, typer.Option(help="Folder of the generated videos; existing ones are reused.")
]
PictureOption = Annotated[
    Path | None, typer.Option(help="Draw the numbers to this .svg or .png file.")
]
JsonOption = Annotated[
    Path | None, typer.Option("--json", help="Save all numbers to this JSON file.")
]


def chosen(names: list[str] | None, available: list[str], option: str = "--way") -> list[str]:
    """The selected names, in the order of the available ones; all of them by default.

    Raises:
        UsageError: a name does not exist here.
    """
    for name in names or ():
        if name not in available:
            raise UsageError(f"{option} must be one of {', '.join(available)} here, not {name}.")
    return [name for name in available if not names or name in names]


def with_progress(rounds: Iterable[T]) -> list[T]:
    """All rounds; reports each one as it is measured."""
    measured = []
    for result in rounds:
        measured.append(result)
        say(f"measured round {len(measured)}")
    return measured


def check_file(file: Path | None) -> None:
    """Check, before anything is measured, that a file can be saved.

    Raises:
        UsageError: its folder does not exist.
    """
    if file is not None and not file.parent.is_dir():
        raise UsageError(f"There is no folder {file.parent} for {file.name}.")


def check_picture(picture: Path | None) -> None:
    """Check, before anything is measured, that a picture can be drawn.

    Raises:
        UsageError: its folder does not exist, or matplotlib is missing.
    """
    check_file(picture)
    if picture is not None and find_spec("matplotlib") is None:
        raise UsageError("--picture needs matplotlib: pip install 'rayclip[bench]'.")


@contextmanager
def video_folder(folder: Path | None) -> Iterator[Path]:
    """The given folder, or a temporary one."""
    if folder is not None:
        yield folder
        return
    with TemporaryDirectory() as temporary:
        yield Path(temporary)


@contextmanager
def exit_statuses() -> Iterator[None]:
    """End the command with the sentence of an error."""
    try:
        yield
    except RayclipError as error:
        say(str(error))
        raise typer.Exit(error.exit_status) from None


def say(sentence: str) -> None:
    """Print to standard error, apart from the table."""
    typer.echo(f"bench: {sentence}", err=True)
