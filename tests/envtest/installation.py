"""The manifests of an overlay in the API server, and the webhook's replicas as its Pods would run.

Three things differ from a cluster. The Service is an ExternalName that leads to localhost, because there is
no network of Pods; the API server still calls by the Service's name and verifies the certificate for it.
Replicas are processes that find the ServiceAccount's token in a mount namespace of their own, where the
kubelet would mount it. They listen on free ports of loopback.
"""

from __future__ import annotations

import base64
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.envtest import service as services
from tests.envtest.cluster import ENVIRONMENT, Cluster, free_ports, started
from tests.envtest.service import Service
from tests.envtest.webhook import ROOT, Object, rendered

NAME = "litestream-hook"
CONFIGURATION = ("mutatingwebhookconfiguration", NAME)
HOST = f"{NAME}.{NAME}.svc"
POLICY = "ValidatingAdmissionPolicy"
FOLDER_OF_TOKEN = "run/secrets/kubernetes.io/serviceaccount"
# /run is hidden behind an empty one, in which the token's folder appears; nobody outside sees it.
MOUNTED = (
    f'mount -t tmpfs none /run && mkdir -p /{FOLDER_OF_TOKEN} && mount --bind "$0" /{FOLDER_OF_TOKEN} && exec "$@"'
)


@dataclass(frozen=True)
class Replica:
    """One replica of the webhook: its process and its ports."""

    process: subprocess.Popen[bytes]
    port: int
    health: int
    log: Path

    def ready(self) -> bool:
        """Whether /readyz says so."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://127.0.0.1:{self.health}/readyz", timeout=5):
                return True
        except OSError:
            return False

    def certificate(self, ca: bytes) -> str:
        """The certificate that it serves (PEM), after a handshake that trusts `ca` and asks for the Service."""
        context = ssl.create_default_context(cadata=ca.decode())
        with context.wrap_socket(_connected(self.port), server_hostname=HOST) as connection:
            return ssl.DER_cert_to_PEM_cert(connection.getpeercert(binary_form=True) or b"")


@dataclass
class Installation:
    """What `installed` made."""

    cluster: Cluster
    folder: Path
    service: Service
    environment: Mapping[str, str]

    def ca_bundles(self) -> list[bytes]:
        """The caBundle of each webhook in the configuration."""
        found = self.cluster.kubectl("get", *CONFIGURATION, "-o", "json").json
        return [base64.b64decode(one["clientConfig"].get("caBundle", "")) for one in found["webhooks"]]

    def secret(self) -> Object | None:
        """The Secret that the replicas share."""
        answer = self.cluster.kubectl(
            "get", "secret", f"{NAME}-tls", "--ignore-not-found", "-o", "json", namespace=NAME
        )
        return answer.json if answer.output else None

    @contextmanager
    def replica(self, prelude: str = "") -> Iterator[Replica]:
        """Run one replica and send it connections once it is ready.

        `prelude` is Python that runs first in its process, for constants that a test has no time for.
        """
        port, metrics, health = free_ports(3)
        own = {
            "HOST": "127.0.0.1",
            "PORT": str(port),
            "METRICS_BIND_ADDRESS": f"127.0.0.1:{metrics}",
            "HEALTH_PROBE_BIND_ADDRESS": f"127.0.0.1:{health}",
        }
        program = f"{prelude}\nimport runpy; runpy.run_module('injector', run_name='__main__', alter_sys=True)"
        command = in_mount_namespace(self.folder / "token", [sys.executable, "-c", program, "serve"])
        log = self.folder / f"replica-{port}.log"
        with started(command, log, {**ENVIRONMENT, **self.environment, **own}, ROOT) as process:
            replica = Replica(process, port, health, log)
            deadline = time.monotonic() + 60
            while not replica.ready():
                assert process.poll() is None, f"the replica ended: {log.read_text()[-3000:]}"
                assert time.monotonic() < deadline, f"the replica is not ready: {log.read_text()[-3000:]}"
                time.sleep(0.1)
            self.service.backends.append(port)
            try:
                yield replica
            finally:
                self.service.backends.remove(port)


def in_mount_namespace(token: Path, command: Sequence[str]) -> list[str]:
    """The command, for a process that sees `token` where a Pod's ServiceAccount token is mounted."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    prefix = [shutil.which("unshare") or "unshare", *user, "--mount"]
    allowed = subprocess.run([*prefix, "true"], capture_output=True, text=True, check=False)
    if allowed.returncode != 0:
        pytest.skip(f"a mount namespace can't be made here: {allowed.stderr.strip()}")
    return [*prefix, "sh", "-c", MOUNTED, str(token), *command]


@contextmanager
def installed(
    cluster: Cluster, folder: Path, overlay: str = "self-signed", extra: Sequence[Object] = (), port: int = 0
) -> Iterator[Installation]:
    """Apply an overlay, and `extra` objects before any replica runs; all is deleted at the end.

    `port` is the Service's; 0: a free one.
    """
    with ExitStack() as stack:
        service = stack.enter_context(services.serving(port))
        objects = [_adapted(one, service.port) for one in rendered(cluster, overlay)]
        # Objects without a namespace outlive the one that is deleted.
        stack.callback(_delete, cluster, objects)
        cluster.apply(*objects, *extra)
        token = folder / "token"
        token.mkdir()
        (token / "token").write_text(cluster.token(NAME, NAME))
        (token / "namespace").write_text(NAME)
        shutil.copy(cluster.ca, token / "ca.crt")
        (deployment,) = (one for one in objects if one["kind"] == "Deployment")
        environment = _environment(deployment) | {
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(urlsplit(cluster.url).port),
        }
        yield Installation(cluster, folder, service, environment)


def _adapted(manifest: Object, port: int) -> Object:
    if manifest["kind"] == "Service":
        return manifest | {"spec": {"type": "ExternalName", "externalName": "localhost"}}
    if manifest["kind"] == "MutatingWebhookConfiguration":
        for webhook in manifest["webhooks"]:
            webhook["clientConfig"]["service"]["port"] = port
    return manifest


def _environment(deployment: Mapping[str, Any]) -> dict[str, str]:
    """What the Deployment gives its container; the only field that is referred to is the namespace."""
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    fields = {"metadata.namespace": deployment["metadata"]["namespace"]}
    return {
        one["name"]: one["value"] if "value" in one else fields[one["valueFrom"]["fieldRef"]["fieldPath"]]
        for one in container["env"]
    }


def _delete(cluster: Cluster, objects: Sequence[Object]) -> None:
    # Nobody here finishes the deletion of a namespace: what is in it goes one by one, the namespace stays.
    # Nor is the policy deleted: an API server (1.36) does not enforce one again whose paramKind it had forgotten.
    rest = [one for one in objects if one["kind"] != "Namespace" and not one["kind"].startswith(POLICY)]
    items = {"apiVersion": "v1", "kind": "List", "items": rest}
    answer = cluster.kubectl("delete", "--ignore-not-found", "--wait=false", "-f", "-", stdin=items)
    assert answer.code == 0, answer.error
    for others in (("secret", f"{NAME}-tls", "--ignore-not-found"), ("lease", "--all", "--wait=false")):
        answer = cluster.kubectl("delete", *others, namespace=NAME)
        assert answer.code == 0, answer.error


def _connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)
