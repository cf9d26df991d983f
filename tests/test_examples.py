"""The examples as somebody finds them: valid, harmless, in order, and each with an application that works."""

from __future__ import annotations

import http.client
import io
import json
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from injector import GROUP, cli
from tests import restricted, schemas

Object = dict[str, Any]

EXAMPLES = Path(__file__).parents[1] / "examples"
FILES = sorted(EXAMPLES.glob("*.yaml"))
NUMBERED = [path for path in FILES if path.name[0].isdigit()]
APPLICATIONS = sorted((EXAMPLES / "apps").glob("*.yaml"))
BY_DEFAULT = EXAMPLES / "11-defaults"
ENDS_BY_ITSELF = {"04-job", "05-cronjob"}


def documents(text: str) -> list[Object]:
    return [document for document in yaml.safe_load_all(text) if document]


def pod_spec(obj: Object) -> Object | None:
    """The Pod spec in a Pod or workload; None in anything else."""
    spec: Object = obj.get("spec", {})
    if obj["kind"] == "Pod":
        return spec
    found: Object | None = spec.get("jobTemplate", {}).get("spec", spec).get("template", {}).get("spec")
    return found


def pod_specs(path: Path) -> list[Object]:
    return [spec for obj in documents(path.read_text()) if (spec := pod_spec(obj))]


def command_line(*arguments: str) -> tuple[int, str]:
    output = io.StringIO()
    with redirect_stdout(output), redirect_stderr(io.StringIO()):
        code = cli.main([*arguments])
    return code, output.getvalue()


def replicas(path: Path) -> dict[str, str]:
    """Database → replica path, of the one Pod that a file asks to be injected."""
    code, output = command_line("inject", str(path))
    assert code == 0
    (status,) = re.findall(rf"{re.escape(GROUP)}/status: '(.*)'", output)
    found: dict[str, str] = json.loads(status)["databases"]
    return found


def test_they_are_numbered_without_a_gap_and_told_of() -> None:
    numbers = [int(path.name[:2]) for path in sorted(EXAMPLES.glob("[0-9]*"))]
    assert numbers == list(range(1, len(numbers) + 1))
    told = set(re.findall(r"\]\((\S+\.yaml)\)", (EXAMPLES / "README.md").read_text()))
    assert told == {str(path.relative_to(EXAMPLES)) for path in EXAMPLES.rglob("*.yaml")}


@pytest.mark.parametrize("path", [*FILES, *APPLICATIONS, BY_DEFAULT / "pod.yaml"], ids=lambda path: path.stem)
@pytest.mark.parametrize("release", schemas.RELEASES)
def test_every_supported_kubernetes_knows_every_field(path: Path, release: str) -> None:
    for obj in documents(path.read_text()):
        assert list(schemas.problems(obj, release)) == []


@pytest.mark.parametrize("path", [*FILES, BY_DEFAULT / "pod.yaml"], ids=lambda path: path.stem)
def test_their_namespace_takes_them(path: Path) -> None:
    """minio.yaml makes a namespace that enforces the restricted Pod Security Standard; all live there."""
    (namespace,) = (each for each in documents((EXAMPLES / "minio.yaml").read_text()) if each["kind"] == "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for obj in documents(path.read_text()):
        if obj["kind"] != "Namespace":
            assert obj["metadata"]["namespace"] == namespace["metadata"]["name"]
    for spec in pod_specs(path):
        assert list(restricted.violations(spec)) == []


@pytest.mark.parametrize("path", [*FILES, *APPLICATIONS, BY_DEFAULT / "pod.yaml"], ids=lambda path: path.stem)
def test_images_carry_a_registry_and_a_version(path: Path) -> None:
    for spec in pod_specs(path):
        for container in spec.get("initContainers", []) + spec["containers"]:
            name, _, tag = container["image"].partition(":")
            assert "." in name.partition("/")[0], f"CRI-O from 1.34 on pulls no short names: {container['image']}"
            assert re.search(r"\d+\.\d+\.\d+|\d{4}-\d\d-\d\d", tag), container["image"]


def test_with_the_operators_file_one_annotation_is_enough() -> None:
    pod = str(BY_DEFAULT / "pod.yaml")
    assert command_line("check", pod, "--defaults-file", str(BY_DEFAULT / "defaults.yaml")) == (0, "")
    _, output = command_line("inject", pod, "--defaults", str(BY_DEFAULT / "defaults.yaml"))
    (status,) = re.findall(rf"{re.escape(GROUP)}/status: '(.*)'", output)
    assert json.loads(status)["defaults"] == {"bucket": "litestream", "endpoint": "http://minio:9000"}


@pytest.mark.parametrize("path", NUMBERED, ids=lambda path: path.stem)
def test_only_litestream_0_3_is_warned_of(path: Path) -> None:
    code, output = command_line("check", str(path))
    if path.stem == "10-litestream-0.3":
        assert code == 1
        assert "0.3" in output
        assert all("0.3" in line or "has no shell" in line for line in output.splitlines())
    else:
        assert (code, output) == (0, "")


@pytest.mark.parametrize("path", APPLICATIONS, ids=lambda path: path.stem)
def test_an_application_has_nothing_to_be_told_of_and_waits_for_the_webhook(path: Path) -> None:
    assert command_line("check", "--require-gate", str(path)) == (0, "")


@pytest.mark.parametrize("path", APPLICATIONS, ids=lambda path: path.stem)
def test_an_application_says_what_is_not_in_its_replica(path: Path) -> None:
    comment = path.read_text().partition("apiVersion")[0]
    assert re.search(r"^# Not in the databases?, so not in (its replica|their replicas)", comment, re.MULTILINE)


def test_no_two_examples_write_to_one_replica() -> None:
    paths = [path for file in NUMBERED for path in replicas(file).values()]
    assert len(paths) == len(set(paths)) == len(NUMBERED)


def test_the_point_in_time_restore_starts_from_the_replica_of_02() -> None:
    text = (EXAMPLES / "09-point-in-time-restore.yaml").read_text()
    (source,) = re.findall(rf"{re.escape(GROUP)}/restore-from: (\S+)", text)
    assert source in replicas(EXAMPLES / "02-statefulset.yaml").values()


def test_the_story_of_02_speaks_of_containers_that_are_there() -> None:
    _, output = command_line("inject", str(EXAMPLES / "02-statefulset.yaml"))
    (spec,) = (spec for obj in documents(output) if (spec := pod_spec(obj)))
    names = {container["name"] for container in spec["initContainers"] + spec["containers"]}
    asked = set(re.findall(r" -c (\S+)", (EXAMPLES / "README.md").read_text()))
    assert len(asked) > 1
    assert asked <= names


@pytest.mark.slow
@pytest.mark.parametrize("path", NUMBERED, ids=lambda path: path.stem)
def test_the_application_writes_rows_goes_on_with_them_and_stops_when_told(path: Path, tmp_path: Path) -> None:
    """The very commands of the containers, with their folders below a temporary one."""
    (spec,) = pod_specs(path)
    (database,) = replicas(path)
    local = tmp_path / Path(database).name
    port = free_port()
    counts = []
    for _ in range(2):
        for container in spec.get("initContainers", []):
            subprocess.run(here(container, database, local, port), check=True, capture_output=True, timeout=60)
        (container,) = spec["containers"]
        before = rows(local)
        command = here(container, database, local, port)
        with ended(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)) as process:
            deadline = time.monotonic() + 60
            while rows(local) == before:
                assert time.monotonic() < deadline, "no row was written"
                if "ports" in container:
                    visit(port)
                time.sleep(0.05)
            if path.stem not in ENDS_BY_ITSELF:
                process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        counts.append(rows(local))
    assert 0 < counts[0] < counts[1]


@contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is gone afterwards, whatever the test found."""
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def here(container: Object, database: str, local: Path, port: int) -> list[str]:
    """A container's command for this machine: this Python, and the database where it may be written."""
    assert container["command"] == ["python", "-c"]
    (script,) = container["args"]
    assert f'"{database}"' in script
    script = script.replace(f'"{database}"', repr(str(local))).replace("8080", str(port))
    return [sys.executable, "-c", script]


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port: int = listener.getsockname()[1]
        return port


def visit(port: int) -> None:
    """Ask the web application for its page, if it listens already."""
    with suppress(OSError), closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("GET", "/")
        assert connection.getresponse().status == 200


def rows(database: Path) -> int:
    """How many rows there are in the database's tables; 0 while there is none."""
    if not database.exists():
        return 0
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return sum(connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in tables)
