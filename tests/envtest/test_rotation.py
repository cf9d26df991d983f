"""CA and certificate are replaced while the API server calls, and no call fails."""

from __future__ import annotations

import base64
import json
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from injector.tls import source
from injector.tls.certificate import make_ca, make_leaf
from tests.envtest import pods
from tests.envtest.cluster import Cluster
from tests.envtest.installation import HOST, NAME, Installation, Replica, installed

pytestmark = [pytest.mark.apiserver, pytest.mark.slow]

# Minutes become seconds; the order of the steps, which is what protects, stays.
HURRIED = """
from datetime import timedelta
from injector.tls import rotation
rotation.POLL, rotation.SOON, rotation.JITTER = 0.5, 0.2, 0.0
rotation.SETTLE, rotation.PROPAGATION = timedelta(seconds=6) - rotation.SKEW, timedelta(seconds=3)
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


def test_rotation_of_ca_and_certificate_fails_no_admission(cluster: Cluster, tmp_path: Path) -> None:
    aged = aged_secret()
    with (
        installed(cluster, tmp_path, extra=[aged]) as installation,
        installation.replica(HURRIED) as first,
        installation.replica(HURRIED) as second,
    ):
        namespace = cluster.namespace()
        stop, failures, answered = threading.Event(), list[str](), list[int]()
        load = threading.Thread(target=lambda: answered.append(admissions(cluster, namespace, stop, failures)))
        load.start()
        try:
            until_rotated(installation, (first, second), aged)
        finally:
            stop.set()
            load.join()
        assert failures == []
        assert answered[0] > 10


def until_rotated(installation: Installation, replicas: Sequence[Replica], aged: pods.Object) -> None:
    """Wait until no replica serves a certificate of the aged CA.

    All the while each must serve one that a caBundle read just before verifies.
    """
    old = base64.b64decode(aged["data"]["ca.crt"])
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
