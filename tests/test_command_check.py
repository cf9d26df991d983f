"""`check`: for people with lines and a last sentence, for programs as JSON, for CI by its exit code."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from injector import GROUP
from tests.terminal import COMMAND, ROOT, on_terminal, piped

pytestmark = pytest.mark.slow  # each starts the command

POD = f"""\
apiVersion: v1
kind: Pod
metadata:
  name: web
  annotations:
    {GROUP}/inject: "true"
spec:
  securityContext: {{runAsUser: 1000}}
  containers: [{{name: app, image: "a:1"}}]
"""
WARNED = POD.replace("1000", "0")
WRONG = POD.replace("inject:", f"bucket: My\n    {GROUP}/inject:")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "warned.yaml").write_text(WARNED)
    (tmp_path / "wrong.yaml").write_text(f"# first\n---\n{WRONG}---\n{POD}")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "fail_on", "code"),
    [
        (POD, "warning", 0),
        (POD, "error", 0),
        (WARNED, "warning", 1),
        (WARNED, "error", 0),
        (WRONG, "warning", 1),
        (WRONG, "error", 1),
        ("a: [", "error", 2),
    ],
)
def test_the_exit_code_says_whether_it_is_bad_enough(text: str, fail_on: str, code: int) -> None:
    assert piped("check", "--fail-on", fail_on, text=text).returncode == code
    assert piped("check", "-o", "json", "--fail-on", fail_on, text=text).returncode == code


def test_warnings_are_bad_enough_where_nothing_is_said() -> None:
    assert piped("check", text=WARNED).returncode == 1


def test_an_example_with_a_warning_passes_a_ci_that_fails_on_errors() -> None:
    examples = sorted((ROOT / "examples").glob("*.yaml"))
    assert piped("check", *examples).returncode == 1
    assert piped("check", "--fail-on", "error", *examples).returncode == 0


def test_each_finding_has_its_line_and_they_are_counted_at_the_end(folder: Path) -> None:
    done = piped("check", folder)
    first, second = done.stdout.splitlines()
    assert first.startswith(f"{folder}/warned.yaml:1: warning: Pod default/web: Litestream runs as root")
    assert second.startswith(f'{folder}/wrong.yaml:8: error: Pod default/web: {GROUP}/bucket: "My": write an S3')
    assert done.stderr == "2 files, 3 objects, 3 with our annotations: 1 error, 1 warning\n"


def test_json_says_what_the_documentation_says_of_it(folder: Path) -> None:
    done = piped("check", "-o", "json", folder, folder / "none.yaml")
    said: dict[str, Any] = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (2, "")
    page = (ROOT / "docs" / "command-line.md").read_text()
    (example,) = re.findall(r"^```json\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert said.keys() == json.loads(example).keys()
    assert said["totals"].keys() == json.loads(example)["totals"].keys()
    assert {tuple(finding) for finding in said["findings"]} == {tuple(each) for each in json.loads(example)["findings"]}
    documented = re.findall(r"^\| `(\w+)` \|", page.split("## JSON")[1].split("\n## ")[0], re.MULTILINE)
    assert sorted(documented) == sorted({*said, *said["totals"], *said["findings"][0]})


def test_the_json_of_each_kind_of_finding(folder: Path) -> None:
    missing, warning, error = json.loads(piped("check", "-o", "json", folder, folder / "none.yaml").stdout)["findings"]
    nothing = dict.fromkeys(("kind", "namespace", "name", "annotation", "field"))
    assert missing == {
        **nothing,
        "file": f"{folder}/none.yaml",
        "line": None,
        "severity": "error",
        "message": "No such file or directory",
    }
    pod = {"kind": "Pod", "namespace": "default", "name": "web"}
    assert warning.items() >= {**nothing, **pod, "line": 1, "severity": "warning"}.items()
    assert error.items() >= {**pod, "line": 8, "severity": "error", "annotation": f"{GROUP}/bucket"}.items()
    assert error["field"] == error["annotation"]


def test_a_field_that_is_no_annotation_is_none_in_json() -> None:
    rolling = ROOT / "tests" / "golden" / "workload-deployment-rolling.yaml"
    findings = json.loads(piped("check", "-o", "json", rolling).stdout)["findings"]
    assert [(each["annotation"], each["field"]) for each in findings] == [
        (None, "spec.replicas"),
        (None, "spec.strategy.type"),
    ]


def test_what_can_be_read_is_checked_beside_what_can_not(folder: Path) -> None:
    done = piped("check", folder, "nowhere.yaml")
    assert done.returncode == 2
    assert done.stdout.count("\n") == 2
    assert done.stderr.splitlines() == [
        "nowhere.yaml: error: No such file or directory",
        "3 files, 1 of them unreadable, 3 objects, 3 with our annotations: 1 error, 1 warning",
    ]


def test_on_a_terminal_it_reads_the_same(folder: Path) -> None:
    code, seen = on_terminal([*COMMAND, "check", folder])
    done = piped("check", folder)
    assert (code, seen.replace("\r\n", "\n")) == (done.returncode, done.stdout + done.stderr)
