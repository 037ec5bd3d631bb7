"""The options of ``Settings`` on the command line."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, Literal, get_origin

import typer

from rayclip.options import CODE, LINK, Option, with_flags
from rayclip.settings import OPTIONS, Settings

Command = Callable[..., None]


def takes_settings(*names: str) -> Callable[[Command], Command]:
    """Give a command these options, and call it with the ``settings`` that they make."""
    chosen = [OPTIONS[name] for name in names]

    def dress(command: Command) -> Command:
        signature = inspect.signature(command, eval_str=True)
        own = [one for one in signature.parameters.values() if one.name != "settings"]
        parameters = [*own, *map(as_parameter, chosen)]

        @wraps(command)
        def run(**words: Any) -> None:
            given = {
                one.name: one.parse(word) if one.parse else word
                for one in chosen
                if (word := words.pop(one.name)) is not None
            }
            command(settings=Settings(**given), **words)

        dressed: Any = run
        dressed.__signature__ = inspect.Signature(parameters)
        dressed.__annotations__ = {one.name: one.annotation for one in parameters}
        return run

    return dress


def as_parameter(one: Option) -> inspect.Parameter:
    """What typer makes an option, or the arguments, of."""
    text = as_help(one).replace("[", r"\[")  # else rich takes it for markup
    return inspect.Parameter(
        one.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=one.default or None,
        annotation=Annotated[
            word_type(one),
            typer.Argument(help=text)
            if one.name == "video_paths"
            else typer.Option(
                one.flag,
                help=text,
                metavar=metavar(one),
                rich_help_panel=one.group.capitalize(),
            ),
        ],
    )


def as_help(one: Option) -> str:
    """An option's summary as plain text."""
    return CODE.sub(r"\1", LINK.sub(r"\1", with_flags(one.summary, OPTIONS)))


def metavar(one: Option) -> str:
    """What stands for an option's value in its help."""
    if one.is_switch:
        return ""
    if one.kind in (int, int | None):
        return "N"
    return one.metavar or ("WORD" if get_origin(one.kind) is Literal else "NAME")


def word_type(one: Option) -> Any:
    """What the parser makes of a word; ``Settings`` checks the value, and says it in a sentence."""
    if one.is_switch or one.kind in (int, int | None):
        return one.kind
    return list[str] | None if get_origin(one.kind) is tuple else str | None
