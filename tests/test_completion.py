"""Completion in real shells, set up by the lines of the documentation."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.terminal import ROOT, piped

pytestmark = pytest.mark.slow  # each starts the command

PAGE = (ROOT / "docs" / "command-line.md").read_text()
SETUP = {
    shell: line
    for line in re.findall(r"^(.*litestream-hook completion .*?) +#", PAGE, re.MULTILINE)
    for shell in ("bash", "zsh", "fish")
    if f"completion {shell}" in line
}
BASH = """
{setup}
COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMPREPLY=()
$(complete -p litestream-hook | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
FISH = "{setup}; complete -C {line!r}"
LINES = [
    ("litestream-hook ", {"inject", "check", "annotations", "status", "review", "apply", "completion", "serve"}),
    ("litestream-hook check --fa", {"--fail-on"}),
    ("litestream-hook check --fail-on ", {"error", "warning"}),
    ("litestream-hook completion ", {"bash", "zsh", "fish"}),
    ("litestream-hook check exam", {"examples/"}),
]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment that has the command, as an installation makes it."""
    command = tmp_path / "litestream-hook"
    command.write_text(f"#!{sys.executable}\nimport sys\nfrom injector.cli import main\nsys.exit(main())\n")
    command.chmod(0o755)
    path = f"{tmp_path}:/usr/bin:/bin"
    return {"PATH": path, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8", "TERM": "dumb"}


def needs(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")


@pytest.mark.parametrize("shell", ["bash", "fish"])
@pytest.mark.parametrize(("line", "words"), LINES)
def test_what_can_be_written_next_is_offered(
    shell: str, line: str, words: set[str], environment: dict[str, str]
) -> None:
    needs(shell)
    typed = " ".join(f'"{word}"' for word in line.split(" "))
    script = (BASH if shell == "bash" else FISH).format(setup=SETUP[shell], words=typed, line=line)
    command = [shell, "--norc" if shell == "bash" else "--no-config", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False)
    assert done.stderr == ""
    offered = set(done.stdout.split())
    assert words <= (offered | {f"{word}/" for word in offered if (ROOT / word).is_dir()})


@pytest.mark.parametrize(("line", "words"), LINES)
def test_zsh_offers_it_on_its_terminal(line: str, words: set[str], environment: dict[str, str]) -> None:
    """zsh completes nowhere else."""
    needs("zsh")
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        ["zsh", "-f", "-i"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment,
        cwd=ROOT,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        try:
            os.write(ours, f"autoload -Uz compinit && compinit -u -D\n{SETUP['zsh']}\nprint LIS''TENING\n".encode())
            until(ours, {"\nLISTENING"})
            os.write(ours, f"{line}\t".encode())
            until(ours, words)
        finally:
            process.kill()
            os.close(ours)


def until(terminal: int, words: set[str]) -> None:
    """Read until all of them have been there."""
    seen, deadline = "", time.monotonic() + 60
    while not all(word in seen for word in words):
        assert time.monotonic() < deadline, seen
        if select.select([terminal], [], [], 0.1)[0]:
            seen += os.read(terminal, 65536).decode(errors="replace")


def test_an_unknown_shell_is_a_wrong_call() -> None:
    done = piped("completion", "tcsh")
    assert (done.returncode, done.stdout) == (2, "")
    assert "invalid choice: 'tcsh'" in done.stderr
