"""Compiles rayclip's C library into the package. Without a compiler, Pillow resizes the frames."""

from __future__ import annotations

import os
import shlex
import subprocess
import sysconfig
from contextlib import suppress
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import platform_tags

SOURCE = "rayclip/model/exact_resize.c"
LIBRARY = "rayclip/model/libexact_resize.so"
OPTIONS = ["-O3", "-shared", "-fPIC", "-Wall", "-Wextra"]


class CustomBuildHook(BuildHookInterface):
    """Adds the library to a wheel or, in an editable installation, to the source tree."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and mark the wheel as one for this platform only; never fail."""
        if not compile_library(Path(self.root)):
            self.app.display_warning(f"{SOURCE} was not compiled: Pillow will resize, more slowly.")
            return
        build_data["artifacts"].append(LIBRARY)
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{next(platform_tags())}"


def compile_library(root: Path) -> bool:
    """Compile with the first compiler that can; return whether one could."""
    library, source = root / LIBRARY, root / SOURCE
    compilers = [os.environ.get("CC"), sysconfig.get_config_var("CC"), "cc", "gcc", "clang"]
    for compiler in filter(None, compilers):
        command = [*shlex.split(compiler), *OPTIONS, str(source), "-o", str(library)]
        with suppress(OSError, subprocess.SubprocessError):
            library.unlink(missing_ok=True)  # one of another version
            subprocess.run(command, check=True, capture_output=True, timeout=300)
            return True
    return False
