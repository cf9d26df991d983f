"""What Litestream is told: its config file, flags and probes, for the release in use."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from injector.annotations.litestream_options import BY_KEY
from injector.annotations.settings import Settings, server
from injector.pod.volumes import CONFIG_DIRECTORY, CREDENTIALS_DIRECTORY
from injector.stores import STORES

CONFIG = f"{CONFIG_DIRECTORY}/litestream.yml"
RESTORE_FROM_CONFIG = f"{CONFIG_DIRECTORY}/restore-from.yml"
SOCKET = f"{CONFIG_DIRECTORY}/litestream.sock"
BINARY = "/usr/local/bin/litestream"
MONITOR_SECONDS = 1  # between Litestream's looks at a database (monitor-interval), if nothing else is said
SEEN_SECONDS = 2  # until Litestream has surely seen a new database, where no shell looks
FINAL_SYNC_SECONDS = 30  # Litestream's own shutdown-sync-timeout, for each database

# First releases with `info` and `list` by the socket and `ltx -level`, with `restore -integrity-check`, and with
# `restore -json`.
HAS_INFO = (0, 5, 8)
HAS_INTEGRITY_CHECK = (0, 5, 10)
HAS_JSON = (0, 5, 12)


def config(settings: Settings, replicas: Mapping[str, str]) -> str:
    """The Litestream config that replicates each database to its path in the bucket.

    JSON, which is YAML: every text in it is quoted and escaped by its encoder. Its lines are what all databases
    have in common, the port and the socket, one for each database, and the end, so that a script can make a config of
    each database alone.
    """
    common: dict[str, Any] = {"logging": {"level": settings.log_level}}
    listening: dict[str, Any] = {}
    if settings.metrics_port is not None:
        listening["addr"] = f":{settings.metrics_port}"
    if _is_03(settings):
        times = {"snapshot-interval": settings.snapshot_interval.text, "retention": settings.retention.text}
    else:
        times = {}
        common["snapshot"] = {
            "interval": settings.snapshot_interval.text,
            "retention": settings.retention.text,
        }
        listening["socket"] = {"enabled": True, "path": SOCKET}
        # With the default of 15 s an idle database makes ten times as many LIST requests.
        common["l0-retention-check-interval"] = "5m"
        common["shutdown-sync-timeout"] = f"{FINAL_SYNC_SECONDS}s"
    common = _laid(settings, "top", common)
    # A sync only sends what Litestream has seen: without this, shorter intervals than a second have no effect.
    often = settings.sync_interval.seconds < MONITOR_SECONDS
    monitor = {"monitor-interval": settings.sync_interval.text} if often else {}
    own = _laid(settings, "database", {})
    databases = [
        {
            "path": database,
            **monitor,
            **own,
            "replicas": [{**_replica(settings, path), "sync-interval": settings.sync_interval.text, **times}],
        }
        for database, path in replicas.items()
    ]
    lines = [_json(common)[:-1] + ",", *([_json(listening)[1:-1] + ","] if listening else []), '"dbs":[']
    return "\n".join([*lines, ",\n".join(map(_json, databases)), "]}"])


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _is_03(settings: Settings) -> bool:
    return settings.litestream_version < (0, 5)


def _laid(settings: Settings, place: str, generated: dict[str, Any]) -> dict[str, Any]:
    """What is generated for a place in the config, over what the operator's file says for there."""
    result = dict(generated)
    for key, value in settings.defaults.litestream.items():
        option = BY_KEY[key]
        if option.place == place and settings.litestream_version >= option.since:
            outer, _, inner = key.partition(".")
            result[outer] = {inner: value, **generated.get(outer, {})} if inner else generated.get(outer, value)
    return result


def _replica(settings: Settings, path: str) -> dict[str, Any]:
    """The replica's place and how to get there, in Litestream's words."""
    bucket = settings.bucket
    if bucket.kind == "s3":
        return {**_laid(settings, "s3", _s3(settings)), "path": path}
    if bucket.kind == "sftp":
        return {
            "type": "sftp",
            "host": bucket.host,
            "user": bucket.account,
            "host-key": settings.host_key,
            "key-path": f"{CREDENTIALS_DIRECTORY}/{STORES['sftp'].file}",
            "path": f"/{bucket.name}/{path}",
        }
    account = {"account-name": bucket.account} if bucket.kind == "abs" else {}
    endpoint = {"endpoint": settings.endpoint} if settings.endpoint is not None else {}
    return {"type": bucket.kind, **account, "bucket": bucket.name, **endpoint, "path": path}


def _s3(settings: Settings) -> dict[str, Any]:
    bucket: dict[str, Any] = {"type": "s3", "bucket": settings.bucket.name, "region": settings.region}
    if settings.endpoint is not None:
        bucket["endpoint"] = settings.endpoint
    if settings.addressing is not None or settings.endpoint is not None:
        bucket["force-path-style"] = settings.addressing != "virtual"
    if settings.storage_class is not None:
        bucket["storage-class"] = settings.storage_class
    if settings.sse_kms_key_id is not None:
        bucket["sse-kms-key-id"] = settings.sse_kms_key_id
    return bucket


def bucket(settings: Settings) -> str:
    """The bucket and, as the last word, the URL of its server: for messages."""
    return f"{settings.bucket} at {server(settings)}"


def restore_arguments(settings: Settings, database: str) -> list[str]:
    """Arguments that restore a database from its own replica, if it is missing."""
    required = settings.restore == "required" and settings.restore_from is None
    return [
        "restore",
        "-config",
        CONFIG,
        "-no-expand-env",
        "-if-db-not-exists",
        *([] if required else ["-if-replica-exists"]),
        *_integrity_check(settings),
        database,
    ]


def restore_from_arguments(settings: Settings, database: str) -> list[str]:
    """Arguments that start a database, if it is still missing, from another replica, maybe at a point in time."""
    at = ["-timestamp", settings.restore_timestamp] if settings.restore_timestamp else []
    return [
        "restore",
        "-config",
        RESTORE_FROM_CONFIG,
        "-no-expand-env",
        "-if-db-not-exists",
        *at,
        *_integrity_check(settings),
        database,
    ]


def _integrity_check(settings: Settings) -> list[str]:
    known = settings.litestream_version >= HAS_INTEGRITY_CHECK
    return ["-integrity-check", settings.integrity_check] if known and settings.integrity_check != "none" else []


def replicate_arguments() -> list[str]:
    """Arguments of the sidecar."""
    return ["replicate", "-config", CONFIG, "-no-expand-env"]


def can_list(settings: Settings) -> bool:
    """Whether a script can ask what Litestream and its replica hold: by a shell, `list -socket` and `ltx -level`."""
    return settings.litestream_version >= HAS_INFO and not (settings.image.tag or "").endswith("-scratch")


def tells_shell(settings: Settings) -> bool:
    """Whether the image's tag is one of Litestream's own, which tells if the image has a shell."""
    return bool(re.fullmatch(r"v?0\.[0-9]+(\.[0-9]+)?(-scratch)?", settings.image.tag or ""))


def probe(settings: Settings) -> list[str] | None:
    """The command that tells whether the sidecar is alive; None for releases that can't be asked."""
    return [BINARY, "info", "-socket", SOCKET] if settings.litestream_version >= HAS_INFO else None
