"""Sentences for the person at the terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any


def say_to_user(text: str) -> None:
    """A line on standard error; a run does not fail because nobody can read it."""
    with suppress(OSError, ValueError, AttributeError):
        print(text, file=sys.stderr, flush=True)


def shown(text: str) -> str:
    """A name on a line of its own, whatever is in it."""
    return text if text.isprintable() else repr(text)


def node_name(node: Mapping[str, Any]) -> str:
    """How a node, as ``ray.nodes()`` gives it, is called."""
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
