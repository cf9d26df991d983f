"""Progress: told on a terminal when the wait gets long, gone when it is over, and never anywhere else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.terminal import ROOT, on_terminal

IMPATIENT = """
import sys
from injector import cli
from injector.command import progress
progress.PATIENCE = progress.PAUSE = 0
sys.exit(cli.main())
"""


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "many.yaml"
    path.write_text("---\n".join("kind: ConfigMap\nmetadata: {name: c}\n" for _ in range(3)))
    return path


@pytest.mark.parametrize("command", ["check", "inject"])
def test_a_terminal_is_told_how_far_it_is_and_then_nothing_is_left_of_that(command: str, manifest: Path) -> None:
    code, seen = on_terminal([sys.executable, "-c", IMPATIENT, command, manifest])
    assert code == 0
    for done in range(3):
        assert f"\r\x1b[K{done} of 3 documents" in seen
    before, _, after = seen.rpartition("\r\x1b[K")
    assert before.endswith("2 of 3 documents")
    assert "of 3" not in after


def test_a_line_is_no_longer_than_the_terminal_is_wide() -> None:
    told = IMPATIENT.replace("sys.exit(cli.main())", "progress.Progress().show('x' * 200)")
    narrow = "import fcntl, struct, termios; fcntl.ioctl(2, termios.TIOCSWINSZ, struct.pack('4H', 20, 40, 0, 0))"
    assert on_terminal([sys.executable, "-c", told])[1] == f"\r\x1b[K{'x' * 78}…"
    assert on_terminal([sys.executable, "-c", f"{narrow}\n{told}"])[1] == f"\r\x1b[K{'x' * 38}…"


def test_a_quick_command_says_nothing_of_it(manifest: Path) -> None:
    patient = IMPATIENT.replace("= 0", "= 1_000_000")
    assert "\x1b" not in on_terminal([sys.executable, "-c", patient, "check", manifest])[1]


def test_without_a_terminal_nothing_is_said_of_it(manifest: Path) -> None:
    command = [sys.executable, "-c", IMPATIENT, "inject", str(manifest)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, manifest.read_text(), "")
