"""Which models there are, with their input sizes, features and licenses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from rayclip.errors import UsageError
from rayclip.model import open_clip_tables
from rayclip.model.families import importing
from rayclip.model.openai import DEMO_DIM, DEMO_N_PX, OFFICIAL_MODELS

UNKNOWN = "-"
MOST_BUILT = 30  # of timm's models: each takes up to a second
HEADER = ("model", "pixels", "features", "texts", "license")


class Listed(NamedTuple):
    """A line of the list.

    Attributes:
        name: for ``model_name``.
        n_px: side of its square input in pixels.
        dim: features per frame; None if unknown.
        has_texts: whether it has a text encoder.
        license: of its weights; None if unknown.
    """

    name: str
    n_px: int
    dim: int | None
    has_texts: bool
    license: str | None


def list_models(word: str | None, say: Callable[[str], object]) -> None:
    """Print OpenAI's models, or all models whose names contain a word.

    Args:
        word: in any case; ``open_clip`` and ``timm`` match all names of these families.
        say: prints a line.

    Raises:
        UsageError: no name contains it.
    """
    families = {"open_clip": open_clip_models, "timm": timm_models}
    if word is None:
        say_table(openai_models(), say)
        say("")
        say("`rayclip models open_clip` and `rayclip models timm` list more; `rayclip models WORD`")
        say("lists all whose names contain WORD.")
        return
    found = [model for model in openai_models() if word.lower() in model.name.lower()]
    missing = []
    for models in families.values():
        try:
            found += models(word)
        except UsageError as error:
            missing.append(str(error))
    if not found:
        raise UsageError(" ".join([f"No name of a model contains {word!r}.", *missing]))
    say_table(found, say)
    for sentence in missing:
        say(sentence)


def say_table(models: Iterable[Listed], say: Callable[[str], object]) -> None:
    """Print models as a table."""
    rows = [HEADER]
    rows += [
        (
            model.name,
            str(model.n_px),
            UNKNOWN if model.dim is None else str(model.dim),
            "yes" if model.has_texts else "no",
            model.license or UNKNOWN,
        )
        for model in models
    ]
    name, *others = (max(map(len, column)) for column in zip(*rows, strict=True))
    for row in rows:
        middle = [cell.rjust(width) for cell, width in zip(row[1:4], others[:3], strict=True)]
        say("  ".join([row[0].ljust(name), *middle, row[4]]))


def openai_models() -> Iterator[Listed]:
    """Return OpenAI's models and the demo."""
    for name, model in OFFICIAL_MODELS.items():
        yield Listed(name, model.n_px, model.dim, True, "MIT")
    yield Listed("demo", DEMO_N_PX, DEMO_DIM, True, "MIT")


def open_clip_models(word: str) -> Iterator[Listed]:
    """Return open_clip's published models whose names contain a word.

    Raises:
        UsageError: open_clip is not installed.
    """
    files = open_clip_tables.architectures()
    for architecture, tags in open_clip_tables.published().items():
        names = [f"open_clip:{architecture}/{tag}" for tag in tags]
        names = [name for name in names if word.lower() in name.lower()]
        if names and architecture in files:
            config = open_clip_tables.architecture(architecture)
            n_px = config["vision_cfg"].get("image_size", 224)
            yield from (Listed(name, n_px, config["embed_dim"], True, None) for name in names)


def timm_models(word: str) -> Iterator[Listed]:
    """Return timm's published models whose names contain a word.

    Raises:
        UsageError: timm is not installed.
    """
    with importing("timm:"):
        import timm
    from rayclip.model.timm import features_of

    names = [name for name in timm.list_models(pretrained=True) if word.lower() in f"timm:{name}"]
    for name in names:
        config = timm.get_pretrained_cfg(name)
        _, height, width = config.input_size
        if height == width and config.hf_hub_id:
            dim = features_of(name, height) if len(names) <= MOST_BUILT else None
            yield Listed(f"timm:{name}", height, dim, False, config.license)
