"""Parts of two saved files, so that small exports have several."""

from __future__ import annotations

from rayclip.export.format import Format
from rayclip.export.npz import NpzFormat


def in_small_parts() -> None:
    Format.part_files = NpzFormat.part_files = 2
