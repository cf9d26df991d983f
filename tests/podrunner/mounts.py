"""Mounting on the host: tmpfs and overlay, and taking away everything that is mounted below a directory."""

from __future__ import annotations

import subprocess
from pathlib import Path


def tmpfs(at: Path, *, size: int | None = None, mode: int = 0o777) -> None:
    """A file system in memory, of `size` bytes at most."""
    options = f"mode={mode:o}" + ("" if size is None else f",size={size}")
    at.mkdir(parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", options, "tmpfs", str(at))


def overlay(lower: Path, upper: Path, at: Path) -> None:
    """`lower` at `at`, with what is written going to the new directory `upper`."""
    work = upper.with_name(upper.name + "-work")
    for directory in (upper, work, at):
        directory.mkdir(parents=True, mode=0o755)
    _mount("-t", "overlay", "-o", f"lowerdir={lower},upperdir={upper},workdir={work}", "overlay", str(at))


def unmount_below(directory: Path) -> None:
    """Unmount whatever is mounted at or below `directory`, the newest first."""
    inside = f"{directory.resolve()}/"
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4].encode().decode("unicode_escape") for line in lines]
    for point in reversed([point for point in points if f"{point}/".startswith(inside)]):
        subprocess.run(["umount", "--lazy", point], check=False, capture_output=True)


def _mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise OSError(f"mount {' '.join(arguments)}: {done.stderr.strip()}")
