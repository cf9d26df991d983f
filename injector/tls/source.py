"""Where certificates come from: mounted files, and what the replicas share in a Secret (or in memory)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from injector.tls.certificate import BadCertificate, Pair, blocks, check_ca, issued_by
from injector.values import Object

CERTIFICATE, KEY = "tls.crt", "tls.key"
CA_BUNDLE, CA_KEY = "ca.crt", "ca.key"
SECRET_TYPE = "kubernetes.io/tls"  # noqa: S105 (a type, not a secret)


@dataclass(frozen=True, slots=True)
class Shared:
    """What the replicas share: the CA that signs, the CAs that are trusted still, the leaf that is served."""

    ca: Pair
    old: tuple[bytes, ...]
    leaf: Pair

    @property
    def bundle(self) -> bytes:
        """Every CA to trust, the one that signs first (PEM)."""
        return b"".join(block.strip() + b"\n" for block in (self.ca.certificate, *self.old))


def mounted(folder: Path) -> Pair | None:
    """The certificate and key in `folder`; None where there are neither.

    Raises BadCertificate if one of the two is missing or unreadable. Kubelet swaps a mounted Secret by
    turning a symlink: the two files are taken from the same side of a swap.
    """
    certificate, key = folder / CERTIFICATE, folder / KEY
    for _ in range(3):
        before = certificate.resolve()
        try:
            pair = Pair(certificate.read_bytes(), key.read_bytes())
        except FileNotFoundError as error:
            if not certificate.exists() and not key.exists():
                return None
            if before == certificate.resolve():
                raise BadCertificate(
                    f"{error.filename} is missing: {folder} needs both {CERTIFICATE} and {KEY}"
                ) from None
            continue
        except OSError as error:
            raise BadCertificate(f"{error.filename} can't be read: {error.strerror}") from None
        if before == certificate.resolve():
            return pair
    raise BadCertificate(f"{folder} changes faster than it can be read")


def content(secret: Object) -> dict[str, bytes]:
    """The Secret's data, decoded; values that are not base64 count as empty."""
    data = secret.get("data")
    return {k: _decoded(v) for k, v in data.items()} if isinstance(data, dict) else {}


def read(data: Mapping[str, bytes], ca_name: str) -> Shared:
    """What a Secret's data holds.

    Raises BadCertificate unless its CA is one of ours, with its key. The leaf and all dates are not checked.
    """
    return _read(tuple(data.get(key, b"") for key in (CA_BUNDLE, CA_KEY, CERTIFICATE, KEY)), ca_name)


@lru_cache(maxsize=4)
def _read(values: tuple[bytes, ...], ca_name: str) -> Shared:
    for key, value in zip((CA_BUNDLE, CA_KEY), values, strict=False):
        if not value:
            raise BadCertificate(f"{key} is empty, missing or not base64")
    trusted = blocks(values[0])
    if not trusted:
        raise BadCertificate(f"{CA_BUNDLE} holds no certificate (PEM is expected)")
    ca = Pair(trusted[0], values[1])
    check_ca(ca, ca_name)
    return Shared(ca, tuple(trusted[1:]), Pair(values[2], values[3]))


def fields(shared: Shared) -> dict[str, bytes]:
    """The data of a Secret that holds `shared`, as `read` reads it."""
    return {
        CA_BUNDLE: shared.bundle,
        CA_KEY: shared.ca.key,
        CERTIFICATE: shared.leaf.certificate,
        KEY: shared.leaf.key,
    }


def write(secret: Object | None, namespace: str, name: str, shared: Shared) -> Object:
    """The Secret that holds `shared`: a new one, or `secret` with our keys replaced and all else kept."""
    encoded = {key: base64.b64encode(value).decode() for key, value in fields(shared).items()}
    if secret is not None:
        return secret | {"data": (secret.get("data") or {}) | encoded}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"app.kubernetes.io/managed-by": "litestream-hook"},
        },
        "type": SECRET_TYPE,
        "data": encoded,
    }


def signer(leaf: bytes, bundle: Sequence[bytes]) -> bytes | None:
    """The certificate of `bundle` that signed `leaf`; None if none did."""
    return next((ca for ca in bundle if issued_by(leaf, ca)), None)


def _decoded(value: object) -> bytes:
    try:
        return base64.b64decode(value, validate=True) if isinstance(value, str) else b""
    except (binascii.Error, ValueError):
        return b""
