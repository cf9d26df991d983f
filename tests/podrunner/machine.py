"""What a machine must have for the runner."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from tests.podrunner import mounts
from tests.podrunner.images import PATH


@cache
def missing() -> str | None:
    """Why containers can't be run on this machine, or None if they can."""
    if os.geteuid() != 0:
        return "containers need root"
    absent = [tool for tool in ("runc", "busybox", "mount", "umount", "sqlite3") if not shutil.which(tool, path=PATH)]
    if absent:
        return f"{', '.join(absent)} not installed: run tests/podrunner/install"
    with tempfile.TemporaryDirectory() as directory:
        lower, memory = Path(directory, "lower"), Path(directory, "memory")
        lower.mkdir()
        try:
            mounts.tmpfs(memory)
            mounts.overlay(lower, memory / "upper", memory / "root")
            listed = subprocess.run(
                ["runc", "--root", str(memory / "runc"), "list"], capture_output=True, text=True, check=False
            )
        except OSError as error:
            return f"this machine does not allow mounts: {error}"
        finally:
            mounts.unmount_below(Path(directory))
    return f"runc does not work here: {listed.stderr.strip()}" if listed.returncode else None
