"""The defaults of this moment: a changed file is taken anew, a broken one is not, an API that is away is told."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from injector import GROUP, options
from injector.annotations.defaults import Defaults
from injector.annotations.operator_file import InvalidDefaults
from injector.cluster.client import ClusterError
from injector.pod.claim import Refusal
from injector.serving.defaulting import Defaulting
from tests import reviews, running, standin
from tests.running import Replica, receive, review
from tests.test_server import refused

Object = dict[str, Any]
EAGER = "from injector.serving import defaulting\ndefaulting.POLL = 0.1\n"
IN_A_CLUSTER = "from pathlib import Path\nfrom injector.cluster import client\n"


class Namespaces:
    """Stands in for the look-up of a Namespace's annotations."""

    def __init__(self, found: Mapping[str, str] | ClusterError) -> None:
        self._found = found

    async def annotations(self, name: str) -> Mapping[str, str]:
        del name
        if isinstance(self._found, ClusterError):
            raise self._found
        return self._found


def used(defaulting: Defaulting, key: str = "bucket") -> str | None:
    found = asyncio.run(defaulting.of("shop"))
    assert isinstance(found, Defaults)
    return found.used[key].text if key in found.used else None


def swap(folder: Path, text: str | None) -> Path:
    """The file as a mounted ConfigMap changes it: all at once, by turning a link."""
    version = folder / f"..{time.monotonic_ns()}"
    version.mkdir(parents=True)
    if text is not None:
        (version / "defaults.yaml").write_text(text)
    link = folder / "..data_tmp"
    link.symlink_to(version.name)
    link.rename(folder / "..data")
    file = folder / "defaults.yaml"
    if not file.is_symlink():
        file.symlink_to("..data/defaults.yaml")
    return file


def test_a_changed_file_holds_from_the_next_look_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    told: list[bool] = []
    file = swap(tmp_path, "defaults: {bucket: one}")
    defaulting = Defaulting(options.read({"DEFAULTS_FILE": str(file)}), observe=told.append)
    assert used(defaulting) == "one"
    with caplog.at_level(logging.INFO):
        defaulting.look()
        assert told == []
        swap(tmp_path, "defaults: {bucket: two}")
        defaulting.look()
    assert used(defaulting) == "two"
    assert told == [True]
    assert "it holds from now on" in caplog.text


@pytest.mark.parametrize("broken", ["defaults: {bucket: B}", "{", "deafults: {}", None], ids=str)
def test_a_broken_file_leaves_what_was_before_and_is_told_once(
    broken: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[bool] = []
    file = swap(tmp_path, "defaults: {bucket: one}\nenforce: [bucket]")
    defaulting = Defaulting(options.read({"DEFAULTS_FILE": str(file)}), observe=told.append)
    swap(tmp_path, broken)
    for _ in range(3):
        defaulting.look()
    assert used(defaulting) == "one"
    assert told == [False]
    assert caplog.text.count("what it said before goes on") == 1
    swap(tmp_path, "defaults: {bucket: one}\nenforce: [bucket]")
    defaulting.look()
    assert told == [False, True]


def test_a_file_that_is_broken_from_the_start_is_an_error(tmp_path: Path) -> None:
    """Without the policy that it may hold, tenants could write what they must not."""
    for text in ("defaults: {bucket: B}", None):
        file = swap(tmp_path, text)
        with pytest.raises(InvalidDefaults, match=r"defaults\.yaml: "):
            Defaulting(options.read({"DEFAULTS_FILE": str(file)}))


def test_annotations_of_the_namespace_are_nearer_than_the_file(tmp_path: Path) -> None:
    file = swap(tmp_path, "defaults: {bucket: far, region: far}")
    defaulting = Defaulting(options.read({"DEFAULTS_FILE": str(file)}), Namespaces({"bucket": "near"}))
    assert (used(defaulting), used(defaulting, "region")) == ("near", "far")


def test_while_the_api_is_away_a_pod_waits_and_a_workload_passes_unchecked() -> None:
    found = asyncio.run(Defaulting(reviews.DEFAULTS, Namespaces(ClusterError("it is away"))).of("shop"))
    assert isinstance(found, Refusal)
    reply = reviews.response(reviews.pod(), defaults=found)
    assert (reply["allowed"], reply["status"]["code"]) == (False, 403)
    assert "can't determine the defaults that Namespace shop has for its Pods: it is away" in reply["status"]["message"]
    workload = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {"replicas": 2, "template": {"metadata": reviews.pod()["metadata"], "spec": reviews.pod()["spec"]}},
    }
    assert "nothing was checked: " in reviews.warned(workload, defaults=found)


def test_the_guards_rule_lets_a_pod_pass_without_the_namespaces_defaults(caplog: pytest.LogCaptureFixture) -> None:
    chosen = options.read({"GUARD_ON_ERROR": "allow"})
    assert used(Defaulting(chosen, Namespaces(ClusterError("it is away")))) is None
    assert "they are left out" in caplog.text


# A real process from here on.


def ask(replica: Replica, pod: Object, namespace: str = "shop") -> Object:
    """The `response` of a running webhook to a Pod."""
    body = review(object=pod, name=pod["metadata"]["name"], namespace=namespace)
    with replica.connect() as connection:
        connection.sendall(b"POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        answer: Object = json.loads(receive(connection).partition(b"\r\n\r\n")[2])["response"]
    return answer


def status(reply: Object) -> Object:
    """The status annotation that an answer's patch writes."""
    assert reply["allowed"], reply
    key = f"/metadata/annotations/{GROUP.replace('/', '~1')}~1status"
    (found,) = (each["value"] for each in reviews.operations(reply) if each["path"] == key)
    decoded: Object = json.loads(found)
    return decoded


def wait_for(what: Callable[[], object]) -> None:
    end = time.monotonic() + running.START_SECONDS
    while not what():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)


GAUGE = "litestream_hook_defaults_last_reload_successful"


@pytest.mark.slow
def test_a_running_webhook_takes_a_changed_file_and_not_a_broken_one(tmp_path: Path) -> None:
    folder = tmp_path / "defaults"
    file = swap(folder, "defaults: {endpoint: 'http://one.example.com'}\nenforce: [endpoint]")
    with running.running(tmp_path, prelude=EAGER, DEFAULTS_FILE=str(file)) as replica:
        assert status(ask(replica, reviews.pod()))["endpoint"] == "http://one.example.com"
        assert replica.metric(GAUGE) == 1
        tenant = ask(replica, reviews.pod(endpoint="http://evil.example.com"))
        assert not tenant["allowed"]
        assert 'it is "http://one.example.com" here' in tenant["status"]["message"]
        swap(folder, "defaults: {endpoint: 'http://two.example.com'}")
        wait_for(lambda: status(ask(replica, reviews.pod()))["endpoint"] == "http://two.example.com")
        swap(folder, "defaults: {endpoint: nowhere, bucket: B}")
        wait_for(lambda: replica.metric(GAUGE) == 0)
        assert status(ask(replica, reviews.pod()))["endpoint"] == "http://two.example.com"
        assert replica.get("readyz")[0] == 200
        (line,) = (line["message"] for line in replica.lines() if line["level"] == "error")
        assert 'defaults.endpoint: "nowhere": write a URL' in line
        assert 'defaults.bucket: "B": write an S3 bucket name' in line
        swap(folder, "defaults: {endpoint: 'http://three.example.com'}")
        wait_for(lambda: replica.metric(GAUGE) == 1)
        assert status(ask(replica, reviews.pod()))["endpoint"] == "http://three.example.com"
        assert replica.stop() == 0


@pytest.mark.slow
def test_a_webhook_with_a_broken_file_does_not_start_and_says_why(tmp_path: Path) -> None:
    file = tmp_path / "defaults.yaml"
    file.write_text("defaults: {buckt: one}")
    code, said = refused(tmp_path, DEFAULTS_FILE=str(file))
    assert code == 1
    assert "defaults.buckt: is no key of an annotation; did you mean bucket?" in said
    assert "Traceback" not in said


@contextlib.contextmanager
def in_a_cluster(tmp_path: Path, reading: str) -> Iterator[tuple[Replica, standin.Server]]:
    """A webhook that asks an API, which trusts its certificate and lets it read Namespaces."""
    folder = tmp_path / "api"
    folder.mkdir()
    with standin.serving(folder) as api:
        running.write_pair(tmp_path / "certificates")
        bundle = base64.b64encode((tmp_path / "certificates-ca.crt").read_bytes()).decode()
        hook = standin.webhook("pods.example.com", ca_bundle=bundle)
        api.api.put("mutatingwebhookconfigurations", "", standin.configuration(hook))
        api.api.rules.append(standin.Rule(["get"], "", "namespaces"))
        prelude = f"{EAGER}{IN_A_CLUSTER}client.in_cluster.__defaults__ = (Path({str(folder)!r}),)\n"
        with running.running(
            tmp_path,
            prelude=prelude,
            KUBERNETES_SERVICE_HOST=api.host,
            KUBERNETES_SERVICE_PORT=api.port,
            NAMESPACE_DEFAULTS=reading,
        ) as replica:
            yield replica, api


@pytest.mark.slow
def test_a_running_webhook_reads_the_namespace_where_it_may(tmp_path: Path) -> None:
    with in_a_cluster(tmp_path, "true") as (replica, api):
        api.api.put("namespaces", "", {"metadata": {"name": "shop", "annotations": {f"{GROUP}/bucket": "theirs"}}})
        assert status(ask(replica, reviews.pod()))["bucket"] == "theirs"
        assert status(ask(replica, reviews.pod(), "other"))["bucket"] == "litestream"
        api.api.rules = [rule for rule in api.api.rules if rule.resource != "namespaces"]
        reply = ask(replica, reviews.pod({}, {"name": "next"}), "third")
        assert not reply["allowed"]
        assert (
            'add this rule to its ClusterRole: {apiGroups: [""], resources: ["namespaces"]'
            in reply["status"]["message"]
        )


@pytest.mark.slow
def test_nobody_asks_for_a_namespace_unless_the_operator_says_so(tmp_path: Path) -> None:
    with in_a_cluster(tmp_path, "false") as (replica, api):
        api.api.put("namespaces", "", {"metadata": {"name": "shop", "annotations": {f"{GROUP}/bucket": "theirs"}}})
        assert status(ask(replica, reviews.pod()))["bucket"] == "litestream"
        assert not any("namespaces/shop " in f"{each} " for each in api.api.requests)
