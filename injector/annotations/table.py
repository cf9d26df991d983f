"""The one table of annotations: what parses, validates, documents and suggests them all."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, get_args

from injector import GROUP, stores, values
from injector.options import DEFAULT_IMAGE, INIT_IMAGE

Addressing = Literal["path", "virtual"]
Auth = Literal["secret", "session", "ambient"]
Series = Literal["0.3", "0.5"]
Sidecar = Literal["native", "container"]
Restore = Literal["if-exists", "required", "off"]
IntegrityCheck = Literal["none", "quick", "full"]
FirstSync = Literal["auto", "wait", "background"]
LocalDatabase = Literal["keep", "replace"]
LogLevel = Literal["debug", "info", "warn", "error"]
SingleWriter = Literal["enforce", "warn", "off"]


class Annotation(NamedTuple):
    """One annotation: its key below the group, default (None: none), reader of its text, and meaning."""

    key: str
    default: str | None
    read: Callable[[str], Any]
    meaning: str


ANNOTATIONS = (
    Annotation("inject", None, values.boolean, '`"true"` asks for injection, `"false"` declines it'),
    Annotation("path", "/mnt/litestream.db", values.database_paths,
               "databases, comma-separated absolute paths"),
    Annotation("bucket", "litestream", stores.bucket,
               "bucket that holds the replicas: the name of one of S3, `gs://BUCKET`, `abs://ACCOUNT/CONTAINER` or "
               "`sftp://USER@HOST:PORT/PATH`"),
    Annotation("endpoint", None, values.endpoint,
               "URL of an S3-compatible server, or of Azure's where that is not `ACCOUNT.blob.core.windows.net`"),
    Annotation("addressing", None, values.one_of(*get_args(Addressing)),
               "`path`: the bucket stands in the URL's path; `virtual`: in the host's name; "
               "by default `path` with an `endpoint`, else `virtual`"),
    Annotation("region", "us-east-1", values.region, "region of the bucket"),
    Annotation("secret", "litestream-hook-secret", values.object_name,
               "Secret in the Pod's namespace with the keys `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`; for "
               "Google `key.json`, for Azure `AZURE_STORAGE_KEY`, for SFTP `ssh-privatekey`"),
    Annotation("auth", "secret", values.one_of(*get_args(Auth)),
               "`secret` reads the Secret; `session` its key `AWS_SESSION_TOKEN` as well, of temporary credentials, "
               "for Azure `AZURE_STORAGE_SAS_TOKEN` alone; `ambient` uses the Pod's own identity (web or workload "
               "identity, instance role)"),
    Annotation("ca", None, values.certificate_source,
               "`secret/NAME` or `configmap/NAME` in the Pod's namespace: its key `ca.crt` holds certificates that "
               "Litestream trusts beside those of its image"),
    Annotation("host-key", None, stores.host_key,
               "public key of an SFTP server, such as `ecdsa-sha2-nistp256 AAAA…`: its ECDSA key, without one its RSA "
               "key, else its Ed25519 key"),
    Annotation("storage-class", None, values.storage_class,
               "storage class of the replicas' files, such as `STANDARD_IA`"),
    Annotation("sse-kms-key-id", None, values.kms_key,
               "key of AWS KMS that S3 encrypts the replicas' files with: its id, ARN or alias"),
    Annotation("replica-path", "{namespace}/{kind}/{workload}/{database}", values.replica_template,
               "path in the bucket, with the placeholders `{namespace}`, `{kind}`, `{workload}`, `{pod}`, `{node}` "
               "and `{database}` (the database's path without the leading slash)"),
    Annotation("image", DEFAULT_IMAGE, values.image, "Litestream image"),
    Annotation("litestream-version", None, values.one_of(*get_args(Series)),
               "`0.3` or `0.5`: format of config and flags; by default what the image's tag says, else 0.5"),
    Annotation("init-image", INIT_IMAGE, values.image, "image with a shell that writes the config"),
    Annotation("storage", "1Gi", values.size, "size limit of each volume that is added for databases"),
    Annotation("containers", None, values.container_names,
               "containers that use the databases, comma-separated; by default those that mount a volume where one is, "
               "else all of `spec.containers`; not network proxies, exporters and other injected sidecars"),
    Annotation("run-as-user", None, values.user_id,
               "user id of the application; by default its securityContext's, or the one that it drops to (`PUID`)"),
    Annotation("run-as-group", None, values.user_id,
               "group id of the application; by default its securityContext's, or the one that it drops to (`PGID`)"),
    Annotation("sidecar", "native", values.one_of(*get_args(Sidecar)),
               "`native`: an init container with `restartPolicy: Always`, which stops after the application; "
               "`container`: an ordinary container"),
    Annotation("init-first", "true", values.boolean,
               '`"false"` puts the init containers after the Pod\'s own, instead of before'),
    Annotation("restore", "if-exists", values.one_of(*get_args(Restore)),
               "`required`: a missing replica is an error; `off`: nothing is restored"),
    Annotation("restore-from", None, values.replica_template,
               "whole path in the bucket of another replica, to start from while the Pod's own has no backup yet"),
    Annotation("restore-timestamp", None, values.timestamp,
               "point in time of `restore-from` to start from (RFC 3339)"),
    Annotation("integrity-check", "quick", values.one_of(*get_args(IntegrityCheck)),
               "check of a restored database"),
    Annotation("first-sync", "auto", values.one_of(*get_args(FirstSync)),
               "`wait`: the application starts once a restored database is in the replica again as a whole, so that a "
               "node that dies right then takes no more rows with it than at any other time; `auto`: so for databases "
               "above 16 MiB, as smaller ones are there within a second or two; `background`: it starts at once"),
    Annotation("local-database", None, values.one_of(*get_args(LocalDatabase)),
               "what becomes of a database on a volume of the application's own that is older than its replica, "
               "or another one: `keep` makes it the replica's newest state, `replace` moves it aside and restores; "
               "by default the Pod waits, and the log of `litestream-hook-init` says why"),
    Annotation("sync-interval", "1s", values.duration, "how often changes are replicated"),
    Annotation("snapshot-interval", "12h", values.duration, "how often a snapshot is taken"),
    Annotation("retention", "168h", values.duration, "how long snapshots are kept"),
    Annotation("cpu-request", "20m", values.cpu, "CPU request of every injected container"),
    Annotation("cpu-limit", None, values.cpu, "CPU limit of every injected container"),
    Annotation("memory-request", "64Mi", values.size, "memory request of every injected container"),
    Annotation("memory-limit", "256Mi", values.size,
               "memory limit of every injected container, which Go's garbage collector knows"),
    Annotation("metrics-port", None, values.port,
               "port of Litestream's Prometheus metrics; off by default, because pprof is served with them"),
    Annotation("log-level", "info", values.one_of(*get_args(LogLevel)), "Litestream's log level"),
    Annotation("single-writer", "enforce", values.one_of(*get_args(SingleWriter)),
               "a workload or Pod that could be the second writer of a replica: `enforce` denies it, `warn` warns, "
               "`off` says nothing"),
)  # fmt: skip
BY_KEY = {annotation.key: annotation for annotation in ANNOTATIONS}
# What people look for by its name in Litestream's config, or elsewhere, and what there is instead.
_NO_CHOICE = "is for the webhook and Litestream to choose: remove it"
UNDONE = {
    "account-key": "credentials belong in the Secret that the annotation secret names: remove them here",
    "account-name": "belongs in the annotation bucket, as in abs://ACCOUNT/CONTAINER",
    "access-key-id": "credentials belong in the Secret that the annotation secret names: remove them here",
    "addr": "write metrics-port",
    "age": "Litestream 0.5 can't encrypt by itself, so nothing is encrypted: write sse-kms-key-id",
    "busy-timeout": _NO_CHOICE,
    "checkpoint-interval": _NO_CHOICE,
    "concurrency": _NO_CHOICE,
    "dir": "each database is named in path",
    "exec": "the application stays in its own container: remove it",
    "force-path-style": "write addressing",
    "heartbeat-url": "there are metrics instead: write metrics-port",
    "levels": _NO_CHOICE,
    "monitor-interval": "follows sync-interval: remove it",
    "part-size": _NO_CHOICE,
    "replicas": "each database has one replica, as in Litestream 0.5: write bucket, endpoint and replica-path",
    "secret-access-key": "credentials belong in the Secret that the annotation secret names: remove them here",
    "session-token": 'belongs in the Secret that the annotation secret names: remove it here, and write auth "session"',
    "skip-verify": "certificates are always checked: write ca",
    "host": "belongs in the annotation bucket, as in sftp://USER@HOST:PORT/PATH",
    "key-path": "the key belongs in the Secret that the annotation secret names: remove it here",
    "sse-customer-key": "would have to stand in the Pod, so nothing is encrypted with it: write sse-kms-key-id",
    "type": "is said by the annotation bucket, as in gs://BUCKET, abs://ACCOUNT/CONTAINER, sftp://USER@HOST:PORT/PATH",
    "url": "write bucket, endpoint and replica-path",
    "validation-interval": _NO_CHOICE,
}
STATUS = "status"  # written by the webhook, never by a user
LABEL = "replicates"
MOST_WORDS = 100  # that one is compared with


def group(variant: str) -> str:
    """The annotation group: `litestream-hook.kaidotio.github.io`, prefixed by a variant if there is one."""
    return f"{variant}.{GROUP}" if variant else GROUP


def similar(word: str, words: list[str]) -> str:
    """` (did you mean …?)` with the most similar of the words, or nothing."""
    found = difflib.get_close_matches(word[:64], words[:MOST_WORDS], n=1)
    return f"; did you mean {found[0]}?" if found else ""


def meant(key: str, keys: list[str]) -> str:
    """What to add to the news that a key is unknown: what there is instead, or the most similar one of the keys."""
    return f": {UNDONE[key]}" if key in UNDONE else similar(key, keys)


def table(defaults: Mapping[str, str] | None = None, sources: Mapping[str, str] | None = None) -> str:
    """The annotations as a Markdown table, for docs/annotations.md and the command line.

    Args:
        defaults: the operator's, by key, where they replace the table's own.
        sources: where each default comes from, by key, if that is to be shown too.
    """
    between = " from |" if sources is not None else ""
    rows = [f"| key | default |{between} meaning |", f"| --- | --- |{' --- |' if between else ''} --- |"]
    for key, own_default, _, meaning in ANNOTATIONS:
        default = (defaults or {}).get(key, own_default)
        source = f" {sources.get(key, '')} |" if sources is not None else ""
        rows.append(f"| `{key}` | {f'`{default}`' if default else ''} |{source} {meaning} |")
    return "\n".join(rows)
