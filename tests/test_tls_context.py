"""Serving certificates, and knowing before a client who refuses them; what is said of what can't be served."""

import shutil
import ssl
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from injector.tls import certificate, context
from injector.tls.certificate import BadCertificate, Pair, facts, make_leaf
from injector.tls.context import server_context, why_untrusted
from tests.tls import NAME, NAMES, START, made

CA, LEAF = made(START)


def refusal(leaf: Pair, bundle: bytes, name: str = NAME, now: datetime = START) -> str:
    return why_untrusted(server_context(leaf), facts(leaf.certificate), bundle, name, now)


@pytest.mark.parametrize(
    ("bundle", "name", "now", "reason"),
    [
        (CA.certificate, NAMES[0], START, ""),
        (CA.certificate, NAMES[1], START, ""),
        (LEAF.certificate, NAME, START, ""),  # as Go's verifier: any certificate can be an anchor
        (CA.certificate, "other.svc", START, "Hostname mismatch"),
        (made(START)[0].certificate, NAME, START, "unable to get local issuer|signature failure"),
        (made(START)[0].certificate + CA.certificate, NAME, START, ""),
        (CA.certificate, NAME, START - timedelta(hours=2), "not valid before"),
        (CA.certificate, NAME, START + timedelta(days=91), "expired on 2026-04-01"),
        (b"", NAME, START, "there is no certificate in it"),
        (b"garbage", NAME, START, "there is no certificate in it"),
        (
            made(START - timedelta(days=400))[0].certificate,
            NAME,
            START,
            "all of its certificates have expired",
        ),
    ],
)
def test_what_a_client_would_refuse_is_known_before_it_asks(
    bundle: bytes, name: str, now: datetime, reason: str
) -> None:
    found = refusal(LEAF, bundle, name, now)
    if not reason:
        assert found == ""
    else:
        assert any(part in found for part in reason.split("|")), found


def pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, password: bytes = b"", legacy: bool = False) -> bytes:
    form = PrivateFormat.TraditionalOpenSSL if legacy else PrivateFormat.PKCS8
    return key.private_bytes(Encoding.PEM, form, BestAvailableEncryption(password) if password else NoEncryption())


def self_signed(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, now: datetime = START) -> bytes:
    name = certificate._named(NAME)
    builder = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


@pytest.mark.parametrize("legacy", [False, True], ids=["pkcs8", "traditional"])
@pytest.mark.parametrize("kind", ["rsa", "p256", "p384"])
def test_rsa_and_ecdsa_keys_of_both_forms_are_served(kind: str, legacy: bool) -> None:
    curve = ec.SECP384R1() if kind == "p384" else ec.SECP256R1()
    key = rsa.generate_private_key(65537, 2048) if kind == "rsa" else ec.generate_private_key(curve)
    own = self_signed(key)
    assert refusal(Pair(own, pem(key, legacy=legacy)), own) == ""


KEY = load_pem_private_key(LEAF.key, None)
assert isinstance(KEY, ec.EllipticCurvePrivateKey)


@pytest.mark.parametrize(
    ("pair", "sentence"),
    [
        (Pair(LEAF.certificate, pem(KEY, b"secret")), "encrypted: store it without a passphrase"),
        (
            Pair(LEAF.certificate, pem(KEY, b"secret", legacy=True)),
            "encrypted: store it without a passphrase",
        ),
        (Pair(LEAF.certificate, made(START)[1].key), "does not belong to the certificate"),
        (Pair(LEAF.certificate, b""), "no private key in it"),
        (Pair(LEAF.certificate, LEAF.certificate), "no private key in it"),
        (Pair(b"", LEAF.key), "no certificate in it"),
        (Pair(LEAF.key, LEAF.key), "no certificate in it"),
        (Pair(LEAF.certificate[:200] + LEAF.certificate[300:], LEAF.key), "OpenSSL refuses it"),
        (Pair(LEAF.certificate, LEAF.key[:60] + LEAF.key[90:]), "OpenSSL refuses it"),
    ],
    ids=[
        "encrypted",
        "encrypted-old",
        "of another",
        "empty",
        "no key",
        "no crt",
        "swapped",
        "cut crt",
        "cut key",
    ],
)
def test_what_cant_be_served_is_refused_with_a_sentence(pair: Pair, sentence: str) -> None:
    with pytest.raises(BadCertificate, match=sentence) as caught:
        server_context(pair)
    assert not any(line in str(caught.value) for line in pair.key.decode().splitlines() if len(line) > 40)


def test_files_of_openssl_itself_are_served(tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl command")
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=x"]
    command += ["-addext", f"subjectAltName=DNS:{NAME}", "-keyout", "tls.key", "-out", "tls.crt"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    own = (tmp_path / "tls.crt").read_bytes()
    assert refusal(Pair(own, (tmp_path / "tls.key").read_bytes()), own, now=datetime.now(UTC)) == ""


def test_a_chain_of_three_is_served_whole() -> None:
    root_key, middle_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root, middle = certificate._named("root"), certificate._named("middle")

    def ca(subject: x509.Name, public: ec.EllipticCurvePrivateKey) -> bytes:
        builder = certificate._builder(subject, root, public, START, START + timedelta(days=9))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        return builder.sign(root_key, hashes.SHA256()).public_bytes(Encoding.PEM)

    between = Pair(ca(middle, middle_key), pem(middle_key))
    leaf = make_leaf(between, NAMES, START)
    whole = Pair(leaf.certificate + between.certificate, leaf.key)
    assert refusal(whole, ca(root, root_key)) == ""
    assert "unable to get" in refusal(leaf, ca(root, root_key))


def test_keys_reach_openssl_without_a_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object, **__: object) -> None:
        raise AssertionError("a file was made")

    monkeypatch.setattr("tempfile.mkstemp", none)
    assert isinstance(server_context(LEAF), ssl.SSLContext)


def test_where_there_are_no_files_in_memory_a_private_one_is_used_and_removed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Linux has memfd_create, so its absence is made up."""
    monkeypatch.delattr("os.memfd_create")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with context._as_file(b"x") as path:
        assert Path(path).stat().st_mode & 0o777 == 0o600
        assert Path(path).read_bytes() == b"x"
    server_context(LEAF)
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=150)
@given(data=st.data())
def test_damaged_pem_is_served_right_or_refused_in_words(data: st.DataObject) -> None:
    """Whatever bytes stand in the files, the outcome is a context or one kind of error."""
    files = [LEAF.certificate, LEAF.key]
    which = data.draw(st.integers(0, 1))
    text = bytearray(files[which])
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 40)))
        text[start:end] = data.draw(st.binary(max_size=20))
    files[which] = bytes(text)
    try:
        server_context(Pair(*files))
    except BadCertificate as error:
        assert str(error)  # noqa: PT017 (or no error at all)


@settings(max_examples=100)
@given(content=st.binary(max_size=300))
def test_a_bundle_of_anything_is_no_crash(content: bytes) -> None:
    refusal(LEAF, content)
    refusal(LEAF, CA.certificate[:300] + content + CA.certificate[300:])
    assert refusal(LEAF, content.replace(b"-", b"") + b"\n" + CA.certificate) == ""
