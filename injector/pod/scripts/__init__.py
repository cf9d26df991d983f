"""The constant scripts of injected containers, as files. Users' text reaches them in environment variables only."""

from __future__ import annotations

from importlib import resources


def read(name: str) -> str:
    """A script as it stands in a Pod: without comments, blank lines and indents.

    No text of a script goes over several lines with blanks that matter, so that nothing of its meaning is lost.
    """
    text = resources.files(__name__).joinpath(f"{name}.sh").read_text()
    lines = (line.strip() for line in text.splitlines())
    return "".join(f"{line}\n" for line in lines if line and not line.startswith("#"))


INIT, CHECK, SIDECAR, RESTORE = map(read, ("init", "check", "sidecar", "restore"))
