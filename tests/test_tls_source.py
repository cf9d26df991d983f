"""Where certificates come from: mounted files through kubelet's links, and the data of a Secret."""

import ssl
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from injector.tls import source
from injector.tls.certificate import BadCertificate, Pair
from injector.tls.context import server_context
from tests.tls import CA_NAME, START, made, mount


def test_an_empty_or_absent_folder_mounts_nothing(tmp_path: Path) -> None:
    assert source.mounted(tmp_path) is None
    assert source.mounted(tmp_path / "absent") is None


@pytest.mark.parametrize("name", ["tls.crt", "tls.key"])
def test_half_a_pair_is_named(tmp_path: Path, name: str) -> None:
    mount(tmp_path, made()[1])
    (tmp_path / name).unlink()
    with pytest.raises(BadCertificate, match=rf"{name} is missing: .* needs both tls.crt and tls.key"):
        source.mounted(tmp_path)


@pytest.mark.parametrize("name", ["tls.crt", "tls.key"])
def test_a_file_that_cant_be_read_is_named(tmp_path: Path, name: str) -> None:
    mount(tmp_path, made()[1])
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    with pytest.raises(BadCertificate, match=rf"{name} can't be read: Is a directory"):
        source.mounted(tmp_path)


def test_a_swap_between_the_two_files_is_noticed(tmp_path: Path) -> None:
    """However often kubelet turns its link, the two files are of one Secret."""
    pairs = [made()[1] for _ in range(2)]
    mount(tmp_path, pairs[0])
    stop = threading.Event()

    def swap() -> None:
        turn = 0
        while not stop.wait(0.002):
            turn += 1
            mount(tmp_path, pairs[turn % 2])

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        found = {source.mounted(tmp_path) for _ in range(300)}
    finally:
        stop.set()
        thread.join()
    assert found <= set(pairs)
    for pair in found:
        assert pair is not None
        server_context(pair)


def shared() -> source.Shared:
    ca, leaf = made(START)
    return source.Shared(ca, (made(START)[0].certificate,), leaf)


def test_what_is_written_is_read_again() -> None:
    before = shared()
    secret = source.write(None, "ns", "name", before)
    assert secret["type"] == "kubernetes.io/tls"
    assert secret["metadata"]["namespace"] == "ns"
    after = source.read(source.content(secret), CA_NAME)
    assert after == source.Shared(before.ca, before.old, before.leaf)
    assert "PRIVATE" not in repr(after)


def test_writing_into_a_secret_keeps_what_is_not_ours() -> None:
    secret = {
        "type": "Opaque",
        "metadata": {"resourceVersion": "7", "labels": {"a": "b"}},
        "data": {"x": "eA=="},
    }
    written = source.write(secret, "ns", "name", shared())
    assert written["type"] == "Opaque"
    assert written["metadata"] == secret["metadata"]
    assert written["data"]["x"] == "eA=="
    assert source.content(written).keys() == {"x", "ca.crt", "ca.key", "tls.crt", "tls.key"}


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("ca.crt", b"", "ca.crt is empty, missing or not base64"),
        ("ca.key", b"", "ca.key is empty, missing or not base64"),
        ("ca.crt", b"garbage", "ca.crt holds no certificate"),
        ("ca.key", b"garbage", "the private key can't be read"),
        ("ca.key", made(START)[0].key, "the CA's key does not belong to its certificate"),
    ],
)
def test_a_damaged_ca_is_described(key: str, value: bytes, sentence: str) -> None:
    with pytest.raises(BadCertificate, match=sentence):
        source.read(source.fields(shared()) | {key: value}, CA_NAME)


def test_a_ca_whose_public_key_is_no_point_of_its_curve_is_described() -> None:
    ca, leaf = made(START)
    parsed = x509.load_pem_x509_certificate(ca.certificate)
    point = parsed.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    der = parsed.public_bytes(Encoding.DER).replace(point, point[:1] + b"\x01" * 64)
    damaged = Pair(ssl.DER_cert_to_PEM_cert(der).encode(), ca.key)
    with pytest.raises(BadCertificate, match="the CA's public key can't be read"):
        source.read(source.fields(source.Shared(damaged, (), leaf)), CA_NAME)


def test_a_foreign_ca_is_described() -> None:
    with pytest.raises(BadCertificate, match=r'not one of the webhook\'s.*"CN=litestream-hook CA of'):
        source.read(source.fields(shared()), "another name")
    leaf = made(START)[1]
    with pytest.raises(BadCertificate, match="not one of the webhook's, or does not sign itself"):
        source.read(source.fields(source.Shared(leaf, (), leaf)), CA_NAME)


@pytest.mark.parametrize("data", [None, {}, {"ca.crt": "%%%"}, {"ca.crt": None}, [1], "x"])
def test_data_that_is_no_base64_counts_as_empty(data: object) -> None:
    assert not any(source.content({"data": data}).values())
