"""Commands as a user has them: on a terminal (a pty), or with pipes and none."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMMAND = (sys.executable, "-m", "injector")


def piped(*arguments: str | Path, text: str = "", cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """The command line without a terminal; bytes go in and out as they are, so ends of lines stay what they are."""
    done = subprocess.run(
        [*COMMAND, *arguments], input=text.encode(), capture_output=True, check=False, cwd=cwd, env=_environment(cwd)
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def on_terminal(
    command: Sequence[str | Path], typed: bytes = b"", once: bytes = b"", again: bytes = b"", cwd: Path = ROOT
) -> tuple[int, str]:
    """The exit code of a command on a terminal of its own, and all that is seen there.

    Args:
        command: to be run.
        typed: what is typed,
        once: when this is seen.
        again: what is typed after that, once a second until the command ends, as people do: a signal that comes right
            before a read begins does not end the read.
        cwd: where it is run.
    """
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        # Else Ctrl-C would not reach it, or would be ignored as by all that a shell runs in the background.
        ["setsid", "--ctty", "env", "--default-signal=INT", *command],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=cwd,
        env=_environment(cwd),
    ) as process:
        os.close(theirs)
        try:
            seen = _seen(ours, typed, once, again)
        except BaseException:
            process.kill()
            raise
        finally:
            os.close(ours)
        return process.wait(60), seen.decode()


def _seen(terminal: int, typed: bytes, once: bytes, again: bytes) -> bytes:
    now = time.monotonic()
    seen, deadline, due = b"", now + 60, now
    while (now := time.monotonic()) < deadline:
        if typed and once in seen:
            os.write(terminal, typed)
            typed = b""
        if again and not typed and once in seen and now >= due:
            os.write(terminal, again)
            due = now + 1
        if not select.select([terminal], [], [], 0.1)[0]:
            continue
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # what Linux says when nobody has the other end any more
            return seen
        seen += piece
    raise TimeoutError(seen)


def _environment(cwd: Path) -> dict[str, str]:
    return {**os.environ, "TERM": "xterm", "PYTHONPATH": str(ROOT) if cwd != ROOT else os.environ.get("PYTHONPATH", "")}
