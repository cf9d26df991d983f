"""A bucket's kind decides where the replica is, who may have it, how Litestream gets in, and what else can be asked."""

import json
from typing import Any

import pytest

from injector import GROUP, stores
from injector.annotations.defaults import Default, Defaults
from injector.annotations.table import STATUS
from injector.stores import Bucket, Place
from tests import reviews
from tests.reviews import denied, warned

Object = dict[str, Any]
HOST_KEY = (
    "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBNL0YGvNhFYblMhrvP1rjOR3"
    "LYPd1bA+ExnAXweZtbt49LTEQflq01K4h/KoZJIdY5QqE3hdVlJIPmaj1HuJQsY="
)
ED25519 = "AAAAC3NzaC1lZDI1NTE5AAAAIJqCd/ujmofumdFTG4loaOEafW2vuVCsXWczqUBXwaji"
BUCKETS = {
    "gs": "gs://my-bucket",
    "abs": "abs://myaccount/backups",
    "sftp": "sftp://backup@nas.example.com/srv/backups",
}


def asked(kind: str, spec: Object | None = None, /, **annotations: str) -> Object:
    """A Pod whose replica is in a store of this kind."""
    own = {"bucket": BUCKETS[kind], **({"host_key": HOST_KEY} if kind == "sftp" else {})}
    return reviews.pod(spec, None, **{**own, **annotations})


def replica(pod: Object) -> Object:
    """What Litestream's config says of the first database's replica."""
    init = pod["spec"]["initContainers"][0]
    config = next(entry["value"] for entry in init["env"] if entry["name"] == "LITESTREAM_CONFIG")
    found: Object = json.loads(config)["dbs"][0]["replicas"][0]
    return found


@pytest.mark.parametrize(
    ("text", "bucket"),
    [
        ("backups", Bucket("s3", "backups")),
        ("s3://backups", Bucket("s3", "backups")),
        ("gs://my_bucket.example.com", Bucket("gs", "my_bucket.example.com")),
        ("abs://account1/a-b", Bucket("abs", "a-b", "account1")),
        ("sftp://me@NAS.example.com./backups/", Bucket("sftp", "backups", "me", "nas.example.com")),
        ("sftp://me@nas:22/srv/b", Bucket("sftp", "srv/b", "me", "nas")),
        ("sftp://me@10.0.0.1:2222/b", Bucket("sftp", "b", "me", "10.0.0.1:2222")),
        ("sftp://me@[0:0::1]:2222/b", Bucket("sftp", "b", "me", "[::1]:2222")),
    ],
)
def test_the_kind_of_store_is_read_from_the_bucket(text: str, bucket: Bucket) -> None:
    assert stores.bucket(text) == bucket
    assert stores.bucket(str(bucket)) == bucket
    assert stores.kind(text) == bucket.kind


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("gcs://b", "gs://BUCKET, abs://ACCOUNT/CONTAINER or sftp://"),
        ("file:///data", "write the name of an S3 bucket"),
        ("s3://Bucket", "write an S3 bucket name: 3 to 63 lower case letters, digits, - and ., such as my-bucket"),
        ("s3://bucket/path", "such as my-bucket; a path belongs in replica-path"),
        ("bucket/path", "such as my-bucket; a path belongs in replica-path"),
        ("gs://bucket/path", "a path belongs in replica-path"),
        ("gs://Bucket", "such as gs://my-bucket"),
        ("gs://a..b", "such as gs://my-bucket"),
        ("abs://account", "write abs://ACCOUNT/CONTAINER"),
        ("abs://Account/backups", "write abs://ACCOUNT/CONTAINER"),
        ("abs://account/back--ups", "write abs://ACCOUNT/CONTAINER"),
        ("abs://account/backups/path", "write abs://ACCOUNT/CONTAINER"),
        ("sftp://nas/backups", "write sftp://USER@HOST:PORT/PATH"),
        ("sftp://me@nas", "write sftp://USER@HOST:PORT/PATH"),
        ("sftp://me@nas/", "write sftp://USER@HOST:PORT/PATH"),
        ("sftp://me@nas:0/b", "write sftp://USER@HOST:PORT/PATH"),
        ("sftp://me@nas:99999/b", "write sftp://USER@HOST:PORT/PATH"),
        ("sftp://me@nas/a/../b", "must not start or end with"),
        ("sftp://me@na_s/b", "write sftp://USER@HOST:PORT/PATH"),
    ],
)
def test_a_bucket_of_no_store_is_denied_with_what_to_write(text: str, right: str) -> None:
    assert right in denied(reviews.pod(bucket=text))["bucket"]


def test_a_password_in_a_bucket_is_denied_and_not_repeated() -> None:
    message = denied(asked("sftp", bucket="sftp://me:secret@nas/b"))["bucket"]
    assert "must hold no credentials" in message
    assert "me:secret" not in message


@pytest.mark.parametrize(
    ("place", "where"),
    [
        (Place("", "backups", "a/b.db"), "amazonaws.com/backups/a/b.db"),
        (Place("http://minio:9000", "backups", "a/b.db"), "minio:9000/backups/a/b.db"),
        (Place("http://MINIO:9000/", "backups", "a/b.db"), "minio:9000/backups/a/b.db"),
        (Place("http://minio.:9000", "backups", "a/b.db"), "minio:9000/backups/a/b.db"),
        (Place("http://minio:9000/backups", "a", "b.db"), "minio:9000/backups/a/b.db"),
        (Place("https://s3.example.com", "backups", "a"), "s3.example.com/backups/a"),
        (Place("https://s3.example.com:443", "backups", "a"), "s3.example.com/backups/a"),
        (Place("http://s3.example.com:80/", "backups", "a"), "s3.example.com/backups/a"),
        (Place("http://[0:0::1]:9000", "backups", "a"), "[::1]:9000/backups/a"),
        (Place("https://s3.eu-west-1.amazonaws.com", "backups", "a"), "amazonaws.com/backups/a"),
        (Place("https://s3-eu-west-1.amazonaws.com:443", "backups", "a"), "amazonaws.com/backups/a"),
        (Place("https://s3.dualstack.eu-west-1.amazonaws.com", "backups", "a"), "amazonaws.com/backups/a"),
        (Place("https://backups.s3.amazonaws.com", "a", "b"), "amazonaws.com/backups/a/b"),
        (Place("https://bucket.vpce-1a-2b.s3.eu-west-1.vpce.amazonaws.com", "backups", "a"), "amazonaws.com/backups/a"),
        (Place("https://vpce-1a.s3.eu-west-1.amazonaws.com", "backups", "a"), "amazonaws.com/vpce-1a/backups/a"),
        (Place("https://s3.cn-north-1.amazonaws.com.cn", "backups", "a"), "amazonaws.com.cn/backups/a"),
        (Place("https://backups.storage.googleapis.com", "a", "b"), "storage.googleapis.com/backups/a/b"),
        (Place("https://s3.example.com.amazonaws.com.evil.org", "b", "a"), "s3.example.com.amazonaws.com.evil.org/b/a"),
    ],
)
def test_a_place_has_one_spelling(place: Place, where: str) -> None:
    assert stores.location(place) == where


@pytest.mark.parametrize(
    ("bucket", "endpoint", "where"),
    [
        ("gs://bkt", None, "storage.googleapis.com/bkt/p"),
        ("bkt", "https://storage.googleapis.com", "storage.googleapis.com/bkt/p"),
        ("abs://acct/bkt", None, "acct.blob.core.windows.net/bkt/p"),
        ("abs://acct/bkt", "https://ACCT.blob.core.windows.net/", "acct.blob.core.windows.net/bkt/p"),
        ("abs://acct/bkt", "https://acct.privatelink.blob.core.windows.net", "acct.blob.core.windows.net/bkt/p"),
        ("s3://bkt", None, "amazonaws.com/bkt/p"),
        ("sftp://one@nas/srv/b", None, "nas/srv/b/p"),
        ("sftp://two@NAS:22/srv/b/", None, "nas/srv/b/p"),
        ("sftp://two@nas:2222/srv/b", None, "nas:2222/srv/b/p"),
    ],
)
def test_a_replica_has_one_place_however_its_bucket_is_written(bucket: str, endpoint: str | None, where: str) -> None:
    assert stores.location(stores.bucket(bucket).place(endpoint, "p")) == where


@pytest.mark.parametrize(
    ("kind", "written"),
    [
        ("gs", {"type": "gs", "bucket": "my-bucket", "path": "default/pod/web/mnt/litestream.db"}),
        (
            "abs",
            {
                "type": "abs",
                "account-name": "myaccount",
                "bucket": "backups",
                "path": "default/pod/web/mnt/litestream.db",
            },
        ),
        (
            "sftp",
            {
                "type": "sftp",
                "host": "nas.example.com",
                "user": "backup",
                "host-key": HOST_KEY,
                "key-path": "/etc/litestream-credentials/ssh-privatekey",
                "path": "/srv/backups/default/pod/web/mnt/litestream.db",
            },
        ),
    ],
)
def test_the_config_says_where_the_replica_is_in_litestream_s_words(kind: str, written: Object) -> None:
    assert replica(reviews.injected(asked(kind))) == {**written, "sync-interval": "1s"}


@pytest.mark.parametrize(
    ("annotations", "variables", "file"),
    [
        ({"bucket": "gs://my-bucket"}, {}, "key.json"),
        ({"bucket": "abs://acct/backups"}, {"LITESTREAM_AZURE_ACCOUNT_KEY": "AZURE_STORAGE_KEY"}, None),
        (
            {"bucket": "abs://acct/backups", "auth": "session"},
            {"LITESTREAM_AZURE_SAS_TOKEN": "AZURE_STORAGE_SAS_TOKEN"},
            None,
        ),
        ({"bucket": BUCKETS["sftp"], "host_key": HOST_KEY}, {}, "ssh-privatekey"),
    ],
)
def test_each_store_gets_its_keys_of_the_secret(
    annotations: dict[str, str], variables: dict[str, str], file: str | None
) -> None:
    spec = reviews.injected(reviews.pod(None, None, secret="mine", **annotations))["spec"]
    for container in spec["initContainers"]:
        found = {entry["name"]: entry["valueFrom"]["secretKeyRef"] for entry in container["env"]
                 if "secretKeyRef" in entry.get("valueFrom", {})}  # fmt: skip
        assert found == {name: {"name": "mine", "key": key} for name, key in variables.items()}
        mounted = [m["mountPath"] for m in container["volumeMounts"] if m["name"] == "litestream-hook-credentials"]
        assert mounted == ["/etc/litestream-credentials"] * (file is not None)
    sources = [v["secret"] for v in spec["volumes"] if v["name"] == "litestream-hook-credentials"]
    assert sources == ([] if file is None else [{"secretName": "mine", "items": [{"key": file, "path": file}]}])
    names = {entry["name"]: entry.get("value") for entry in spec["initContainers"][0]["env"]}
    if file == "key.json":
        assert names["GOOGLE_APPLICATION_CREDENTIALS"] == "/etc/litestream-credentials/key.json"


def test_no_container_of_the_application_sees_the_file_of_credentials() -> None:
    spec = reviews.injected(asked("gs"))["spec"]
    assert "litestream-hook-credentials" not in json.dumps(spec["containers"])


@pytest.mark.parametrize(
    ("kind", "variables", "token"),
    [
        (
            "abs",
            {
                "AZURE_CLIENT_ID": "1",
                "AZURE_TENANT_ID": "2",
                "AZURE_AUTHORITY_HOST": "https://login.microsoftonline.com/",
                "AZURE_FEDERATED_TOKEN_FILE": "/var/run/secrets/azure/tokens/azure-identity-token",
            },
            "/var/run/secrets/azure/tokens",
        ),
        ("gs", {"GOOGLE_APPLICATION_CREDENTIALS": "/var/run/secrets/gcp/config.json"}, "/var/run/secrets/gcp"),
        ("gs", {}, None),
    ],
)
def test_a_workload_identity_is_shared_as_its_webhook_gave_it_to_the_application(
    kind: str, variables: dict[str, str], token: str | None
) -> None:
    others = {"PORT": "80", "AWS_ROLE_ARN": "arn"}
    container: Object = {
        "name": "app",
        "image": "app:1",
        "env": [{"name": name, "value": text} for name, text in {**others, **variables}.items()],
        "volumeMounts": [{"name": "token", "mountPath": token}] if token else [],
    }
    spec = {"containers": [container], "volumes": [{"name": "token", "emptyDir": {}}]}
    for ours in reviews.injected(asked(kind, spec, auth="ambient"))["spec"]["initContainers"]:
        found = {entry["name"]: entry.get("value") for entry in ours["env"]}
        assert {name: text for name, text in found.items() if name in {*others, *variables}} == variables
        assert [m["mountPath"] for m in ours["volumeMounts"] if m["name"] == "token"] == ([token] if token else [])
        assert not [m for m in ours["volumeMounts"] if m["name"] == "litestream-hook-credentials"]


STRANGE = {
    "endpoint": "https://s3.example.com",
    "addressing": "path",
    "region": "eu-west-1",
    "ca": "secret/ca",
    "storage_class": "STANDARD_IA",
    "sse_kms_key_id": "alias/a",
    "host_key": HOST_KEY,
}


@pytest.mark.parametrize(
    ("kind", "taken"), [("gs", {"ca"}), ("abs", {"ca", "endpoint"}), ("sftp", {"host_key"})], ids=BUCKETS
)
def test_what_a_store_does_not_have_is_denied(kind: str, taken: set[str]) -> None:
    found = denied(asked(kind, None, **STRANGE))
    assert set(found) == {key.replace("_", "-") for key in STRANGE.keys() - taken}
    assert all("is nothing that" in message for message in found.values())


def test_a_host_key_is_nothing_of_s3() -> None:
    assert set(denied(reviews.pod(host_key=HOST_KEY))) == {"host-key"}


@pytest.mark.parametrize(
    ("annotations", "key", "right"),
    [
        (
            {"endpoint": "https://acct.blob.core.windows.net"},
            "endpoint",
            'has no S3 API: remove it, and write bucket "abs://acct/litestream"',
        ),
        (
            {"endpoint": "https://storage.googleapis.com", "auth": "ambient"},
            "auth",
            'wants an HMAC key: write bucket "gs://litestream"',
        ),
        (
            {"bucket": "abs://acct/backups", "endpoint": "https://other.blob.core.windows.net"},
            "endpoint",
            "is another account than acct",
        ),
        (
            {"bucket": "abs://acct/backups", "endpoint": "http://azurite:10000/other"},
            "endpoint",
            "is another account than acct",
        ),
        (
            {"bucket": "abs://acct/backups", "endpoint": "http://azurite:10000/acct", "auth": "ambient"},
            "endpoint",
            "write a URL with https",
        ),
        (
            {"bucket": "abs://acct/backups", "endpoint": "https://acct.blob.core.windows.net/backups"},
            "endpoint",
            "names more than a server",
        ),
        (
            {"bucket": "abs://acct/backups", "endpoint": "https://s3.eu-west-1.amazonaws.com"},
            "endpoint",
            "is no Azure Blob Storage",
        ),
        (
            {"bucket": "abs://acct/backups", "endpoint": "https://storage.googleapis.com/acct"},
            "endpoint",
            "is no Azure Blob Storage",
        ),
        (
            {"bucket": "my-bucket", "endpoint": "https://my-bucket.storage.googleapis.com", "auth": "ambient"},
            "auth",
            "wants an HMAC key",
        ),
        ({"bucket": "gs://my-bucket", "auth": "session"}, "auth", 'write "secret" or "ambient"'),
        ({"bucket": BUCKETS["sftp"], "host_key": HOST_KEY, "auth": "ambient"}, "auth", 'write "secret"'),
        ({"bucket": BUCKETS["sftp"]}, "host-key", "ssh-keyscan -t ecdsa HOST"),
        ({"bucket": "gs://my-bucket", "image": "litestream/litestream:0.3.13"}, "bucket", "needs Litestream 0.5.0"),
        ({"bucket": "abs://acct/backups", "image": "litestream/litestream:0.5.6"}, "bucket", "needs Litestream 0.5.7"),
        (
            {"bucket": BUCKETS["sftp"], "host_key": HOST_KEY, "image": "litestream/litestream:0.3.13"},
            "bucket",
            "needs Litestream 0.5.3",
        ),
    ],
)
def test_a_wrong_mixture_is_denied_with_the_right_one(annotations: dict[str, str], key: str, right: str) -> None:
    found = denied(reviews.pod(None, None, **annotations))
    assert set(found) == {key}
    assert right in found[key]


def test_google_s_s3_api_with_an_hmac_key_goes_on_to_work() -> None:
    assert warned(reviews.pod(endpoint="https://storage.googleapis.com")) == ""


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (f"{HOST_KEY} root@nas", HOST_KEY),
        (f"ssh-ed25519  {ED25519}", f"ssh-ed25519 {ED25519}"),
        # A modulus and an exponent, of any length.
        ("ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAAwEAAQ==", "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAAwEAAQ=="),
    ],
)
def test_a_host_key_is_what_openssh_writes(text: str, key: str) -> None:
    assert stores.host_key(text) == key


@pytest.mark.parametrize("text", ["", "ssh-ed25519", "AAAA", "SHA256:abc", "ssh-dss AAAAB3Nz"])
def test_no_other_text_is_a_host_key(text: str) -> None:
    with pytest.raises(ValueError, match="write the server's public key"):
        stores.host_key(text)


@pytest.mark.parametrize(
    "text",
    [
        "ssh-ed25519 AAAA\n",
        HOST_KEY[:-12],
        HOST_KEY[:-1],
        f"ssh-ed25519 {ED25519[:-4]}",
        f"ssh-ed25519 {ED25519}=",
        f"ssh-rsa {ED25519}",
    ],
)
def test_a_host_key_that_was_not_copied_whole_is_told(text: str) -> None:
    with pytest.raises(ValueError, match=f"is no whole key of type {text.split(maxsplit=1)[0]}: copy the line again"):
        stores.host_key(text)


def test_a_line_of_known_hosts_is_told_what_of_it_to_write() -> None:
    with pytest.raises(ValueError, match="write only what follows, ecdsa-sha2-nistp256 AAAAE2Vj"):
        stores.host_key(f"nas.example.com {HOST_KEY}")
    with pytest.raises(ValueError, match=r"write only what follows, ssh-\\x1b\[31mrsa…"):
        stores.host_key("nas.example.com ssh-\x1b[31mrsa")


S3_DEFAULTS = {"endpoint": "https://minio:9000", "region": "eu", "addressing": "virtual", "ca": "secret/own"}


def holding(texts: dict[str, str], **rest: Any) -> Defaults:
    """The operator's values."""
    return Defaults("default", texts, {key: Default(text, "the operator's") for key, text in texts.items()}, **rest)


def test_the_operator_s_server_of_s3_is_not_that_of_another_store() -> None:
    once = reviews.injected(asked("abs"), defaults=holding(S3_DEFAULTS))
    assert replica(once).keys().isdisjoint({"endpoint", "region", "force-path-style"})
    assert [v for v in once["spec"]["volumes"] if v["name"] == "litestream-hook-ca"], "a CA is no store's own"
    assert reviews.injected(once, defaults=holding({})) == once
    assert "ca" not in json.dumps(reviews.injected(asked("sftp"), defaults=holding(S3_DEFAULTS))["spec"]["volumes"])
    again = reviews.injected(reviews.pod(bucket="mine"), defaults=holding(S3_DEFAULTS))
    assert replica(again)["endpoint"] == "https://minio:9000"


def test_a_second_call_keeps_the_operator_s_server_of_a_store() -> None:
    texts = {"bucket": "abs://one/backups", "endpoint": "https://blobs.example.com"}
    once = reviews.injected(asked("abs"), defaults=holding(texts))
    assert replica(once)["endpoint"] == "https://blobs.example.com"
    assert reviews.injected(once, defaults=holding({})) == once
    status = json.loads(once["metadata"]["annotations"][f"{GROUP}/{STATUS}"])
    assert (status["bucket"], status["endpoint"]) == (BUCKETS["abs"], "https://blobs.example.com")


def test_a_made_up_status_does_not_pretend_another_server() -> None:
    allowed = holding({}, allow={"endpoint": ["https://minio:9000"]})
    once = reviews.injected(asked("gs"))
    key = f"{GROUP}/{STATUS}"
    status = json.loads(once["metadata"]["annotations"][key])
    status["defaults"] = {"endpoint": "https://minio:9000"}
    once["metadata"]["annotations"][key] = json.dumps(status)
    assert set(denied(once, defaults=allowed)) == {"endpoint"}


@pytest.mark.parametrize("kind", BUCKETS)
def test_another_store_does_not_lead_around_what_the_operator_enforces(kind: str) -> None:
    enforced = holding(S3_DEFAULTS, enforce=frozenset({"endpoint", "region"}))
    assert "where the operator chooses endpoint and region" in denied(asked(kind), defaults=enforced)["bucket"]
    amazon = holding({}, enforce=frozenset({"endpoint"}))
    assert set(denied(asked(kind), defaults=amazon)) == {"bucket"}
    encrypted = holding({"sse-kms-key-id": "alias/a"}, enforce=frozenset({"sse-kms-key-id"}))
    assert set(denied(asked(kind), defaults=encrypted)) == {"bucket"}


@pytest.mark.parametrize(
    ("kind", "pattern"),
    [
        ("gs", "https://storage.googleapis.com"),
        ("abs", "https://myaccount.blob.core.windows.net"),
        ("sftp", "sftp://nas.example.com"),
    ],
)
def test_allowed_servers_are_those_of_every_store(kind: str, pattern: str) -> None:
    assert set(denied(asked(kind), defaults=holding({}, allow={"endpoint": ["https://minio:9000"]}))) == {"endpoint"}
    assert warned(asked(kind), defaults=holding({}, allow={"endpoint": [pattern]})) == ""


def test_patterns_of_buckets_are_compared_with_their_one_spelling() -> None:
    one = holding({}, allow={"bucket": ["s3://shop-*"]})
    assert warned(reviews.pod(bucket="shop-1"), defaults=one) == ""
    assert warned(reviews.pod(bucket="s3://shop-1"), defaults=one) == ""
    assert set(denied(reviews.pod(bucket="gs://shop-1"), defaults=one)) == {"bucket"}
    other = holding({}, allow={"bucket": ["sftp://backup@nas.example.com/srv/*"]})
    assert warned(asked("sftp", bucket="sftp://backup@NAS.example.com:22/srv/backups/"), defaults=other) == ""
