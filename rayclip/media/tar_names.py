"""Tar files of videos as inputs, and the names of the videos in them: ``a.tar/b.mp4``.

No folder of a tar file may be named like one, so that such a name has only one meaning.
"""

from __future__ import annotations

import re

SUFFIXES = (".tar.gz", ".tar", ".tgz")
MEMBER = re.compile(
    rf"(?P<tar>.+?(?:{'|'.join(map(re.escape, SUFFIXES))}))/(?P<member>.+)",
    re.IGNORECASE | re.DOTALL,
)


def is_tar_name(name: str) -> bool:
    """Whether a path or URL is that of a tar file."""
    lower = name.lower()
    return lower.endswith(SUFFIXES) and lower not in SUFFIXES


def member_name(tar: str, member: str) -> str:
    """Return the name of a video in a tar file."""
    return f"{tar}/{member}"


def split_member(video: str) -> tuple[str, str]:
    """Return the tar file that a name is in, and the name there; empty if it is a tar file."""
    found = MEMBER.fullmatch(video)
    return (video, "") if found is None else (found["tar"], found["member"])
