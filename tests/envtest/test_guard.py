"""Two Pods at the same moment, through two replicas of the webhook: never do both get in."""

from __future__ import annotations

import http.client
import json
import os
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Self
from urllib.parse import urlsplit

import pytest

from injector.pod.claim import carried
from tests.envtest import pods
from tests.envtest.cluster import Cluster
from tests.envtest.installation import NAME, Installation, installed

pytestmark = [pytest.mark.apiserver, pytest.mark.slow]

PAIRS = int(os.environ.get("PAIRS", "5"))  # of each kind, with each pause
PAUSES = (0, 5, 10, 40)  # milliseconds between the two


@pytest.fixture(scope="module")
def installation(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("pairs")
    with installed(cluster, folder) as one, one.replica(), one.replica():
        yield one


class Client:
    """One connection to the API server, kept, so that a request costs no handshake."""

    def __init__(self, cluster: Cluster) -> None:
        context = ssl.create_default_context(cafile=str(cluster.ca))
        address = urlsplit(cluster.url)
        self._connection = http.client.HTTPSConnection(address.hostname or "", address.port, context=context)
        token = (cluster.folder / "tokens.csv").read_text().split(",")[0]
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def __enter__(self) -> Self:
        self.ask("GET", "/version")  # the handshake
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def create(self, namespace: str, manifest: pods.Object) -> tuple[int, pods.Object]:
        """The status and body of the answer."""
        return self.ask("POST", f"/api/v1/namespaces/{namespace}/pods", manifest)

    def ask(self, method: str, path: str, body: pods.Object | None = None) -> tuple[int, pods.Object]:
        self._connection.request(method, path, None if body is None else json.dumps(body), self._headers)
        answer = self._connection.getresponse()
        return answer.status, json.loads(answer.read())


Pair = Callable[[int, str, str], tuple[tuple[str, pods.Object], tuple[str, pods.Object]]]


def of_one_workload(number: int, one: str, _: str) -> tuple[tuple[str, pods.Object], tuple[str, pods.Object]]:
    return ((one, pods.owned(f"shop-{number}")),) * 2


def of_two_workloads(number: int, one: str, _: str) -> tuple[tuple[str, pods.Object], tuple[str, pods.Object]]:
    shared = pods.asking(replica_path=f"{one}/{number}/{{database}}")
    return (one, pods.owned(f"shop-{number}", shared)), (one, pods.owned(f"store-{number}", shared))


def beside_a_path_of_its_own(number: int, one: str, _: str) -> tuple[tuple[str, pods.Object], tuple[str, pods.Object]]:
    beside = pods.asking(replica_path=f"{{namespace}}/pod/vic-{number}/{{database}}")
    return (one, pods.pod(f"vic-{number}")), (one, pods.pod(f"maintenance-{number}", beside))


def in_two_namespaces(number: int, one: str, two: str) -> tuple[tuple[str, pods.Object], tuple[str, pods.Object]]:
    shared = pods.asking(replica_path=f"{one}-{two}/{number}/{{database}}", endpoint="http://minio:9000")
    other_spelling = shared | pods.asking(endpoint="http://MINIO:9000/")
    return (one, pods.owned(f"shop-{number}", shared)), (two, pods.owned(f"shop-{number}", other_spelling))


@pytest.mark.parametrize("pause", PAUSES)
@pytest.mark.parametrize("pair", [of_one_workload, of_two_workloads, beside_a_path_of_its_own, in_two_namespaces])
@pytest.mark.usefixtures("installation")
def test_of_two_pods_at_once_one_gets_in(cluster: Cluster, pair: Pair, pause: int) -> None:
    one, two = cluster.namespace(), cluster.namespace()
    with Client(cluster) as first, Client(cluster) as second, ThreadPoolExecutor(2) as threads:
        ready = threading.Barrier(2)

        def create(client: Client, milliseconds: int, namespace: str, manifest: pods.Object) -> tuple[int, pods.Object]:
            ready.wait()
            time.sleep(milliseconds / 1000)
            return client.create(namespace, manifest)

        for number in range(PAIRS):
            both = pair(number, one, two)
            answers = list(threads.map(create, (first, second), (0, pause), *zip(*both, strict=True)))
            statuses = sorted(status for status, _ in answers)
            assert statuses in ([201, 403], [201, 409]), [body.get("message") for _, body in answers]
    written = [
        lease
        for namespace in (one, two)
        for pod in cluster.kubectl("get", "pods", "-o", "json", namespace=namespace).json["items"]
        for lease in carried(pod).leases
    ]
    assert len(written) == len(set(written)) == PAIRS


@pytest.mark.usefixtures("installation")
def test_a_quota_that_refuses_a_pod_is_what_its_author_reads_at_every_try(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    hard = {"pods": "0"}
    cluster.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": hard}},
                  namespace=namespace)  # fmt: skip
    status = json.dumps({"status": {"hard": hard, "used": {"pods": "0"}}})  # no controller counts here
    patched = cluster.kubectl(
        "patch", "resourcequota", "none", "--subresource=status", "--type=merge", "-p", status, namespace=namespace
    )
    assert patched.code == 0, patched.error
    for _ in range(3):
        refused = cluster.try_create(pods.owned("shop"), namespace)
        assert refused.code == 1
        assert "exceeded quota: none" in refused.error
    assert cluster.kubectl("delete", "resourcequota", "none", namespace=namespace).code == 0
    assert pods.injected(cluster.create(pods.owned("shop"), namespace))


@pytest.mark.usefixtures("installation")
def test_a_copy_of_a_living_pod_and_a_dry_run_take_nothing(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    stored = cluster.create(pods.owned("shop"), namespace)
    (name,) = carried(stored).leases
    lease = cluster.kubectl("get", "lease", name, "-o", "json", namespace=NAME).json
    assert lease["spec"]["holderIdentity"] == f"{namespace}/{stored['metadata']['name']}"
    metadata = {key: stored["metadata"][key] for key in ("annotations", "labels", "ownerReferences")}
    copied = {**stored, "metadata": {**metadata, "name": "copy"}}
    assert "still writes the replica" in cluster.try_create(copied, namespace).error
    dry_run = cluster.kubectl(
        "create", "--dry-run=server", "-f", "-", "-o", "json", stdin=pods.owned("other"), namespace=namespace
    )
    assert carried(dry_run.json).leases == ()
    assert cluster.kubectl("get", "lease", name, "-o", "json", namespace=NAME).json == lease


@pytest.mark.usefixtures("installation")
def test_a_lease_changes_under_its_uid_and_version_alone(cluster: Cluster) -> None:
    """What the protocol rests on, as the API server does it."""
    namespace = cluster.namespace()
    cluster.create(pods.owned("shop"), namespace)
    with Client(cluster) as client:
        path = f"/apis/coordination.k8s.io/v1/namespaces/{NAME}/leases"
        _, leases = client.ask("GET", path)
        lease = next(one for one in leases["items"] if one["spec"]["holderIdentity"].startswith(f"{namespace}/"))
        own = f"{path}/{lease['metadata']['name']}"

        def delete(**preconditions: str) -> int:
            options = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": preconditions}
            return client.ask("DELETE", own, options)[0]

        uid, version = lease["metadata"]["uid"], lease["metadata"]["resourceVersion"]
        status, newer = client.ask("PUT", own, lease | {"spec": {**lease["spec"], "leaseTransitions": 1}})
        assert status == 200
        assert client.ask("PUT", own, lease)[0] == 409
        assert delete(uid=uid, resourceVersion=version) == 409
        assert delete(uid="another", resourceVersion=newer["metadata"]["resourceVersion"]) == 409
        assert delete(uid=uid, resourceVersion=newer["metadata"]["resourceVersion"]) == 200
        assert client.ask("PUT", own, newer)[0] == 409, "a PUT with a uid does not create"
