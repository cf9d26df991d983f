"""`inject` in the hands of a user: folders, pipes whose reader leaves, many objects."""

from __future__ import annotations

import subprocess
from pathlib import Path
from unittest import mock

import pytest
import yaml

from injector import manifests
from injector.command import edit, inject
from tests import reviews
from tests.terminal import COMMAND, ROOT, piped

EXAMPLE = (ROOT / "examples" / "02-statefulset.yaml").read_text()


def test_a_folder_is_printed_as_one_stream(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text('{"kind": "ConfigMap", "apiVersion": "v1"}')
    (tmp_path / "a.yaml").write_text(EXAMPLE)
    done = piped("inject", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert [each["kind"] for each in yaml.safe_load_all(done.stdout)] == ["StatefulSet", "Service", "ConfigMap"]


def test_a_document_that_loses_its_comments_is_told_by_its_line() -> None:
    shared = EXAMPLE.replace("limits:\n", "limits: &it\n").replace("volumes", "").split("---\n")[0]
    text = (
        "# first\n---\n"
        + shared.replace("      containers:\n", "      initContainers: &all\n")
        + "      containers: *all\n"
    )
    done = piped("inject", text=text)
    assert done.stderr == (f"standard input:3: warning: {edit.LOST}\n")
    assert done.returncode == 0


def test_a_reader_that_leaves_ends_it_quietly() -> None:
    text = "---\n".join([EXAMPLE] * 20).encode()
    with subprocess.Popen(
        [*COMMAND, "inject"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdin.write(text)
        process.stdin.close()
        assert process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


def test_a_document_is_parsed_three_times_at_most_and_once_if_nothing_of_it_is_ours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Read, looked through for places, and read again as a proof: what `inject` takes of time is that."""
    (tmp_path / "it.yaml").write_text("---\n".join([EXAMPLE] * 3))
    with (
        mock.patch.object(manifests, "_load", wraps=manifests._load) as loaded,
        mock.patch.object(edit, "composed", wraps=manifests.composed) as looked_through,
    ):
        assert inject.run([str(tmp_path / "it.yaml")], "", reviews.DEFAULTS) == 0
    assert (loaded.call_count, looked_through.call_count) == (6 + 3, 3)
    assert "litestream-hook-replicate" in capsys.readouterr().out
