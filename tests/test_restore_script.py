"""The script of the Jobs, by itself: what tools tell it that are not those of the images in other tests.

Replaced are the folder `/restored` and the place of the binary.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from injector.pod import scripts


@pytest.mark.parametrize(("code", "failed"), [(124, "unreachable"), (143, "unreachable"), (1, "unreadable")])
def test_a_bucket_that_does_not_answer_is_told_from_one_that_refuses(code: int, failed: str, tmp_path: Path) -> None:
    """A mock of `timeout` ends as it does where the time is over: GNU's and a new busybox with 124, older ones 143."""
    timeout = tmp_path / "timeout"
    timeout.write_text(f"#!/bin/sh\nexit {code}\n")
    timeout.chmod(0o755)
    script = scripts.read("restore").replace("work=/restored", f"work={tmp_path}")
    done = subprocess.run(
        ["sh", "-c", script, "restore.sh", "verify"],
        env={
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "LITESTREAM_CONFIG": "",
            "LITESTREAM_CHECK": "quick",
            "LITESTREAM_DATABASES": "/data/app.db",
            "LITESTREAM_PATIENCE": "1",
        },
        capture_output=True,
        check=False,
    )
    assert (done.returncode, json.loads(done.stdout)) == (1, {"database": 0, "failed": failed})
