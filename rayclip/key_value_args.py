"""Translate the ``key=value`` arguments of video_features to command line options.

``model_name="ViT-B/32" video_paths="[a.mp4, b.mp4]" show_pred=true`` becomes
``--model-name=ViT-B/32 a.mp4 b.mp4 --show-pred``. Everything else stays unchanged.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Sequence

import yaml

from rayclip.console import say_to_user
from rayclip.errors import UsageError

KEY_AND_VALUE = re.compile(r"(?:--)?([A-Za-z]\w*)=(.*)", re.DOTALL)
NULLS = ("null", "none", "~", "")
BOOLEANS = {"true": True, "yes": True, "on": True, "1": True}
BOOLEANS |= {"false": False, "no": False, "off": False, "0": False}

RETIRED = {
    "resize": "resize is no longer an option, and is ignored: frames are always resized as OpenAI "
    "does it, byte for byte, which now costs less than resize=fast did."
}
"""Options that rayclip no longer has, and what to say if one is given."""


def drop_retired(words: Iterable[str]) -> list[str]:
    """Leave out retired options and their values, in any spelling, and say so."""
    kept, remaining = [], iter(words)
    for word in remaining:
        name, equals, _ = word.removeprefix("--").partition("=")
        if name in RETIRED and (equals or word.startswith("--")):
            say_to_user(RETIRED[name])
            if not equals:
                next(remaining, None)
        else:
            kept.append(word)
    return kept


def translate_key_values(
    words: Sequence[str], values: Sequence[str], switches: Sequence[str]
) -> list[str]:
    """Translate ``key=value`` arguments, anywhere among others.

    Args:
        words: the command line after ``extract``.
        values: keys that take a value, with underscores.
        switches: keys that are true or false.

    Returns:
        Arguments for an ordinary command line parser.

    Raises:
        UsageError: a key is unknown and not an existing path either, or a value is invalid.
    """
    options: list[str] = []
    before = ""
    for word in words:
        match = KEY_AND_VALUE.fullmatch(word)
        follows_option = before.startswith("--") and "=" not in before
        is_its_value = follows_option and before[2:].replace("-", "_") in values
        before = word
        if match is None or is_its_value:
            options.append(word)
            continue
        key, value = match.group(1), match.group(2)
        if key == "video_paths":
            options += [
                f"./{item}" if item[:1] == "-" else item for item in parse_items(key, value)
            ]
        elif key == "feature_type":
            if unquote(value) != "clip":
                raise UsageError(f"feature_type is {value}, but rayclip extracts clip only.")
        elif key in switches:
            if _parse_bool(key, unquote(value)):
                options.append(f"--{_dashed(key)}")
        elif key in values:
            if unquote(value).lower() not in NULLS or _is_address(key, unquote(value)):
                options.append(f"--{_dashed(key)}={unquote(value)}")
        elif not word.startswith("--") and os.path.exists(word):
            options.append(word)
        elif word.startswith("--"):
            options.append(word)  # the parser reports it
        else:
            raise UsageError(_unknown(key, word, [*values, *switches]))
    return options


def parse_items(key: str, value: str) -> list[str]:
    """Parse ``[a.mp4, 'b c.mp4']`` or a single string; ``null`` is an empty list."""
    text = value.strip()
    if text.lower() in NULLS:
        return []
    if not text.startswith("["):
        return [unquote(text)]
    try:
        items = yaml.load(text, Loader=yaml.BaseLoader)  # BaseLoader: every scalar is a string
    except yaml.YAMLError:
        items = None
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise UsageError(f'{key} must be a list such as "[a, b]", not {value}.')
    return items


def unquote(value: str) -> str:
    """Strip whitespace and one pair of quotes."""
    text = value.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    return text


def _is_address(key: str, value: str) -> bool:
    """Whether a null of video_features is a value here: address ``none`` means no Ray."""
    return (key, value) == ("address", "none")


def _dashed(key: str) -> str:
    return key.replace("_", "-")


def _parse_bool(key: str, value: str) -> bool:
    if value.lower() in NULLS:
        return False
    try:
        return BOOLEANS[value.lower()]
    except KeyError:
        raise UsageError(f"{key} must be true or false, not {value}.") from None


def _unknown(key: str, word: str, known: Sequence[str]) -> str:
    likely = nearest(key, [*known, "video_paths", "feature_type"])
    return f"There is no argument {key}; the nearest is {likely}. (As a path, write ./{word}.)"


def nearest(name: str, known: Sequence[str]) -> str:
    """Return the known name that is most similar."""
    return difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
