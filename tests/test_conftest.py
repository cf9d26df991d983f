"""A test that this machine could run and that was skipped is a failure in CI, however many processes run the tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SKIPPING = """
import pytest
def test_that_runs():
    pass
def test_that_does_not():
    pytest.skip({reason!r})
"""
AVOIDABLE = "runc not installed: run tests/podrunner/install"
UNAVOIDABLE = "containers need root"


@pytest.mark.slow
@pytest.mark.parametrize("processes", ["0", "2"])
@pytest.mark.parametrize(
    ("ci", "reason", "code"), [("true", AVOIDABLE, 1), ("true", UNAVOIDABLE, 0), ("", AVOIDABLE, 0)]
)
def test_what_should_have_run_is_missed_in_ci(ci: str, reason: str, code: int, processes: str, tmp_path: Path) -> None:
    (tmp_path / "test_skipping.py").write_text(SKIPPING.format(reason=reason))
    parts = tmp_path / "parts"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-n", processes, "-c", "/dev/null", tmp_path],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "CI": ci, "PARTS": str(parts)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout
    told = f"1 skipped{', which is a failure here' if code else ''}: {reason}"
    assert told in done.stdout
    assert told in parts.read_text()
