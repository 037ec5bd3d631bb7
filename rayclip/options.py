"""What an option is. :class:`rayclip.settings.Settings` declares each one once.

The command line (:mod:`rayclip.cli_options`), the functions of Python (:func:`takes_options`) and
``docs/options.md`` are made from these declarations.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field, dataclass, field, fields
from functools import wraps
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from rayclip.errors import UsageError
from rayclip.key_value_args import nearest

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
        name: with underscores, the same everywhere.
        kind: the type of its value in ``Settings``.
        default: of ``Settings``; None for a collection that nobody gave.
        group: the panel of ``--help`` and the section of the docs.
        summary: for ``--help``, docstrings and docs: plain text, but for Markdown's links and code;
            the name of another option is code.
        details: sentences that only docstrings and docs have.
        metavar: what stands for the value in ``--help``, if its type does not say it.
        accepts: the type that a caller in Python may give, if it is wider than ``kind``.
        convert: makes the value in ``Settings`` from what a caller gave.
        parse: makes what a caller in Python would give from the words of the command line.
        encode: whether ``rayclip.encode`` takes it, too.
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

    @property
    def is_switch(self) -> bool:
        return self.kind is bool

    @property
    def flag(self) -> str:
        """How it is written on the command line."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def text(self) -> str:
        """Everything that is to say about it, as Markdown."""
        return f"{self.summary} {self.details}".strip()

    def checked(self, value: Any) -> Any:
        """The value for ``Settings``.

        Raises:
            UsageError: it is not one; the sentence names the option.
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
            raise UsageError(f"{self.name} is empty.")
        return value


def option(default: T, group: Group, summary: str, *, shown: bool = True, **others: Any) -> T:
    """Declare a field of ``Settings`` as an :class:`Option`; ``others`` are more of its attributes.

    Args:
        default: its value if nobody gives one.
        group: see :class:`Option`.
        summary: see :class:`Option`.
        shown: whether the ``repr`` of ``Settings`` has it.
    """
    metadata = {"group": group, "summary": summary, **others}
    declared: Any = (
        field(default_factory=default.copy, repr=shown, metadata=metadata)
        if isinstance(default, dict)
        else field(default=default, repr=shown, metadata=metadata)
    )
    return declared  # type: ignore[no-any-return]  # what dataclass makes of it has type T


def declared_options(settings: type) -> dict[str, Option]:
    """The options that a dataclass declares, by name and in their order."""
    kinds = get_type_hints(settings)

    def declared(one: Field[Any]) -> Option:
        default = one.default if callable(one.default_factory) is False else None
        return Option(one.name, kinds[one.name], default, **one.metadata)

    return {one.name: declared(one) for one in fields(settings)}


def takes_options(options: Iterable[Option]) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Let the ``**options`` of a function be these.

    Its signature and its docstring, for ``{options}``, list them all, with types and defaults. Any
    other keyword is a TypeError that names the nearest one.
    """
    known = {one.name: one for one in options}

    def decorate(function: Callable[..., T]) -> Callable[..., T]:
        signature = inspect.signature(function)
        own = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
        own = [as_parameter(known[one.name], one.kind) if one.name in known else one for one in own]
        names = [one.name for one in own]
        rest = [one for one in known.values() if one.name not in names]
        keywords = [*names, *(one.name for one in rest)]

        @wraps(function)
        def call(*args: Any, **given: Any) -> T:
            for name in given:
                if name not in keywords:
                    raise TypeError(
                        f"{function.__name__}() has no option {name!r}; "
                        f"the nearest is {nearest(name, keywords)}"
                    )
            return function(*args, **given)

        parameters = [*own, *(as_parameter(one) for one in rest)]
        decorated: Any = call
        decorated.__signature__ = signature.replace(parameters=parameters)
        decorated.__doc__ = inspect.cleandoc(function.__doc__ or "").replace(
            PLACEHOLDER, "\n".join(as_entry(one) for one in known.values())
        )
        return call

    return decorate


def as_parameter(
    one: Option, kind: inspect._ParameterKind = inspect.Parameter.KEYWORD_ONLY
) -> inspect.Parameter:
    """An option in a signature of Python."""
    return inspect.Parameter(
        one.name, kind, default=one.default, annotation=one.accepts or one.kind
    )


def as_entry(one: Option) -> str:
    """An option in the Args of a docstring in Google's style."""
    text = CODE.sub(r"``\1``", LINK.sub(r"\1", one.text))
    return textwrap.fill(
        f"{one.name}: {text}",
        DOCSTRING_WIDTH,
        initial_indent=" " * 4,
        subsequent_indent=" " * 8,
        break_on_hyphens=False,
        break_long_words=False,
    )


def with_flags(text: str, options: Mapping[str, Option]) -> str:
    """A text of Markdown in which other options are written as on the command line."""
    return CODE.sub(
        lambda code: f"`{options[code[1]].flag}`" if code[1] in options else code[0], text
    )
