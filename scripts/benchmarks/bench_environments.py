"""Virtual environments for other packages. They see the packages of this Python: torch, clip, Ray.

So each is quick to make, and all peers compute with the same torch.
"""

from __future__ import annotations

import os
import re
import subprocess
import sysconfig
import venv
from pathlib import Path

import av
from bench_processes import CommandFailed

LIBRARY = re.compile(r"(lib\w+)-[0-9a-f]+(\.so\.\d+)")


def python_with(package: str, folder: Path) -> str:
    """The Python of an environment with a package and what it needs; made on first use.

    Args:
        package: a requirement, such as ``daft==0.7.26``.
        folder: holds all environments.

    Raises:
        CommandFailed: the package cannot be installed.
    """
    home = folder / package
    python, complete = home / "bin" / "python", home / "complete"
    if not complete.exists():
        venv.create(home, clear=True, with_pip=True)
        site = Path(sysconfig.get_path("purelib", vars={"base": str(home)}))
        shared = sysconfig.get_path("purelib")
        (site / "shared.pth").write_text(f"import site; site.addsitedir({shared!r})\n")
        words = [python, "-m", "pip", "install", "--quiet", "--no-warn-conflicts", package]
        pip = subprocess.run(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        if pip.returncode:
            reason = [line for line in pip.stderr.splitlines() if line.startswith("ERROR")]
            raise CommandFailed(f"{package} cannot be installed: {(reason or ['no reason'])[-1]}")
        _link_ffmpeg(home)
        complete.touch()
    return str(python)


def with_ffmpeg(python: str) -> dict[str, str]:
    """The variables of this process, with PyAV's FFmpeg for packages that bring none.

    So they decode with the same libraries as rayclip.
    """
    folders = [str(_links(Path(python).parents[1])), str(_bundled())]
    path = os.pathsep.join([*folders, os.environ.get("LD_LIBRARY_PATH", "")])
    return {**os.environ, "LD_LIBRARY_PATH": path}


def _link_ffmpeg(home: Path) -> None:
    """Give the libraries of PyAV's wheel the names that other packages look for."""
    folder = _links(home)
    folder.mkdir()
    for file in _bundled().glob("lib*.so.*"):
        if name := LIBRARY.match(file.name):
            (folder / f"{name[1]}{name[2]}").symlink_to(file)


def _links(home: Path) -> Path:
    return home / "ffmpeg"


def _bundled() -> Path:
    return Path(av.__file__).parents[1] / "av.libs"
