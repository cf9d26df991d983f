"""Calls to the Kubernetes API, against a strict stand-in behind a real TLS socket."""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import pytest

from injector.cluster import client as module
from injector.cluster.client import Cluster, ClusterError, Conflict, in_cluster
from injector.tls import certificate
from tests import standin
from tests.standin import NAME, NAMESPACE, SECRET, Api, Fault, Rule, Server

T = TypeVar("T")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with standin.serving(tmp_path) as found:
        found.api.put("mutatingwebhookconfigurations", "", standin.configuration())
        yield found


def ask(server: Server, call: Callable[[Cluster], Awaitable[T]]) -> T:
    async def main() -> T:
        cluster = server.cluster()
        try:
            return await call(cluster)
        finally:
            await cluster.close()

    return asyncio.run(main())


def secret(**data: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": SECRET, "namespace": NAMESPACE},
        "data": data,
    }


def test_a_secret_is_created_read_and_replaced_under_its_version(server: Server) -> None:
    async def calls(cluster: Cluster) -> None:
        assert await cluster.get_secret(NAMESPACE, SECRET) is None
        created = await cluster.create_secret(NAMESPACE, secret(a="YQ=="))
        with pytest.raises(Conflict, match="already exists"):
            await cluster.create_secret(NAMESPACE, secret(a="Yg=="))
        newer = await cluster.replace_secret(NAMESPACE, created | {"data": {"a": "Yw=="}})
        with pytest.raises(Conflict, match="modified"):
            await cluster.replace_secret(NAMESPACE, created | {"data": {"a": "ZA=="}})
        assert await cluster.get_secret(NAMESPACE, SECRET) == newer
        assert newer["data"] == {"a": "Yw=="}

    ask(server, calls)


def test_a_patch_changes_one_field_and_keeps_the_rest(server: Server) -> None:
    before = server.api.configuration()
    patch = {
        "metadata": {"resourceVersion": before["metadata"]["resourceVersion"]},
        "webhooks": [{"name": "pods.example.com", "clientConfig": {"caBundle": "YQ=="}}],
    }
    after = ask(server, lambda cluster: cluster.patch_webhook_configuration(NAME, patch))
    assert after["webhooks"][0]["clientConfig"].pop("caBundle") == "YQ=="
    assert after["webhooks"] == before["webhooks"]
    assert after["metadata"]["labels"] == {"kept": "yes"}
    with pytest.raises(Conflict):
        ask(server, lambda cluster: cluster.patch_webhook_configuration(NAME, patch))


def test_a_watch_tells_of_every_change(server: Server) -> None:
    async def calls(cluster: Cluster) -> None:
        events = cluster.watch_webhook_configuration(NAME)
        await anext(events)  # what there is
        for _ in range(3):
            server.api.put("mutatingwebhookconfigurations", "", standin.configuration())
            await anext(events)
        for connection in server.connections:
            connection.shutdown(socket.SHUT_RDWR)
        with pytest.raises(StopAsyncIteration):
            await anext(events)
        with pytest.raises(ClusterError, match="can't watch mutatingwebhookconfigurations"):
            await anext(Cluster("https://127.0.0.1:1", server.folder).watch_webhook_configuration(NAME))

    ask(server, calls)


def test_one_pod_comes_whole_by_its_name(server: Server) -> None:
    for pod in (standin.pod("web"), standin.pod("web-2"), standin.pod("web", namespace="other")):
        server.api.put("pods", pod["metadata"]["namespace"], pod)
    found = ask(server, lambda cluster: cluster.find_pod("apps", "web"))
    assert found == server.api.objects["pods", "apps", "web"]
    assert ask(server, lambda cluster: cluster.find_pod("apps", "gone")) is None


def test_of_a_namespace_only_the_metadata_comes(server: Server) -> None:
    server.api.rules.append(Rule(["get"], "", "namespaces"))
    server.api.put("namespaces", "", {"metadata": {"name": "shop"}, "spec": {"finalizers": ["kubernetes"]}})
    found = ask(server, lambda cluster: cluster.get_namespace("shop"))
    assert found is not None
    assert found["metadata"]["name"] == "shop"
    assert "spec" not in found
    assert ask(server, lambda cluster: cluster.get_namespace("other")) is None


def lease(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "replica-a", "namespace": NAMESPACE},
        "spec": {"holderIdentity": "apps/web", "acquireTime": "2026-01-01T12:00:00.000000Z"} | spec,
    }


async def listed(cluster: Cluster) -> list[dict[str, Any]]:
    return [found async for page in cluster.list_leases(NAMESPACE) for found in page]


def test_many_leases_come_page_by_page(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE", 3)
    for number in range(7):
        server.api.put("leases", NAMESPACE, lease() | {"metadata": {"name": f"replica-{number}"}})

    async def pages(cluster: Cluster) -> list[list[str]]:
        return [[found["metadata"]["name"][-1] for found in page] async for page in cluster.list_leases(NAMESPACE)]

    assert ask(server, pages) == [["0", "1", "2"], ["3", "4", "5"], ["6"]]


def test_a_lease_is_created_replaced_and_deleted_under_its_version(server: Server) -> None:
    async def calls(cluster: Cluster) -> None:
        assert await cluster.get_lease(NAMESPACE, "replica-a") is None
        created = await cluster.create_lease(NAMESPACE, lease())
        with pytest.raises(Conflict, match="already exists"):
            await cluster.create_lease(NAMESPACE, lease())
        newer = await cluster.replace_lease(NAMESPACE, created | {"spec": lease(holderIdentity="apps/api")["spec"]})
        with pytest.raises(Conflict, match="modified"):
            await cluster.replace_lease(NAMESPACE, created)
        assert await listed(cluster) == [newer] == [await cluster.get_lease(NAMESPACE, "replica-a")]
        later = {"op": "replace", "path": "/spec/acquireTime", "value": "2026-01-02T12:00:00.000000Z"}

        def held_by(holder: str) -> list[dict[str, Any]]:
            return [{"op": "test", "path": "/spec/holderIdentity", "value": holder}, later]

        newer = await cluster.patch_lease(NAMESPACE, "replica-a", held_by("apps/api"))
        assert newer["spec"] == lease(holderIdentity="apps/api", acquireTime=later["value"])["spec"]
        for name, holder in (("replica-a", "apps/web"), ("replica-b", "apps/api")):
            with pytest.raises(Conflict):
                await cluster.patch_lease(NAMESPACE, name, held_by(holder))
        assert await cluster.get_lease(NAMESPACE, "replica-a") == newer
        uid, version = newer["metadata"]["uid"], newer["metadata"]["resourceVersion"]
        for stale in ((uid, created["metadata"]["resourceVersion"]), ("another", version)):
            with pytest.raises(Conflict, match="Precondition failed"):
                await cluster.delete_lease(NAMESPACE, "replica-a", *stale)
        await cluster.delete_lease(NAMESPACE, "replica-a", uid, version)
        await cluster.delete_lease(NAMESPACE, "replica-a", uid, version)  # gone is gone
        assert await listed(cluster) == []
        with pytest.raises(Conflict, match="UID"):  # a Lease can be created by PUT: not by one that replaces
            await cluster.replace_lease(NAMESPACE, newer)

    ask(server, calls)


@pytest.mark.parametrize(
    ("fault", "requests"),
    [
        (Fault(500, times=2), 3),
        (Fault(503, times=2), 3),
        (Fault(429, headers={"Retry-After": "0"}), 2),
        (Fault(0, times=2), 3),
    ],
    ids=["500", "503", "429", "reset"],
)
def test_a_passing_fault_is_tried_again(server: Server, fault: Fault, requests: int) -> None:
    server.api.faults.append(fault)
    assert ask(server, lambda cluster: cluster.get_webhook_configuration(NAME)) == server.api.configuration()
    assert len(server.api.requests) == requests


def test_an_outage_of_some_seconds_is_waited_for(server: Server) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    async def main() -> None:
        cluster = Cluster(f"https://{server.host}:{server.port}", server.folder, sleep)
        assert await cluster.get_webhook_configuration(NAME)
        await cluster.close()

    server.api.faults.append(Fault(503, times=9))
    asyncio.run(main())
    assert len(pauses) == 9
    assert max(pauses) <= module.LONGEST_PAUSE


def test_a_server_that_asks_for_patience_gets_it(server: Server) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    async def main() -> None:
        cluster = Cluster(f"https://{server.host}:{server.port}", server.folder, sleep)
        await cluster.get_webhook_configuration(NAME)
        await cluster.close()

    server.api.faults.append(Fault(429, times=2, headers={"Retry-After": "7"}))
    asyncio.run(main())
    assert len(pauses) == 2
    assert all(7 <= pause <= 7 + module.LONGEST_PAUSE for pause in pauses)


def test_a_lasting_fault_ends_in_one_clear_error(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIMIT", 1.0)
    server.api.faults.append(Fault(500, times=100))
    with pytest.raises(ClusterError, match=r'get secrets "litestream-hook-tls".* 500 "as the test wished"'):
        ask(server, lambda cluster: cluster.get_secret(NAMESPACE, SECRET))


def test_a_slow_server_is_given_up_within_the_limit(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIMIT", 1.0)
    server.api.faults.append(Fault(times=100, seconds=5))
    with pytest.raises(ClusterError, match=r"can't list pods .* was asked for 1 s in vain: there was no answer"):
        ask(server, lambda cluster: cluster.find_pod("apps", "web"))


def test_a_handshake_that_the_limit_ends_leaves_no_connection(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIMIT", 0.2)

    async def main() -> None:
        left = asyncio.Event()

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()  # until the other side closes
            writer.close()
            left.set()

        async with await asyncio.start_server(silent, "127.0.0.1", 0) as listening:
            cluster = Cluster(f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}", server.folder)
            with pytest.raises(ClusterError, match=r"asked for 0\.2 s in vain"):
                await cluster.find_pod("apps", "web")
            await left.wait()

    asyncio.run(main())


def test_nobody_listening_is_told_in_words(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIMIT", 0.2)

    async def main() -> None:
        cluster = Cluster("https://127.0.0.1:1", server.folder)
        with pytest.raises(ClusterError, match=r"can.t get secrets .*Connect call failed"):
            await cluster.get_secret(NAMESPACE, SECRET)
        await cluster.close()

    asyncio.run(main())


def test_a_rotated_token_is_read_again(server: Server) -> None:
    async def calls(cluster: Cluster) -> None:
        assert await cluster.get_webhook_configuration(NAME)
        server.api.tokens = {"the.second.token"}
        (server.folder / "token").write_text("the.second.token")
        assert await cluster.get_webhook_configuration(NAME)

    ask(server, calls)
    assert len(server.api.requests) == 2


def test_a_token_rotated_during_the_call_is_read_again_after_the_401(server: Server) -> None:
    server.api.tokens = {"the.second.token"}

    async def rotate(_: float) -> None:
        (server.folder / "token").write_text("the.second.token")

    async def main() -> None:
        cluster = Cluster(f"https://{server.host}:{server.port}", server.folder, rotate)
        assert await cluster.get_webhook_configuration(NAME)
        await cluster.close()

    asyncio.run(main())


def test_a_token_that_is_refused_twice_is_an_error(server: Server) -> None:
    server.api.tokens = set()
    with pytest.raises(ClusterError, match="does not accept the ServiceAccount's token") as caught:
        ask(server, lambda cluster: cluster.get_secret(NAMESPACE, SECRET))
    assert caught.value.status == 401
    assert standin.TOKEN not in str(caught.value)
    assert len(server.api.requests) == 2


@pytest.mark.parametrize(
    ("call", "rule"),
    [
        (
            lambda cluster: anext(cluster.watch_webhook_configuration(NAME)),
            'ClusterRole: {apiGroups: ["admissionregistration.k8s.io"], resources: ["mutatingwebhookconfigurations"], '
            + 'resourceNames: ["litestream-hook"], verbs: ["watch"]}',
        ),
        (
            lambda cluster: cluster.get_secret(NAMESPACE, SECRET),
            'Role: {apiGroups: [""], resources: ["secrets"], resourceNames: ["litestream-hook-tls"], verbs: ["get"]}',
        ),
        (
            lambda cluster: cluster.create_secret(NAMESPACE, secret()),
            'Role: {apiGroups: [""], resources: ["secrets"], verbs: ["create"]}',
        ),
        (
            lambda cluster: cluster.find_pod("apps", "web"),
            'Role: {apiGroups: [""], resources: ["pods"], verbs: ["list"]}',
        ),
        (
            lambda cluster: cluster.get_namespace("shop"),
            'ClusterRole: {apiGroups: [""], resources: ["namespaces"], verbs: ["get"]}',
        ),
        (
            lambda cluster: cluster.patch_webhook_configuration(NAME, {}),
            'ClusterRole: {apiGroups: ["admissionregistration.k8s.io"], resources: ["mutatingwebhookconfigurations"], '
            + 'resourceNames: ["litestream-hook"], verbs: ["patch"]}',
        ),
    ],
    ids=["watch configuration", "get secret", "create secret", "list pods", "get namespace", "patch configuration"],
)
def test_a_missing_permission_names_the_rule_to_add(server: Server, call: Any, rule: str) -> None:
    server.api.rules.clear()
    with pytest.raises(ClusterError, match="403") as caught:
        ask(server, call)
    assert rule in str(caught.value)
    assert standin.USER in str(caught.value)
    assert len(server.api.requests) == 1  # trying again would change nothing


def test_a_permission_for_one_name_is_not_one_for_all(server: Server) -> None:
    server.api.rules = [Rule(["get"], "", "secrets", NAMESPACE, ["other"])]
    with pytest.raises(ClusterError, match="403"):
        ask(server, lambda cluster: cluster.get_secret(NAMESPACE, SECRET))


def test_a_server_of_another_ca_is_not_talked_to(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIMIT", 1.0)

    async def main() -> None:
        ca = certificate.make_ca("kubernetes", datetime.now(UTC))
        (server.folder / "ca.crt").write_bytes(ca.certificate)
        address = f"https://{server.host}:{server.port}"
        cluster = Cluster(address, server.folder)
        with pytest.raises(ClusterError, match="certificate verify failed"):
            await cluster.get_secret(NAMESPACE, SECRET)
        await cluster.close()

    asyncio.run(main())
    assert server.api.requests == []


def test_a_changed_ca_of_the_api_server_is_picked_up(server: Server) -> None:
    right = (server.folder / "ca.crt").read_bytes()

    async def mend(_: float) -> None:
        (server.folder / "ca.crt").write_bytes(right)

    async def main() -> None:
        ca = certificate.make_ca("kubernetes", datetime.now(UTC))
        (server.folder / "ca.crt").write_bytes(ca.certificate)
        cluster = Cluster(f"https://{server.host}:{server.port}", server.folder, mend)
        assert await cluster.get_webhook_configuration(NAME)
        await cluster.close()

    asyncio.run(main())


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"\xff", b'{"items": 3}'])
def test_an_answer_that_is_none_is_an_error_in_words(
    server: Server, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def call(*_: object, **__: object) -> bytes:
        return body

    async def calls(cluster: Cluster) -> None:
        monkeypatch.setattr(cluster, "_call", call)
        with pytest.raises(ClusterError, match="is not a list of Pods"):
            await cluster.find_pod("apps", "web")

    ask(server, calls)


def test_outside_a_cluster_there_is_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert in_cluster({}, tmp_path) is None
    assert not caplog.records
    assert in_cluster({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, tmp_path) is None
    assert "automountServiceAccountToken: true" in caplog.text


def test_an_ipv6_service_address_is_bracketed(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t")
    found = in_cluster({"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"}, tmp_path)
    assert found is not None
    assert found.address == "https://[fd00::1]:6443"


def test_the_stand_in_knows_what_a_real_one_refuses() -> None:
    """The stand-in is only worth something if it says no."""

    def handle(method: str, path: str, body: Any = None, kind: str = "application/json") -> int:
        headers = {"authorization": f"Bearer {standin.TOKEN}", "content-type": kind}
        return api.handle(standin.Request(method, path, headers, json.dumps(body).encode())).status

    api = Api()
    api.put("mutatingwebhookconfigurations", "", standin.configuration())
    secrets = f"/api/v1/namespaces/{NAMESPACE}/secrets"
    ours = f"/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{NAME}"
    strategic = "application/strategic-merge-patch+json"
    assert handle("GET", "/api/v1/secrets") == 404
    assert handle("GET", f"{secrets}/other") == 403
    assert handle("DELETE", f"{secrets}/{SECRET}") == 403
    assert handle("POST", secrets, secret() | {"type": "kubernetes.io/tls"}) == 422
    assert handle("POST", secrets, secret(), "text/plain") == 415
    assert handle("POST", secrets, secret()) == 201
    assert handle("PUT", f"{secrets}/{SECRET}", secret() | {"type": "kubernetes.io/tls"}) == 422
    assert handle("PATCH", ours, {}, "application/json") == 415
    assert handle("PATCH", ours, {"webhooks": [{"name": "new"}]}, strategic) == 422
    assert handle("PATCH", ours, {"metadata": {"resourceVersion": "1"}}, strategic) == 409
    assert handle("GET", "/api/v1/namespaces/apps/pods?fieldSelector=spec.x!%3Dy") == 400


def test_many_calls_at_once_share_the_connections(server: Server) -> None:
    async def calls(cluster: Cluster) -> None:
        for _ in range(3):
            await asyncio.gather(*(cluster.get_webhook_configuration(NAME) for _ in range(30)))

    ask(server, calls)
    assert len(server.api.requests) == 90
    assert len(server.connections) <= 30  # all of them are kept for the next calls
