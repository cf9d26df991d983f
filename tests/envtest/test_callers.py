"""Only who shows a certificate of the right CA may call, and the API server does once its own files tell it to."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.envtest import keys, pods
from tests.envtest.cluster import Cluster, free_ports, running
from tests.envtest.installation import HOST, Installation, Replica, installed
from tests.envtest.webhook import ROOT

pytestmark = [pytest.mark.apiserver, pytest.mark.slow]

SHIPPED = ROOT / "k8s/components/client-certificate/control-plane"


@pytest.fixture(scope="module")
def clients() -> keys.Authority:
    """The CA of the API server's own certificate."""
    return keys.authority("front-proxy-ca")


def strict(installation: Installation, clients: keys.Authority) -> Installation:
    """The installation as the component `client-certificate` makes it."""
    path = installation.folder / "client-ca.crt"
    path.write_bytes(clients.pem)
    return dataclasses.replace(installation, environment={**installation.environment, "CLIENT_CA_FILE": str(path)})


def control_plane(folder: Path, clients: keys.Authority, port: int) -> Path:
    """The shipped files on the API server's machine, with the paths and the port of this one; the first of them."""
    certificate, key = keys.serving(clients, folder / "client", "front-proxy-client")
    there = {
        "/etc/kubernetes/admission": str(folder),
        "/etc/kubernetes/pki/front-proxy-client.crt": str(certificate),
        "/etc/kubernetes/pki/front-proxy-client.key": str(key),
        ".svc:9443": f".svc:{port}",
    }
    for path in SHIPPED.iterdir():
        text = path.read_text()
        for ours, here in there.items():
            text = text.replace(ours, here)
        (folder / path.name).write_text(text)
    return folder / "admission.yaml"


@pytest.fixture(scope="module")
def known(assets: Path, clients: keys.Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation in a cluster whose API server was set up with the shipped files."""
    (port,) = free_ports(1)
    folder = tmp_path_factory.mktemp("known")
    flag = f"--admission-control-config-file={control_plane(tmp_path_factory.mktemp('admission'), clients, port)}"
    with (
        running(assets, folder, flags=[flag]) as cluster,
        installed(cluster, tmp_path_factory.mktemp("installation"), port=port) as installation,
    ):
        yield strict(installation, clients)


def test_the_api_servers_certificate_is_asked_for_and_let_in(known: Installation) -> None:
    with known.replica() as replica:
        assert pods.injected(known.cluster.create(pods.pod("app"), known.cluster.namespace()))
        assert answer_to_nobody(replica, known.ca_bundles()[0]) == b""


def answer_to_nobody(replica: Replica, ca: bytes) -> bytes:
    """What a caller without a certificate is answered; with TLS 1.3 it thinks at first that it is let in."""
    context = ssl.create_default_context(cadata=ca.decode())
    with (
        socket.create_connection(("127.0.0.1", replica.port), timeout=10) as connection,
        context.wrap_socket(connection, server_hostname=HOST) as nobody,
        contextlib.suppress(ssl.SSLError, ConnectionError),
    ):
        nobody.sendall(b"GET /mutate HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return nobody.recv(1000)
    return b""


def test_an_api_server_without_a_certificate_is_refused(
    cluster: Cluster, clients: keys.Authority, tmp_path: Path
) -> None:
    """As in a managed cluster, where nobody can give it one."""
    with installed(cluster, tmp_path) as installation:
        with installation.replica() as lenient:
            assert answer_to_nobody(lenient, installation.ca_bundles()[0]).startswith(b"HTTP/1.1 405 ")
        with strict(installation, clients).replica():
            refused = cluster.try_create(pods.pod("app"), cluster.namespace())
        assert refused.code == 1
        assert "failed calling webhook" in refused.error
