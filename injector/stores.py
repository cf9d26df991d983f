"""The stores that hold replicas: how a bucket of each is written, what each takes, and where in it a replica is."""

from __future__ import annotations

import binascii
import ipaddress
import re
from collections.abc import Mapping
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from injector import values
from injector.errors import escaped

Kind = Literal["s3", "gs", "abs", "sftp"]
AMAZON = re.compile(r"(?:(?P<bucket>.+)\.)?s3[.-](?:.+\.)?(?P<partition>amazonaws\.com(?:\.cn)?)")
AZURE = re.compile(r"(?P<account>[^.]+)\.blob\.core\..+")
GOOGLE = "storage.googleapis.com"
GOOGLES = re.compile(r"(?:(?P<bucket>.+)\.)?storage\.googleapis\.com")
DEFAULT_PORTS = (None, 80, 443)
# The parts that a public key of each type has, its type included (RFC 4253, 5656 and 8709).
HOST_KEYS = {"ssh-ed25519": 2, "ssh-rsa": 3, **{f"ecdsa-sha2-nistp{bits}": 3 for bits in (256, 384, 521)}}


class Store(NamedTuple):
    """What one kind of store is and takes.

    `since` is the first release of Litestream that can be used with it, `keys` the annotations that not every store
    takes. `variables` gives for each way in (`auth`, beside `ambient`) the environment variables with a key of the
    Secret, `file` such a key that Litestream reads as a file; `path` is the variable that says where the file is.
    `identity` are the variables by which a Pod's own identity is found, `tokens` those of them that name a file; empty:
    there is no `auth: ambient`.
    """

    name: str
    since: tuple[int, int, int]
    keys: frozenset[str]
    variables: Mapping[str, Mapping[str, str]]
    file: str | None = None
    path: str | None = None
    identity: tuple[str, ...] | None = None
    tokens: tuple[str, ...] = ()


_AWS = {name: name for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
STORES: Mapping[Kind, Store] = {
    "s3": Store(
        "S3",
        since=(0, 0, 0),
        keys=frozenset({"endpoint", "addressing", "region", "ca", "storage-class", "sse-kms-key-id"}),
        variables={"secret": _AWS, "session": {**_AWS, "AWS_SESSION_TOKEN": "AWS_SESSION_TOKEN"}},
        # What AWS' own webhooks (IRSA, EKS Pod Identity) put into a container for the SDKs to find.
        identity=(
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
            "AWS_DEFAULT_REGION",
            "AWS_REGION",
            "AWS_ROLE_ARN",
            "AWS_ROLE_SESSION_NAME",
            "AWS_STS_REGIONAL_ENDPOINTS",
            "AWS_WEB_IDENTITY_TOKEN_FILE",
        ),
        tokens=("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE"),
    ),
    "gs": Store(
        "Google Cloud Storage",
        since=(0, 5, 0),
        keys=frozenset({"ca"}),
        variables={"secret": {}},
        file="key.json",
        path="GOOGLE_APPLICATION_CREDENTIALS",
        # GKE's metadata server needs none; a workload identity elsewhere has a file that says how to get a token.
        identity=("GOOGLE_APPLICATION_CREDENTIALS",),
        tokens=("GOOGLE_APPLICATION_CREDENTIALS",),
    ),
    "abs": Store(
        "Azure Blob Storage",
        since=(0, 5, 7),
        keys=frozenset({"endpoint", "ca"}),
        variables={
            "secret": {"LITESTREAM_AZURE_ACCOUNT_KEY": "AZURE_STORAGE_KEY"},
            "session": {"LITESTREAM_AZURE_SAS_TOKEN": "AZURE_STORAGE_SAS_TOKEN"},
        },
        # What Azure's own webhook (workload identity) puts into a container.
        identity=("AZURE_AUTHORITY_HOST", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_TENANT_ID"),
        tokens=("AZURE_FEDERATED_TOKEN_FILE",),
    ),
    "sftp": Store(
        "SFTP",
        since=(0, 5, 3),  # older ones trust any server
        keys=frozenset({"host-key"}),
        variables={"secret": {}},
        file="ssh-privatekey",
    ),
}
SPECIAL_KEYS = frozenset().union(*(store.keys for store in STORES.values()))  # that not every store takes


class Bucket(NamedTuple):
    """A bucket: of S3 or Google its name, a container of an Azure account, or a directory of a user's at an SSH server.

    As text it has one spelling.
    """

    kind: Kind
    name: str
    account: str = ""
    host: str = ""  # with its port, if that is another one than 22

    def __str__(self) -> str:
        whose = f"{self.account}@{self.host}/" if self.host else f"{self.account}/" if self.account else ""
        return self.name if self.kind == "s3" else f"{self.kind}://{whose}{self.name}"

    def server(self, endpoint: str | None) -> str:
        """The URL of its server; empty for Amazon's, whose name only has the region in it."""
        named = {
            "s3": "",
            "gs": f"https://{GOOGLE}",
            "abs": f"https://{self.account}.blob.core.windows.net",
            "sftp": f"sftp://{self.host}",
        }
        return endpoint or named[self.kind]

    def place(self, endpoint: str | None, path: str) -> Place:
        """Where a replica in it is, at an endpoint; an account of Azure's is one, whatever its endpoint is called."""
        return Place(self.server(None if self.kind == "abs" else endpoint), self.name, path)


def kind(text: str) -> Kind:
    """The kind of store that a bucket is of, by its scheme alone; S3 where that is none."""
    scheme, slashes, _ = text.partition("://")
    return next((known for known in STORES if slashes and known == scheme), "s3")


def bucket(text: str) -> Bucket:
    """A bucket as an annotation names it: `NAME`, `s3://NAME`, `gs://NAME`, `abs://ACCOUNT/CONTAINER`, `sftp://…`."""
    scheme, slashes, rest = text.partition("://")
    if not slashes or scheme == "s3":
        return Bucket("s3", _s3(rest if slashes else text))
    if scheme == "gs":
        plain = re.fullmatch(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]", rest)
        if not plain or any(len(part) not in range(1, 64) for part in rest.split(".")):
            raise ValueError("write gs:// and a bucket's name, such as gs://my-bucket; a path belongs in replica-path")
        return Bucket("gs", rest)
    if scheme == "abs":
        account, _, name = rest.partition("/")
        named = 3 <= len(name) <= 63 and re.fullmatch(r"[a-z0-9]+(?:-[a-z0-9]+)*", name)
        if not named or not re.fullmatch(r"[a-z0-9]{3,24}", account):
            raise ValueError("write abs://ACCOUNT/CONTAINER, such as abs://myaccount/backups")
        return Bucket("abs", name, account)
    if scheme == "sftp":
        return _sftp(text)
    raise ValueError(
        "write the name of an S3 bucket, or gs://BUCKET, abs://ACCOUNT/CONTAINER or sftp://USER@HOST:PORT/PATH"
    )


def _s3(name: str) -> str:
    try:
        return values.bucket(name)
    except ValueError as right:
        raise ValueError(f"{right}; a path belongs in replica-path" if "/" in name else right) from None


def _sftp(text: str) -> Bucket:
    right = "write sftp://USER@HOST:PORT/PATH, such as sftp://backup@nas.example.com/srv/backups"
    match = re.fullmatch(r"sftp://([A-Za-z0-9_][A-Za-z0-9._-]{0,63})@([A-Za-z0-9.:\[\]-]+)/([^\s?#]+?)/?", text)
    try:
        url = urlsplit(text)
        host, port = url.hostname or "", url.port
    except ValueError:
        raise ValueError(right) from None
    if url.password is not None:
        raise ValueError(f"must hold no credentials (the key belongs in the Secret): {right}")
    if match is None or not values.is_host(host) or port == 0 or url.netloc.endswith(":"):
        raise ValueError(right)
    if (why := values.wrong_replica_path(match[3])) is not None:
        raise ValueError(f"has a path that {why}: {right}")
    name = f"[{ipaddress.ip_address(host)}]" if ":" in host else host.lower().removesuffix(".")
    return Bucket("sftp", match[3], match[1], name if port in (None, 22) else f"{name}:{port}")


def host_key(text: str) -> str:
    """A server's public key as OpenSSH writes it: its type and the key in base64; a comment is left out."""
    words = text.split()
    kind = words[0] if words else ""
    if len(words) > 1 and not kind.startswith(("ssh-", "ecdsa-")) and words[1].startswith(("ssh-", "ecdsa-")):
        key = escaped(" ".join(words[1:3])[:40])
        raise ValueError(f"begins with the server's name, as in known_hosts: write only what follows, {key}…")
    if kind not in HOST_KEYS or len(words) < 2 or not re.fullmatch(r"[A-Za-z0-9+/]{1,4000}={0,2}", words[1]):
        raise ValueError("write the server's public key, such as ecdsa-sha2-nistp256 AAAAE2Vj…")
    parts = _parts(words[1])
    if parts is None or len(parts) != HOST_KEYS[kind] or parts[0] != kind.encode():
        raise ValueError(f"is no whole key of type {kind}: copy the line again, as `ssh-keyscan` prints it")
    return f"{kind} {words[1]}"


def _parts(text: str) -> list[bytes] | None:
    """The parts of a public key in base64, each of which stands behind its length; None where one is cut off."""
    if len(text) % 4:
        return None
    rest, parts = binascii.a2b_base64(text), []
    while rest:
        end = 4 + int.from_bytes(rest[:4])
        if len(rest) < end:
            return None
        parts.append(rest[4:end])
        rest = rest[end:]
    return parts


class Place(NamedTuple):
    """Where a database is replicated to, as its annotations say it; `endpoint` empty: Amazon's."""

    endpoint: str
    bucket: str
    path: str

    def __str__(self) -> str:
        return f"{self.bucket}/{self.path}"


def location(place: Place) -> str:
    """A replica's place in one spelling: the host, and behind it bucket and path as one path.

    The scheme and its default port are dropped, and an endpoint's path and a bucket in Amazon's or Google's host names
    are what they are to S3: the first parts of the path. So a bucket of Google's is one, by its own API or that of S3.
    """
    if not place.endpoint:
        return "/".join(("amazonaws.com", place.bucket, place.path))
    url = urlsplit(place.endpoint)
    host = (url.hostname or "").lower().removesuffix(".")
    if ":" in host:
        host = f"[{ipaddress.ip_address(host)}]"
    path = [url.path.strip("/"), place.bucket, place.path]
    if amazon := AMAZON.fullmatch(host):
        inside_vpc = f".vpce.{amazon['partition']}" in host  # bucket.vpce-ID.s3.REGION.vpce…: bucket is that word
        host = amazon["partition"]
        path.insert(0, (not inside_vpc and amazon["bucket"]) or "")
    elif google := GOOGLES.fullmatch(host):
        host = GOOGLE
        path.insert(0, google["bucket"] or "")
    elif url.port not in DEFAULT_PORTS:
        host = f"{host}:{url.port}"
    return "/".join((host, *filter(None, path)))
