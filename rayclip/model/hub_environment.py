"""The environment of huggingface_hub, which reads it while it is imported."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType
from typing import Any

from rayclip.errors import UsageError

PREFIXES = ("HF_", "HUGGINGFACE_", "HUGGING_FACE_")
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
TOKEN = "HF_TOKEN"
PATH_ENDINGS = ("_HOME", "_CACHE", "_PATH")
PACKAGE = "huggingface_hub"


@dataclass(frozen=True)
class HubEnvironment:
    """The variables of huggingface_hub that the driver has, for every process that loads a model.

    Attributes:
        variables: names and values. A token may be among them: they are neither shown nor saved.
    """

    variables: tuple[tuple[str, str], ...] = field(repr=False)

    @classmethod
    def here(cls, login: str | None = None) -> HubEnvironment:
        """Return the variables of this process, with absolute paths: workers have other folders.

        Args:
            login: the token that ``hf auth login`` has saved on this machine; other machines do
                not have it.
        """
        found = {
            name: _absolute(value) if name.endswith(PATH_ENDINGS) else value
            for name, value in os.environ.items()
            if name.startswith(PREFIXES) or name in OFFLINE
        }
        if login is not None:
            found.setdefault(TOKEN, login)
        return cls(tuple(sorted(found.items())))

    def apply(self) -> None:
        """Set the variables in this process, unless huggingface_hub is already imported here.

        Call it before anything that imports huggingface_hub, such as open_clip or timm.
        """
        if PACKAGE not in sys.modules:
            os.environ.update(self.variables)


def import_hub() -> ModuleType:
    """Import huggingface_hub; its warnings are not shown, unless the user has set its verbosity.

    Raises:
        UsageError: it is not installed.
    """
    is_first = PACKAGE not in sys.modules
    try:
        hub = import_module(PACKAGE)
        for part in ("constants", "errors", "utils"):
            import_module(f"{PACKAGE}.{part}")
    except ImportError as error:
        raise UsageError(
            f"Models of the Hugging Face Hub need huggingface_hub ({error}): run pip install "
            "'rayclip[open_clip]'."
        ) from error
    if is_first and "HF_HUB_VERBOSITY" not in os.environ:
        hub.utils.logging.set_verbosity_error()
    return hub


def login_token(hub: Any) -> str | None:
    """Return the token that huggingface_hub sends by default; None if there is none."""
    if hub.constants.HF_HUB_DISABLE_IMPLICIT_TOKEN:
        return None
    token: str | None = hub.get_token()
    return token


def _absolute(path: str) -> str:
    is_expanded_later = path.startswith(("~", "$"))
    return os.path.abspath(path) if path and not is_expanded_later else path
