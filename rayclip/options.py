"""Declare options. :class:`rayclip.settings.Settings` declares each one once.

The command line (:mod:`rayclip.cli_options`), the Python API (:func:`takes_options`) and
``docs/options.md`` follow from these declarations.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field, dataclass, field, fields
from functools import wraps
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from rayclip.console import say_to_user
from rayclip.errors import UsageError
from rayclip.key_value_args import RETIRED, nearest

Group = Literal["input", "frames", "model", "output", "cluster"]
GROUPS: tuple[Group, ...] = get_args(Group)
LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
CODE = re.compile(r"`([^`]*)`")
DOCSTRING_WIDTH = 92
PLACEHOLDER = "    {options}"

T = TypeVar("T")


@dataclass(frozen=True)
class Option:
    """One option.

    Attributes:
        name: the name with underscores.
        kind: the type of its value in ``Settings``.
        default: the default in ``Settings``; None for a mapping.
        group: the panel of ``--help`` and the section of the docs.
        summary: text for ``--help``, docstrings and docs. It may have links and code in Markdown;
            names of other options are code.
        details: more sentences, for docstrings and docs only.
        metavar: the placeholder of the value in ``--help``, unless its type is enough.
        accepts: the type that Python callers may pass, if it is wider than ``kind``.
        convert: converts a caller's value to the one in ``Settings``.
        parse: converts command line arguments to a value that a Python caller would pass.
        encode: whether ``rayclip.encode`` has this option, too.
        compared: whether one folder must not mix features with different values of it.
    """

    name: str
    kind: Any
    default: Any
    group: Group
    summary: str
    details: str = ""
    metavar: str | None = None
    accepts: Any = None
    convert: Callable[[Any], Any] | None = None
    parse: Callable[[Any], Any] | None = None
    encode: bool = False
    compared: bool = False

    @property
    def is_switch(self) -> bool:
        return self.kind is bool

    @property
    def flag(self) -> str:
        """The flag on the command line."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def text(self) -> str:
        """The full description, as Markdown."""
        return f"{self.summary} {self.details}".strip()

    def checked(self, value: Any) -> Any:
        """Convert and validate a value for ``Settings``.

        Raises:
            UsageError: it is invalid; the message names the option.
        """
        if self.convert is not None:
            value = self.convert(value)
        if self.is_switch and not isinstance(value, bool):
            raise UsageError(f"{self.name} must be true or false, not {value!r}.")
        if int in (self.kind, *get_args(self.kind)) and value is not None and value < 1:
            raise UsageError(f"{self.name} must be at least 1, not {value}.")
        if get_origin(self.kind) is Literal and value not in get_args(self.kind):
            choices = ", ".join(get_args(self.kind))
            raise UsageError(f"{self.name} must be one of {choices}, not {value!r}.")
        if self.kind is str and not value.strip():
            raise UsageError(f"{self.name} is empty: give a value.")
        return value


def option(default: T, group: Group, summary: str, *, shown: bool = True, **others: Any) -> T:
    """Declare a field of ``Settings`` as an :class:`Option`; ``others`` are further attributes.

    Args:
        default: the default value.
        group: see :class:`Option`.
        summary: see :class:`Option`.
        shown: whether the ``repr`` of ``Settings`` includes it.
    """
    metadata = {"group": group, "summary": summary, **others}
    declared: Any = (
        field(default_factory=default.copy, repr=shown, metadata=metadata)
        if isinstance(default, dict)
        else field(default=default, repr=shown, metadata=metadata)
    )
    return declared  # type: ignore[no-any-return]  # the dataclass replaces it by a value of type T


def declared_options(settings: type) -> dict[str, Option]:
    """Return the options that a dataclass and its bases declare, by name, in order of groups."""
    kinds = get_type_hints(settings)

    def from_field(item: Field[Any]) -> Option:
        default = None if callable(item.default_factory) else item.default
        if isinstance(default, tuple) and len(default) == 1:
            (default,) = default  # as a caller would write it
        return Option(item.name, kinds[item.name], default, **item.metadata)

    ordered = sorted(fields(settings), key=lambda item: GROUPS.index(item.metadata["group"]))
    return {item.name: from_field(item) for item in ordered}


def takes_options(options: Iterable[Option]) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Decorate a function so that its ``**options`` are these.

    Its signature lists them with types and defaults, and its docstring at ``{options}``. Retired
    options are ignored; any other keyword raises a TypeError that names the nearest option.
    """
    known = {option.name: option for option in options}

    def decorate(function: Callable[..., T]) -> Callable[..., T]:
        signature = inspect.signature(function)
        own = [
            as_parameter(known[parameter.name], parameter.kind)
            if parameter.name in known
            else parameter
            for parameter in signature.parameters.values()
            if parameter.kind is not parameter.VAR_KEYWORD
        ]
        names = [parameter.name for parameter in own]
        rest = [option for option in known.values() if option.name not in names]
        keywords = [*names, *(option.name for option in rest)]

        @wraps(function)
        def call(*args: Any, **selected: Any) -> T:
            for name in tuple(selected):
                if name in RETIRED:
                    say_to_user(RETIRED[name])
                    del selected[name]
                elif name not in keywords:
                    raise TypeError(
                        f"{function.__name__}() has no option {name!r}; "
                        f"the nearest is {nearest(name, keywords)}"
                    )
            return function(*args, **selected)

        parameters = [*own, *(as_parameter(option) for option in rest)]
        decorated: Any = call
        decorated.__signature__ = signature.replace(parameters=parameters)
        decorated.__doc__ = inspect.cleandoc(function.__doc__ or "").replace(
            PLACEHOLDER, "\n".join(as_entry(option) for option in known.values())
        )
        return call

    return decorate


def as_parameter(
    option: Option, kind: inspect._ParameterKind = inspect.Parameter.KEYWORD_ONLY
) -> inspect.Parameter:
    """Return the signature's parameter for an option."""
    return inspect.Parameter(
        option.name, kind, default=option.default, annotation=option.accepts or option.kind
    )


def as_entry(option: Option) -> str:
    """Return the entry for an option in a docstring's Args, in Google's style."""
    text = CODE.sub(r"``\1``", LINK.sub(r"\1", option.text))
    return textwrap.fill(
        f"{option.name}: {text}",
        DOCSTRING_WIDTH,
        initial_indent=" " * 4,
        subsequent_indent=" " * 8,
        break_on_hyphens=False,
        break_long_words=False,
    )


def with_flags(text: str, options: Mapping[str, Option]) -> str:
    """Replace the names of options in Markdown by their command line flags."""
    return CODE.sub(
        lambda code: f"`{options[code[1]].flag}`" if code[1] in options else code[0], text
    )
