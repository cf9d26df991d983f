"""SFTP: an OpenSSH server with a host key of each kind, which lets one key of a user in."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as make_ecdsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as make_rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tests.podrunner.images import CACHE, PATH
from tests.podrunner.s3 import free_ports
from tests.stores.server import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

UNPACKED = CACHE / "openssh/usr"
USER = "nobody"  # whom the server runs as, and so the only one that it can let in
# Without PAM it takes an account whose password it may not read for a locked one.
CONFIG = """
Port {port}
ListenAddress 127.0.0.1
AuthorizedKeysFile {directory}/client.pub
StrictModes no
UsePAM yes
PasswordAuthentication no
KbdInteractiveAuthentication no
PidFile none
Subsystem sftp internal-sftp
"""
# In the order in which a server shows them to Litestream.
MAKERS: dict[str, Callable[[], Ed25519PrivateKey | EllipticCurvePrivateKey | RSAPrivateKey]] = {
    "ecdsa": lambda: make_ecdsa(SECP256R1()),
    "rsa": lambda: make_rsa(65537, 2048),
    "ed25519": Ed25519PrivateKey.generate,
}
KINDS = tuple(MAKERS)


def missing() -> str | None:
    """Why there is no OpenSSH server on this machine, or None if there is one."""
    return None if _binary() else "sshd not found: run tests/stores/install"


class Sftp(Server):
    """An OpenSSH server until the `with` block ends, with a host key of each of these kinds."""

    def __init__(self, kinds: Sequence[str] = KINDS) -> None:
        super().__init__(*free_ports(1))
        self._kinds = kinds

    @property
    def annotations(self) -> dict[str, str]:
        """Those of a Pod whose replicas are there."""
        return {"bucket": self.bucket(f"{self.directory}/replicas"), "host-key": self.host_key(self._kinds[0])}

    @property
    def secret(self) -> dict[str, str]:
        """The data of the Secret."""
        return {"ssh-privatekey": (self.directory / "client").read_text()}

    def bucket(self, directory: str) -> str:
        """A directory of its user, as a bucket."""
        return f"sftp://{USER}@127.0.0.1:{self.port}{directory}"

    def host_key(self, kind: str) -> str:
        """The server's public key of a kind, as OpenSSH writes it."""
        return (self.directory / f"{kind}.pub").read_text()

    def start(self) -> None:
        """Make keys, and start the server as a user that owns the directory."""
        make_key(self.directory / "client")
        for kind in self._kinds:
            make_key(self.directory / kind, kind)
        keys = "".join(f"HostKey {self.directory}/{kind}\n" for kind in self._kinds)
        (self.directory / "config").write_text(CONFIG.format(port=self.port, directory=self.directory) + keys)
        for path in (self.directory, *self.directory.iterdir()):
            shutil.chown(path, USER)
        libraries = ":".join(str(path.parent) for path in UNPACKED.glob("lib/*/libwrap.so.0"))
        command = [_binary() or "sshd", "-D", "-e", "-f", str(self.directory / "config")]
        self.run(command, {"LD_LIBRARY_PATH": libraries} if libraries else {}, user=USER)


def _binary() -> str | None:
    return shutil.which("sshd", path=os.pathsep.join((PATH, str(UNPACKED / "sbin"))))


def make_key(file: Path, kind: str = "ed25519") -> Path:
    """A new key pair: the private one in this file, the public one beside it."""
    key = MAKERS[kind]()
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    file.chmod(0o600)
    file.with_suffix(".pub").write_bytes(key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH))
    return file
