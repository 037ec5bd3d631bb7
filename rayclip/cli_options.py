"""Command-line options, generated from ``Settings``."""

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
    """Decorate a command: add these options, and pass their values as ``settings``."""
    options = [OPTIONS[name] for name in names]

    def decorate(command: Command) -> Command:
        signature = inspect.signature(command, eval_str=True)
        own = [p for p in signature.parameters.values() if p.name != "settings"]
        parameters = [*own, *map(as_parameter, options)]

        @wraps(command)
        def run(**arguments: Any) -> None:
            given = {
                option.name: option.parse(value) if option.parse else value
                for option in options
                if (value := arguments.pop(option.name)) is not None
            }
            command(settings=Settings(**given), **arguments)

        decorated: Any = run
        decorated.__signature__ = inspect.Signature(parameters)
        decorated.__annotations__ = {p.name: p.annotation for p in parameters}
        return run

    return decorate


def as_parameter(option: Option) -> inspect.Parameter:
    """The parameter from which typer builds an option, or the arguments."""
    text = as_help(option).replace("[", r"\[")  # otherwise rich reads it as markup
    return inspect.Parameter(
        option.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=[option.default] if is_list(option) and option.default else option.default or None,
        annotation=Annotated[
            argument_type(option),
            typer.Argument(help=text)
            if option.name == "video_paths"
            else typer.Option(
                option.flag,
                help=text,
                metavar=metavar(option),
                rich_help_panel=option.group.capitalize(),
            ),
        ],
    )


def as_help(option: Option) -> str:
    """The summary of an option as plain text."""
    return CODE.sub(r"\1", LINK.sub(r"\1", with_flags(option.summary, OPTIONS)))


def metavar(option: Option) -> str:
    """The placeholder for the value of an option in its help."""
    if option.is_switch:
        return ""
    if option.kind in (int, int | None):
        return "N"
    return option.metavar or ("WORD" if get_origin(option.kind) is Literal else "NAME")


def argument_type(option: Option) -> Any:
    """The type that typer parses. Other values stay text: ``Settings`` has clearer messages."""
    if option.is_switch or option.kind in (int, int | None):
        return option.kind
    return list[str] | None if is_list(option) else str | None


def is_list(option: Option) -> bool:
    """Whether an option may be given several times."""
    return get_origin(option.kind) is tuple
