"""Making and reading certificates."""

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store
from hypothesis import given, settings
from hypothesis import strategies as st

from injector.tls import certificate
from injector.tls.certificate import SKEW, BadCertificate, Pair, facts, make_ca, make_leaf
from tests.tls import NAMES, START, made

CA, LEAF = made(START)


def parsed(pair: Pair) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pair.certificate)


def test_the_ca_may_sign_leaves_and_nothing_else() -> None:
    ca = parsed(CA)
    constraints = ca.extensions.get_extension_for_class(x509.BasicConstraints)
    usage = ca.extensions.get_extension_for_class(x509.KeyUsage)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)
    assert usage.critical
    assert usage.value == certificate._usage(key_cert_sign=True)
    assert isinstance(ca.public_key(), ec.EllipticCurvePublicKey)
    assert ca.not_valid_before_utc == START - SKEW
    assert ca.not_valid_after_utc == START + timedelta(days=365)


def test_the_leaf_serves_both_names_for_ninety_days() -> None:
    leaf = parsed(LEAF)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert tuple(names.get_values_for_type(x509.DNSName)) == NAMES
    purposes = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purposes) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert leaf.not_valid_before_utc == START - SKEW
    assert leaf.not_valid_after_utc == START + timedelta(days=90)


def test_the_leaf_never_outlives_its_ca() -> None:
    leaf = make_leaf(CA, NAMES, START + timedelta(days=300))
    assert parsed(leaf).not_valid_after_utc == parsed(CA).not_valid_after_utc


@pytest.mark.parametrize("name", NAMES)
def test_a_strict_verifier_of_another_hand_accepts_the_chain(name: str) -> None:
    verifier = PolicyBuilder().store(Store([parsed(CA)])).time(START).build_server_verifier(x509.DNSName(name))
    assert len(verifier.verify(parsed(LEAF), [])) == 2


def test_names_longer_than_a_common_name_may_be_work() -> None:
    long = "s" * 63 + "." + "n" * 63 + ".svc"
    ca = make_ca(f"litestream-hook CA of {long}", START)
    certificate.check_ca(ca, f"litestream-hook CA of {long}")
    verifier = PolicyBuilder().store(Store([parsed(ca)])).time(START).build_server_verifier(x509.DNSName(long))
    assert len(verifier.verify(parsed(make_leaf(ca, [long], START)), [])) == 2


def test_the_private_key_is_in_no_text_of_the_pair() -> None:
    assert "PRIVATE" not in repr(LEAF)
    assert "key" not in repr(LEAF)


@settings(max_examples=150)
@given(start=st.integers(0, len(LEAF.certificate)), cut=st.integers(1, 40), put=st.binary(max_size=20))
def test_damaged_pem_is_read_or_refused_in_words(start: int, cut: int, put: bytes) -> None:
    damaged = LEAF.certificate[:start] + put + LEAF.certificate[start + cut :]
    for check in (lambda: facts(damaged), lambda: certificate.check_ca(Pair(damaged, LEAF.key), "x")):
        try:
            check()
        except BadCertificate as error:
            assert str(error)  # noqa: PT017 (or no error at all)
