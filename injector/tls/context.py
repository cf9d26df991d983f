"""Contexts that serve a certificate, and why a client would refuse one: what OpenSSL says."""

from __future__ import annotations

import os
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from pathlib import Path

from injector.tls.certificate import BadCertificate, Facts, Pair, blocks, facts, kinds

# X509_V_FLAG_NO_CHECK_TIME, which ssl has no name for: dates are compared with the caller's clock.
_NO_CHECK_TIME = 0x200000


def server_context(pair: Pair, client_ca: bytes = b"") -> ssl.SSLContext:
    """A context that serves `pair`: TLS 1.2 or newer, HTTP/1.1.

    `client_ca` (PEM) is what clients' certificates are verified with, if the connection asks for them.
    Raises BadCertificate with what is wrong: no certificate, no key, an encrypted key, a key of another
    certificate, or anything else that OpenSSL refuses.
    """
    if not blocks(pair.certificate):
        raise BadCertificate("there is no certificate in it (PEM is expected)")
    labels = [kind for kind in kinds(pair.key) if kind.endswith(b"PRIVATE KEY")]
    if not labels:
        raise BadCertificate("there is no private key in it (PEM is expected)")
    if labels[0].startswith(b"ENCRYPTED") or b"4,ENCRYPTED" in pair.key:
        raise BadCertificate("the private key is encrypted: store it without a passphrase")
    context = _bare(ssl.PROTOCOL_TLS_SERVER)
    try:
        with _as_file(pair.certificate.strip() + b"\n" + pair.key) as path:
            context.load_cert_chain(path, password=_no_password)
        if client_ca:
            context.load_verify_locations(cadata=client_ca.decode("ascii", "replace"))
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise BadCertificate("the private key does not belong to the certificate") from None
        raise BadCertificate(f"OpenSSL refuses it: {error.reason or error}") from None
    return context


cached_context = lru_cache(maxsize=4)(server_context)  # for who asks again and again


def outer_context(client_auth: bool) -> ssl.SSLContext:  # noqa: FBT001 (named by its only caller)
    """The context that connections begin with; an `sni_callback` gives them their certificate.

    With `client_auth` each connection has to show a certificate. None resumes an earlier one, which would go on being
    believed for two hours after its CA was replaced: TLS 1.3 without tickets, as OpenSSL remembers all sessions of
    TLS 1.2, and ssl can't forbid it.
    """
    context = _bare(ssl.PROTOCOL_TLS_SERVER)
    if client_auth:
        context.verify_mode = ssl.CERT_REQUIRED
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.num_tickets = 0
    return context


def why_untrusted(context: ssl.SSLContext, leaf: Facts, bundle: bytes, name: str, now: datetime) -> str:
    """Why a client that trusts only `bundle` (PEM) and asks for `name` refuses `context` at `now`.

    Empty if it accepts. `leaf` are the facts of the certificate that `context` serves. As Go's verifier
    does, every certificate of the bundle is taken as an anchor, and the common name does not count.
    """
    if problem := leaf.problem_at(now):
        return f"the certificate is {problem}"
    anchors = [block for block in blocks(bundle) if _valid_at(block, now)]
    if not anchors:
        return "there is no certificate in it" if not blocks(bundle) else "all of its certificates have expired"
    return _refusal(context, tuple(anchors), name)


@lru_cache(maxsize=8)
def _refusal(context: ssl.SSLContext, anchors: tuple[bytes, ...], name: str) -> str:
    client = _bare(ssl.PROTOCOL_TLS_CLIENT)
    client.verify_flags = ssl.VerifyFlags(
        client.verify_flags & ~ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
    )
    client.hostname_checks_common_name = False
    try:
        for anchor in anchors:
            client.load_verify_locations(cadata=anchor.decode("ascii", "replace"))
        _handshake(client, context, name)
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    except ssl.SSLError as error:
        return error.reason or str(error)
    return ""


def _handshake(client: ssl.SSLContext, server: ssl.SSLContext, name: str) -> None:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_hostname=name)
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):  # flights: TLS 1.3 needs two, TLS 1.2 three
        done = True
        for side in (ours, theirs):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                done = False
        if done:
            return
    raise ssl.SSLError("the handshake did not end")


def _bare(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _no_password() -> str:
    raise BadCertificate("the private key is encrypted: store it without a passphrase")


@contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """A path that `content` can be read from for a moment: ssl takes keys from files alone.

    On Linux it is memory: no key on a disk, and a full or read-only one does not matter.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("tls")
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            yield f"/proc/self/fd/{descriptor}"
        return
    descriptor, path = tempfile.mkstemp()  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        yield path
    finally:
        Path(path).unlink()


def _valid_at(pem: bytes, now: datetime) -> bool:
    try:
        return not facts(pem).problem_at(now)
    except BadCertificate:
        return False
