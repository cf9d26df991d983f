"""examples/reviews: what an API server sends, as it stands, by the two commands of the tutorial."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from injector import GROUP
from tests import reviews, schemas
from tests.podrunner.s3 import free_ports

Object = dict[str, Any]

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples" / "reviews"
NAMESPACE = "litestream-examples"
USER = {"username": "kubernetes-admin", "groups": ["kubeadm:cluster-admins", "system:authenticated"]}
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text().split("\n## 1. ")[1].split("\n## 2. ")[0]
COMMANDS = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```$", TUTORIAL, re.MULTILINE | re.DOTALL)
    for line in block.replace("\\\n", "").splitlines()
]


def example(name: str) -> Object:
    (found,) = (
        each for each in yaml.safe_load_all((ROOT / "examples" / name).read_text()) if each["kind"] != "Service"
    )
    return dict(found)


def as_sent(obj: Object, resource: str, number: int) -> Object:
    """The AdmissionReview of an API server (1.30 to 1.36) for an object that is created."""
    group, _, version = obj["apiVersion"].rpartition("/")
    kind = {"group": group, "version": version, "kind": obj["kind"]}
    named = {"group": group, "version": version, "resource": resource}
    return {
        "kind": "AdmissionReview",
        "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": f"{number:08d}-0000-4000-8000-000000000000",
            "kind": kind,
            "resource": named,
            "requestKind": kind,
            "requestResource": named,
            "name": obj["metadata"]["name"],
            "namespace": NAMESPACE,
            "operation": "CREATE",
            "userInfo": USER,
            "object": obj,
            "oldObject": None,
            "dryRun": False,
            "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
        },
    }


def denied() -> Object:
    pod = example("01-pod.yaml")
    pod["metadata"]["annotations"] |= {f"{GROUP}/bucket": "My_Bucket", f"{GROUP}/sync-intervall": "1d"}
    pod["metadata"]["annotations"][f"{GROUP}/path"] = "data/app.db"
    return pod


def seen_again() -> Object:
    """The Pod after the first call, with the token that the ServiceAccount admission mounts into all its containers."""
    pod = copy.deepcopy(reviews.injected(example("01-pod.yaml"), namespace=NAMESPACE))
    token = {
        "name": "kube-api-access-7k2ld",
        "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
        "readOnly": True,
    }
    for container in pod["spec"]["initContainers"] + pod["spec"]["containers"]:
        container["volumeMounts"] = [*container.get("volumeMounts", []), token]
    projected = [{"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}}]
    pod["spec"]["volumes"].append({"name": token["name"], "projected": {"sources": projected}})
    pod["spec"]["serviceAccountName"] = "default"
    return pod


REVIEWS = {
    "pod": as_sent(example("01-pod.yaml"), "pods", 1),
    "denied-pod": as_sent(denied(), "pods", 2),
    "deployment": as_sent(example("03-deployment.yaml"), "deployments", 3),
    "second-call": as_sent(seen_again(), "pods", 1),
}


@pytest.mark.parametrize("name", REVIEWS)
def test_they_are_what_an_api_server_sends_for_the_examples(name: str, request: pytest.FixtureRequest) -> None:
    path, text = FOLDER / f"{name}.json", json.dumps(REVIEWS[name], indent=2) + "\n"
    if request.config.getoption("--update"):
        path.write_text(text)
    assert path.read_text() == text, "run `make golden`"
    for release in schemas.RELEASES:
        assert list(schemas.problems(REVIEWS[name]["request"]["object"], release)) == []


def test_each_is_told_of_and_no_other_is_there() -> None:
    told = set(re.findall(r"\]\(reviews/(\S+)\.json\)", (ROOT / "examples" / "README.md").read_text()))
    assert told == {path.stem for path in FOLDER.iterdir()} == set(REVIEWS)


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    """The tutorial's first command; yields the environment of the others."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    (port,) = free_ports(1)
    environment = {"PATH": os.environ["PATH"], "HOST": "127.0.0.1", "PORT": str(port), "NO_PROXY": "*"}
    assert COMMANDS[0].endswith("functions-framework --target mutate")
    process = subprocess.Popen(["sh", "-c", f"exec {COMMANDS[0]}"], cwd=ROOT, env=environment, start_new_session=True)
    try:
        deadline = time.monotonic() + 60
        while True:
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield environment
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def told(command: str, environment: dict[str, str]) -> str:
    """What a command of the tutorial prints, with the server where it is here."""
    shown = command.replace("127.0.0.1:8080", f"127.0.0.1:{environment['PORT']}")
    done = subprocess.run(["sh", "-c", shown], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def curls(name: str) -> list[str]:
    """The tutorial's commands that send a review."""
    return [
        line for line in COMMANDS if f"curl -sS -d @examples/reviews/{name}.json http://127.0.0.1:8080/mutate" in line
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", REVIEWS)
def test_curl_alone_gets_an_answer_to_its_uid(name: str, server: dict[str, str]) -> None:
    """`curl -d` says that it sends a form; what it sends counts, not what it says."""
    answer = json.loads(told(f"curl -sS -d @examples/reviews/{name}.json http://127.0.0.1:8080/mutate", server))
    assert answer["response"]["uid"] == REVIEWS[name]["request"]["uid"]
    assert answer["response"]["allowed"] is (name != "denied-pod")
    assert ("patch" in answer["response"]) is (name in ("pod", "deployment"))


@pytest.mark.slow
def test_the_tutorial_shows_the_pod_as_it_would_be_created(server: dict[str, str]) -> None:
    plain, applied = curls("pod")
    assert json.loads(told(plain, server))["response"]["allowed"]
    assert yaml.safe_load(told(applied, server)) == reviews.injected(example("01-pod.yaml"), namespace=NAMESPACE)


@pytest.mark.slow
def test_the_tutorial_shows_a_denial_with_every_mistake(server: dict[str, str]) -> None:
    (command,) = curls("denied-pod")
    message = told(command, server)
    quoted = re.findall(r"^```text\n(.*?)^```$", TUTORIAL, re.MULTILINE | re.DOTALL)
    assert quoted == [message]
    assert message.count("\n- ") == 2


@pytest.mark.slow
def test_the_tutorial_shows_that_a_deployment_is_checked_and_a_second_call_changes_nothing(
    server: dict[str, str],
) -> None:
    (deployment,), (again,) = curls("deployment"), curls("second-call")
    before, after = example("03-deployment.yaml"), next(yaml.safe_load_all(told(deployment, server)))
    assert after["metadata"].pop("labels") == {f"{GROUP}/replicates": "true"}
    assert after == before
    assert json.loads(told(again, server))["response"] == {
        **json.loads(told(again, server))["response"],
        "allowed": True,
    }


@pytest.mark.slow
def test_every_other_command_of_the_tutorial_s_first_step_works(server: dict[str, str]) -> None:
    (as_pod,) = (line for line in COMMANDS if "--as-pod" in line)
    kinds = [each["kind"] for each in yaml.safe_load_all(told(as_pod, server))]
    assert kinds == ["Pod", "Service"]
    named = {name for name in REVIEWS if curls(name)}
    assert named == set(REVIEWS)
    assert len(COMMANDS) == 1 + sum(len(curls(name)) for name in REVIEWS) + len([as_pod]) + 1
    assert COMMANDS[-1] == "make run"
