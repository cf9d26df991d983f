"""CA and certificate are replaced while the API server calls, and no call fails."""

from __future__ import annotations

import base64
import json
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from injector.tls import source
from injector.tls.certificate import make_ca, make_leaf
from tests.envtest import pods
from tests.envtest.cluster import Cluster
from tests.envtest.installation import CONFIGURATION, HOST, NAME, Installation, Replica, installed

pytestmark = [pytest.mark.apiserver, pytest.mark.slow]

# Minutes become seconds; the order of the steps, which is what protects, stays.
HURRIED = """
from datetime import timedelta
from injector.tls import certificate, renewal, rotation
rotation.POLL, rotation.SOON, rotation.JITTER = 3.0, 0.2, 0.0
renewal.SETTLE, rotation.PROPAGATION = timedelta(seconds=8) - certificate.SKEW, timedelta(seconds=5)
"""


def aged_secret() -> pods.Object:
    """What the replicas have shared for nine months: a CA and a certificate that are both due."""
    names = (HOST, f"{HOST}.cluster.local")
    ca = make_ca(f"litestream-hook CA of {names[0]}", datetime.now(UTC) - timedelta(days=270))
    leaf = make_leaf(ca, names, datetime.now(UTC) - timedelta(days=70))
    return source.write(None, NAME, f"{NAME}-tls", source.Shared(ca, (), leaf))


def admissions(cluster: Cluster, namespace: str, stop: threading.Event, failures: list[str]) -> int:
    """Ask for Pods (dry runs) as fast as the API server answers, until told to stop; how many were answered."""
    context = ssl.create_default_context(cafile=str(cluster.ca))
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    token = (cluster.folder / "tokens.csv").read_text().split(",")[0]
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    url = f"{cluster.url}/api/v1/namespaces/{namespace}/pods?dryRun=All"
    body = json.dumps(pods.pod("app")).encode()
    answered = 0
    while not stop.is_set():
        try:
            with opener.open(urllib.request.Request(url, body, headers), timeout=30) as answer:
                if not pods.injected(json.load(answer)):
                    failures.append("not injected")
        except urllib.error.HTTPError as error:
            failures.append(error.read().decode())
        answered += 1
    return answered


@contextmanager
def under_load(cluster: Cluster) -> Iterator[None]:
    """Ask for Pods all the while; each must be admitted and injected."""
    namespace = cluster.namespace()
    stop, failures, answered = threading.Event(), list[str](), list[int]()
    load = threading.Thread(target=lambda: answered.append(admissions(cluster, namespace, stop, failures)))
    load.start()
    try:
        yield
    finally:
        stop.set()
        load.join()
    assert failures == []
    assert answered[0] > 1


def test_an_aged_ca_and_certificate_are_replaced_and_no_admission_fails(cluster: Cluster, tmp_path: Path) -> None:
    aged = aged_secret()
    with (
        installed(cluster, tmp_path, extra=[aged]) as installation,
        installation.replica(HURRIED) as first,
        under_load(cluster),
        # It comes when the first has begun to rotate, and has to find its place in that.
        installation.replica(HURRIED) as second,
    ):
        until_rotated(installation, (first, second), base64.b64decode(aged["data"]["ca.crt"]))


def test_a_secret_that_is_lost_is_replaced_and_no_admission_fails(cluster: Cluster, tmp_path: Path) -> None:
    with (
        installed(cluster, tmp_path) as installation,
        installation.replica(HURRIED) as first,
        installation.replica(HURRIED) as second,
        under_load(cluster),
    ):
        (old,) = set(installation.ca_bundles())
        assert cluster.kubectl("delete", "secret", f"{NAME}-tls", namespace=NAME).code == 0
        until_rotated(installation, (first, second), old)
        assert installation.secret() is not None


def test_a_ca_bundle_that_somebody_clears_is_written_again_at_once(cluster: Cluster, tmp_path: Path) -> None:
    """By the watch alone: the next look at everything never comes here."""
    patient = "from injector.tls import rotation\nrotation.POLL = 3600.0"
    namespace = cluster.namespace()
    with (
        installed(cluster, tmp_path) as installation,
        installation.replica(patient),
        installation.replica(patient),
    ):
        (ours,) = set(installation.ca_bundles())
        clear = [{"op": "remove", "path": f"/webhooks/{number}/clientConfig/caBundle"} for number in (0, 1)]
        for _ in range(3):
            patched = cluster.kubectl("patch", *CONFIGURATION, "--type=json", "--patch-file=/dev/stdin", stdin=clear)
            assert patched.code == 0, patched.error
            deadline = time.monotonic() + 30
            while set(installation.ca_bundles()) != {ours}:
                assert time.monotonic() < deadline, "not mended"
        assert pods.injected(cluster.create(pods.pod("app"), namespace))


def until_rotated(installation: Installation, replicas: Sequence[Replica], old: bytes) -> None:
    """Wait until no replica serves a certificate of the old CA.

    All the while each must serve one that a caBundle read just before verifies.
    """
    deadline = time.monotonic() + 120
    while any(trusts(old, replica) for replica in replicas):
        assert time.monotonic() < deadline, [replica.log.read_text()[-2000:] for replica in replicas]
        (bundle,) = set(installation.ca_bundles())
        time.sleep(0.5)
        for replica in replicas:
            replica.certificate(bundle)


def trusts(ca: bytes, replica: Replica) -> bool:
    """Whether a client that knows only `ca` can call the replica."""
    try:
        replica.certificate(ca)
    except ssl.SSLCertVerificationError:
        return False
    return True
