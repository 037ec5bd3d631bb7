"""The command-line interface of the command that lists models."""

from __future__ import annotations

from typing import Annotated

import typer

Word = Annotated[str | None, typer.Argument(help="Part of a name, such as siglip2 or dinov2.")]


def models(word: Word = None) -> None:
    """List models with their input size, features per frame and licence.

    Exit status: 0 success, 2 no name contains WORD.
    """
    from rayclip.commands.models import list_models

    list_models(word, print)
