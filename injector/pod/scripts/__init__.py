"""The constant scripts of injected containers, as files. Users' text reaches them in environment variables only."""

from __future__ import annotations

import re
from importlib import resources

_INCLUDED = re.compile(r"^\. \./([a-z-]+\.sh)$", re.MULTILINE)


def read(name: str) -> str:
    """A script as it stands in a Pod: what it includes put in its place, without comments, blank lines and indents.

    No text of a script goes over several lines with blanks that matter, so that nothing of its meaning is lost.
    """
    text = _INCLUDED.sub(lambda found: _file(found[1]), _file(f"{name}.sh"))
    lines = (line.strip() for line in text.splitlines())
    return "".join(f"{line}\n" for line in lines if line and not line.startswith("#"))


def _file(name: str) -> str:
    return resources.files(__name__).joinpath(name).read_text()


INIT, CHECK, RESTORE, SIDECAR = map(read, ("init", "check", "restore", "sidecar"))
