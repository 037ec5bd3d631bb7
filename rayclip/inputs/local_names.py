"""Resolve ``~`` and file URIs to local paths."""

from __future__ import annotations

import os
import re
from urllib.parse import unquote

FILE_URI = re.compile(r"file://(?:localhost)?(/.*)", re.IGNORECASE | re.DOTALL)  # RFC 8089


def resolve_local_name(name: str) -> str:
    """Resolve ``~`` and file URIs as a shell or a browser would; return other names unchanged.

    ``~/a.mp4`` is in the home folder, and ``file:///with%20space.mp4`` has a space. An existing
    file of exactly this name comes first.
    """
    if name.startswith("~"):
        return name if os.path.lexists(name) else os.path.expanduser(name)
    uri = FILE_URI.fullmatch(name)
    if uri is None or "::" in name:
        return name
    return uri[1] if os.path.lexists(uri[1]) else unquote(uri[1])
