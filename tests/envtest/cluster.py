"""etcd and kube-apiserver, started for the tests from the folder that KUBEBUILDER_ASSETS names.

The folder is the one that controller-runtime's `setup-envtest` makes: `etcd`, `kube-apiserver` and
`kubectl` of one Kubernetes version. There are no controllers and no kubelet behind it, unless the folder
also holds `kube-controller-manager`: Pods are admitted and stored, and nobody runs them.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import yaml
from cryptography.hazmat.primitives.asymmetric import ec

from tests.envtest import keys

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

ISSUER = "https://kubernetes.default.svc.cluster.local"
PROGRAMS = ("etcd", "kube-apiserver", "kubectl")
ENVIRONMENT = {"PATH": os.defpath, "HOME": "/nonexistent", "NO_PROXY": "*"}
"""What every process here gets: no proxy, no kubeconfig of whoever runs the tests."""


@dataclass(frozen=True)
class Answer:
    """How a kubectl call ended: its exit code, and what it wrote."""

    code: int
    output: str
    error: str

    @property
    def json(self) -> Any:
        """The object that was printed; fails with kubectl's own words when the call did."""
        assert self.code == 0, self.error
        return json.loads(self.output)


@dataclass(frozen=True)
class Cluster:
    """A running API server and how to reach it."""

    assets: Path
    folder: Path
    url: str
    kubeconfig: Path

    def kubectl(
        self,
        *arguments: str,
        stdin: object | None = None,
        namespace: str | None = None,
        token: str | None = None,
    ) -> Answer:
        """Run kubectl as the cluster's admin, or with `token`; `stdin` is sent as JSON."""
        kubeconfig = self.kubeconfig if token is None else self.kubeconfig_of(token)
        command = [str(self.assets / "kubectl"), f"--kubeconfig={kubeconfig}"]
        if namespace is not None:
            command.append(f"--namespace={namespace}")
        text = stdin if isinstance(stdin, str) else None if stdin is None else json.dumps(stdin)
        done = subprocess.run(
            [*command, *arguments],
            input=text,
            capture_output=True,
            text=True,
            env=ENVIRONMENT | {"HOME": str(self.folder)},
            timeout=60,
            check=False,
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    def apply(self, *manifests: Mapping[str, Any], namespace: str | None = None) -> None:
        """Create or change objects as the admin; fails with kubectl's message."""
        answer = self.kubectl("apply", "-f", "-", stdin=as_list(manifests), namespace=namespace)
        assert answer.code == 0, answer.error

    def create(self, manifest: Mapping[str, Any], namespace: str) -> dict[str, Any]:
        """Create one object and return it as it was stored; fails with kubectl's message."""
        stored: dict[str, Any] = self.try_create(manifest, namespace).json
        return stored

    def try_create(self, manifest: Mapping[str, Any], namespace: str) -> Answer:
        """Create one object that may be refused."""
        return self.kubectl("create", "-f", "-", "-o", "json", stdin=manifest, namespace=namespace)

    def namespace(self, labels: Mapping[str, str] | None = None, name: str | None = None) -> str:
        """A namespace, fresh if it is given no name, with the ServiceAccount that Pods get when they name none."""
        name = name or f"test-{uuid4().hex[:8]}"
        self.apply(
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": name, "labels": dict(labels or {})},
            }
        )
        # The controller manager makes it, where there is one; apply agrees with both.
        self.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}, namespace=name)
        return name

    def token(self, namespace: str, service_account: str) -> str:
        """A bound token of a ServiceAccount, as the kubelet would mount it."""
        answer = self.kubectl("create", "token", service_account, namespace=namespace)
        assert answer.code == 0, answer.error
        return answer.output.strip()

    @property
    def ca(self) -> Path:
        """The CA that the API server's certificate chains to."""
        return self.folder / "ca.crt"

    def kubeconfig_of(self, token: str) -> Path:
        """A kubeconfig that speaks with a token."""
        path = self.folder / f"kubeconfig-{uuid4().hex[:8]}"
        write_kubeconfig(path, self.url, self.ca, token)
        return path


def as_list(manifests: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Several objects as the one that kubectl reads."""
    return {"apiVersion": "v1", "kind": "List", "items": list(manifests)}


@contextmanager
def running(assets: Path, folder: Path, plugins: Sequence[str] = (), flags: Sequence[str] = ()) -> Iterator[Cluster]:
    """Start etcd and kube-apiserver on free ports of loopback; they end with the block.

    `plugins` are admission plugins beyond the default ones, `flags` go to the API server. `folder` gets keys, data and
    logs.
    """
    token = uuid4().hex
    etcd_client, etcd_peer, secure = free_ports(3)
    ca = keys.authority("test cluster")
    (folder / "ca.crt").write_bytes(ca.pem)
    certificate, key = keys.serving(ca, folder / "apiserver", "127.0.0.1", "localhost")
    signing = ec.generate_private_key(ec.SECP256R1())
    keys.private(folder / "service-account.key", signing)
    keys.public(folder / "service-account.pub", signing)
    (folder / "tokens.csv").touch(mode=0o600)
    (folder / "tokens.csv").write_text(f"{token},admin,admin,system:masters\n")
    url = f"https://127.0.0.1:{secure}"
    write_kubeconfig(folder / "kubeconfig", url, folder / "ca.crt", token)
    client, peer = (f"http://127.0.0.1:{port}" for port in (etcd_client, etcd_peer))
    etcd = [
        str(assets / "etcd"),
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",
    ]
    apiserver = [
        str(assets / "kube-apiserver"),
        f"--etcd-servers={client}",
        "--bind-address=127.0.0.1",
        f"--secure-port={secure}",
        f"--tls-cert-file={certificate}",
        f"--tls-private-key-file={key}",
        f"--token-auth-file={folder / 'tokens.csv'}",
        "--authorization-mode=RBAC",
        f"--service-account-issuer={ISSUER}",
        f"--service-account-key-file={folder / 'service-account.pub'}",
        f"--service-account-signing-key-file={folder / 'service-account.key'}",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--endpoint-reconciler-type=none",
        *([f"--enable-admission-plugins={','.join(plugins)}"] if plugins else []),
        *flags,
    ]
    with ExitStack() as stack:
        stack.enter_context(started(etcd, folder / "etcd.log"))
        process = stack.enter_context(started(apiserver, folder / "kube-apiserver.log"))
        cluster = Cluster(assets, folder, url, folder / "kubeconfig")
        until_ready(cluster, process, token)
        yield cluster


@contextmanager
def started(
    command: Sequence[str],
    log: Path,
    environment: Mapping[str, str] = ENVIRONMENT,
    directory: Path | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process whose output goes to a file; at the end SIGTERM, or SIGKILL where that is too little."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            cwd=directory,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def until_ready(cluster: Cluster, process: subprocess.Popen[bytes], token: str) -> None:
    """Wait until the API server says ready and the namespace `default` exists."""
    context = ssl.create_default_context(cafile=str(cluster.ca))
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    last = "no answer"
    deadline = time.monotonic() + 120
    for path in ("/readyz", "/api/v1/namespaces/default"):
        request = urllib.request.Request(cluster.url + path, headers={"Authorization": f"Bearer {token}"})
        while True:
            log = cluster.folder / "kube-apiserver.log"
            assert process.poll() is None, f"kube-apiserver ended: {log.read_text()[-3000:]}"
            assert time.monotonic() < deadline, f"kube-apiserver is not ready ({last}): {log.read_text()[-3000:]}"
            try:
                with opener.open(request, timeout=5):
                    break
            except OSError as error:  # HTTPError and URLError are OSErrors
                last = str(error)
                if isinstance(error, urllib.error.HTTPError):
                    error.close()
            time.sleep(0.1)


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listened on a moment ago."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def write_kubeconfig(path: Path, url: str, ca: Path, token: str) -> None:
    """A kubeconfig with one cluster, one user with a token, one context."""
    path.touch(mode=0o600)
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "test", "cluster": {"server": url, "certificate-authority": str(ca)}}],
                "users": [{"name": "test", "user": {"token": token}}],
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
                "current-context": "test",
            }
        )
    )
