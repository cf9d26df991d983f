"""Certificates and keys as PEM: making a CA and a leaf, reading them, serving and verifying them.

Nothing here reads the clock or the network. Making and parsing is cryptography's work, which is imported
only there; verifying is OpenSSL's, by a handshake in memory, so that what is checked is what will happen.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

from injector.errors import quoted

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

CA_LIFE = timedelta(days=365)
LEAF_LIFE = timedelta(days=90)
SKEW = timedelta(hours=1)  # how far a client's clock may be behind ours

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----(?:(?!-----BEGIN).)+?-----END \1-----\n?", re.DOTALL)


class BadCertificate(Exception):
    """A certificate or key that can't be used; the message says what is wrong with it, and never shows it."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate (PEM, its chain behind it) and its private key (PEM)."""

    certificate: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Facts:
    """What a certificate says of itself. Names are DNS names and IP addresses, the issuer as in RFC 4514."""

    not_before: datetime
    not_after: datetime
    names: tuple[str, ...]
    issuer: str

    def problem_at(self, now: datetime) -> str:
        """Why it is not valid at `now`; empty if it is."""
        if now < self.not_before:
            return f"not valid before {self.not_before:%Y-%m-%d %H:%M} UTC; is this node's clock right?"
        if now >= self.not_after:
            return f"expired on {self.not_after:%Y-%m-%d %H:%M} UTC"
        return ""


def make_ca(name: str, now: datetime) -> Pair:
    """A self-signed CA that may sign leaves and nothing else, valid for a year. `name` is its common name."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = _named(name)
    builder = (
        _builder(subject, subject, key, now, now + CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return _signed(builder, key, key)


def make_leaf(ca: Pair, names: Sequence[str], now: datetime) -> Pair:
    """A serving certificate for `names` (DNS names or IP addresses), signed by `ca`.

    Valid for 90 days, or as long as the CA is. Raises BadCertificate if the CA can't be read.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID

    issuer, issuer_key = _parsed(ca)
    key = ec.generate_private_key(ec.SECP256R1())
    end = min(now + LEAF_LIFE, issuer.not_valid_after_utc)
    subject_key = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    builder = (
        _builder(_named(names[0]), issuer.subject, key, now, end)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(subject_key, critical=False)
        .add_extension(authority, critical=False)
    )
    return _signed(builder, key, issuer_key)


def blocks(pem: bytes) -> list[bytes]:
    """The certificates of a PEM text, one PEM each, in their order, without what stands around them."""
    return [match[0] for match in _BLOCK.finditer(pem) if match[1] == b"CERTIFICATE"]


def kinds(pem: bytes) -> list[bytes]:
    """What a PEM text holds, by the labels of its blocks."""
    return [match[1] for match in _BLOCK.finditer(pem)]


@lru_cache(maxsize=32)
def facts(pem: bytes) -> Facts:
    """What the first certificate of a PEM text says. Raises BadCertificate if there is none."""
    from cryptography import x509

    certificate = _certificate(pem)
    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = tuple(str(name.value) for name in alternatives)
    except x509.ExtensionNotFound:
        names = ()
    except (ValueError, TypeError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise BadCertificate(f"the certificate's extensions can't be read: {error}") from None
    try:
        issuer = certificate.issuer.rfc4514_string()
        return Facts(certificate.not_valid_before_utc, certificate.not_valid_after_utc, names, issuer)
    except (ValueError, TypeError) as error:
        raise BadCertificate(f"the certificate can't be read: {error}") from None


def is_ca_named(pem: bytes, name: str) -> bool:
    """Whether the first certificate of a PEM text is a CA's of that name, signed by itself."""
    from cryptography import x509

    try:
        certificate = _certificate(pem)
        signs = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError, TypeError, BadCertificate):
        return False
    return signs and certificate.subject == _named(name) and issued_by(pem, pem)


def check_ca(ca: Pair, name: str) -> None:
    """Raise BadCertificate unless `ca` is as make_ca makes it, named `name`. Its dates are not looked at."""
    from cryptography.exceptions import UnsupportedAlgorithm

    certificate, key = _parsed(ca)
    try:
        belongs = certificate.public_key() == key.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadCertificate(f"the CA's public key can't be read: {error}") from None
    if not belongs:
        raise BadCertificate("the CA's key does not belong to its certificate")
    if not is_ca_named(ca.certificate, name):
        subject = quoted(facts(ca.certificate).issuer)
        raise BadCertificate(f"the CA is not one of the webhook's, or does not sign itself: {subject}")


@lru_cache(maxsize=32)
def issued_by(certificate: bytes, ca: bytes) -> bool:
    """Whether the first certificate of one PEM text is signed by that of the other."""
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

    try:
        _certificate(certificate).verify_directly_issued_by(_certificate(ca))
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, BadCertificate):
        return False
    return True


def same(one: bytes, other: bytes) -> bool:
    """Whether two PEM texts hold the same certificates in the same order."""
    return _ders(one) == _ders(other)


def _ders(pem: bytes) -> list[bytes]:
    return [b"".join(block.split()) for block in blocks(pem)]


def _certificate(pem: bytes) -> x509.Certificate:
    from cryptography import x509

    found = blocks(pem)
    if not found:
        raise BadCertificate("there is no certificate in it (PEM is expected)")
    try:
        return x509.load_pem_x509_certificate(found[0])
    except ValueError as error:
        raise BadCertificate(f"the certificate can't be read: {error}") from None


def _parsed(pair: Pair) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    certificate = _certificate(pair.certificate)
    try:
        key = load_pem_private_key(pair.key, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # the reason may quote the key: not repeated
        raise BadCertificate("the private key can't be read") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise BadCertificate("the private key is not an ECDSA key")
    return certificate, key


def _named(name: str) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])  # 64: X.520's limit


def _general_name(name: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, end: datetime
) -> x509.CertificateBuilder:
    from cryptography import x509

    start = now.astimezone(UTC).replace(microsecond=0) - SKEW
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end.astimezone(UTC).replace(microsecond=0))
    )


def _signed(
    builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey, issuer_key: ec.EllipticCurvePrivateKey
) -> Pair:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    certificate = builder.sign(issuer_key, SHA256())
    return Pair(
        certificate.public_bytes(Encoding.PEM),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )
