"""The webhook as these tests run it, and the manifests that tell the API server of it."""

from __future__ import annotations

import base64
import ssl
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import yaml

from injector import GROUP, __version__
from tests import dist
from tests.envtest import keys
from tests.envtest.cluster import ENVIRONMENT, Cluster, free_ports, started

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).resolve().parents[2]
Object = dict[str, Any]


@dataclass(frozen=True)
class Webhook:
    """A running webhook: where it answers, and the CA that its certificate chains to."""

    url: str
    ca: keys.Authority
    process: subprocess.Popen[bytes]
    log: Path


@contextmanager
def serving(folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[Webhook]:
    """Run the webhook on a free port with a mounted certificate for 127.0.0.1, outside of any cluster."""
    folder.mkdir(parents=True, exist_ok=True)
    ca = keys.authority("test webhook")
    keys.serving(ca, folder / "certificates", "127.0.0.1")
    (folder / "ca.crt").write_bytes(ca.pem)
    port, metrics, health = free_ports(3)
    chosen = {
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "CERT_DIR": str(folder / "certificates"),
        "METRICS_BIND_ADDRESS": f"127.0.0.1:{metrics}",
        "HEALTH_PROBE_BIND_ADDRESS": f"127.0.0.1:{health}",
        **(environment or {}),
    }
    command = [sys.executable, "-m", "injector", "serve"]
    with started(command, folder / "webhook.log", ENVIRONMENT | chosen, ROOT) as process:
        webhook = Webhook(f"https://127.0.0.1:{port}/mutate", ca, process, folder / "webhook.log")
        until_answering(webhook, folder / "ca.crt")
        yield webhook


def until_answering(webhook: Webhook, ca: Path) -> None:
    """Wait until the webhook answers over TLS; what it answers does not matter here."""
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}),
        urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=str(ca))),
    )
    deadline = time.monotonic() + 60
    while True:
        assert webhook.process.poll() is None, f"the webhook ended: {webhook.log.read_text()[-3000:]}"
        assert time.monotonic() < deadline, f"the webhook does not answer: {webhook.log.read_text()[-3000:]}"
        try:
            with opener.open(webhook.url, data=b"", timeout=5):
                return
        except urllib.error.HTTPError as answer:
            answer.close()
            return
        except OSError:
            time.sleep(0.1)


def rendered(cluster: Cluster, overlay: str) -> list[Object]:
    """The objects of an overlay of k8s/, as `kubectl kustomize` renders them, of the chart, or of a release's file."""
    if overlay == "chart":
        made_by_helm = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "litestream-hook"}}
        return [made_by_helm, *dist.charted()]
    if overlay in dist.MANIFESTS:
        text = dist.manifests(dist.MANIFESTS[overlay], f"ghcr.io/kaidotio/litestream-hook:{__version__}")
        return list(yaml.safe_load_all(text))
    answer = cluster.kubectl("kustomize", str(ROOT / "k8s" / "overlays" / overlay))
    assert answer.code == 0, answer.error
    return [document for document in yaml.safe_load_all(answer.output) if document]


def configuration(cluster: Cluster, overlay: str = "self-signed") -> Object:
    """The overlay's MutatingWebhookConfiguration."""
    (found,) = (one for one in rendered(cluster, overlay) if one["kind"] == "MutatingWebhookConfiguration")
    return found


@contextmanager
def registered(
    cluster: Cluster,
    namespace: str,
    url: str,
    ca: keys.Authority,
    manifest: Mapping[str, Any] | None = None,
    group: str = GROUP,
) -> Iterator[str]:
    """Tell the API server of a webhook at `url` for what is made in one namespace, until the block ends.

    All but the address, the CA and the namespace is what the manifest says, by default the one in k8s/.
    Gives the name of the configuration.
    """
    template = configuration(cluster) if manifest is None else manifest
    name = f"{template['metadata']['name']}-{uuid4().hex[:8]}"
    selector = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    client = {"url": url, "caBundle": base64.b64encode(ca.pem).decode()}
    webhooks = [{**one, "clientConfig": client, "namespaceSelector": selector} for one in template["webhooks"]]
    cluster.apply(
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": name},
            "webhooks": webhooks,
        }
    )
    try:
        until_called(cluster, namespace, group)
        yield name
    finally:
        answer = cluster.kubectl("delete", "mutatingwebhookconfiguration", name)
        assert answer.code == 0, answer.error


def until_called(cluster: Cluster, namespace: str, group: str) -> None:
    """Wait until the API server knows the webhook: a Pod that only a webhook refuses is then refused."""
    probe = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "probe", "annotations": {f"{group}/inject": "maybe"}},
        "spec": {"containers": [{"name": "probe", "image": "probe"}]},
    }
    deadline = time.monotonic() + 60
    while cluster.kubectl("create", "--dry-run=server", "-f", "-", stdin=probe, namespace=namespace).code == 0:
        assert time.monotonic() < deadline, "the API server does not call the webhook"
        time.sleep(0.1)
