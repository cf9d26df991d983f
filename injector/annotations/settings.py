"""Annotations → frozen Settings: text is parsed here, once, and all that is wrong is said together."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import msgspec

from injector import stores
from injector.annotations.defaults import NONE, Defaults
from injector.annotations.findings import Findings
from injector.annotations.litestream_options import BY_KEY as OPTIONS
from injector.annotations.table import (
    ANNOTATIONS,
    BY_KEY,
    STATUS,
    Addressing,
    Auth,
    FirstSync,
    IntegrityCheck,
    LocalDatabase,
    LogLevel,
    Restore,
    Sidecar,
    SingleWriter,
    meant,
    similar,
)
from injector.errors import quoted
from injector.latest import Latest
from injector.options import DEFAULT_IMAGE, Options
from injector.stores import STORES
from injector.values import STORAGE_CLASSES, Duration, Image, Quantity


def _release(image: str) -> tuple[int, int, int]:
    """The release that one of Litestream's own images has, by its tag."""
    major, minor, patch = map(int, image.rpartition(":")[2].split("."))
    return major, minor, patch


def dotted(version: Sequence[int]) -> str:
    """A release as people write it: (0, 5, 17) → `0.5.17`."""
    return ".".join(map(str, version))


NEWEST_03 = "docker.io/litestream/litestream:0.3.13"
NEWEST = _release(DEFAULT_IMAGE)
KNOWN_SERIES = {(0, 3): _release(NEWEST_03), (0, 5): NEWEST}  # and the release that a tag without a third number means
OLDEST = (0, 3, 5)  # the first whose restore knows -if-db-not-exists
# First releases whose config has a key: an older one ignores it without a word.
SINCE = {"sse-kms-key-id": (0, 5, 6), "storage-class": (0, 5, 14)}
# Older releases of 0.5 embed an SQLite with a WAL-reset corruption bug (benbjohnson/litestream issue 1432).
OLDEST_SOUND = (0, 5, 17)


MOST_UNKNOWN = 20  # are looked at for what was meant


class Settings(msgspec.Struct, frozen=True, weakref=True):
    """What the annotations ask for, with the operator's defaults: see ANNOTATIONS for what each means."""

    path: tuple[str, ...]
    bucket: stores.Bucket
    endpoint: str | None
    addressing: Addressing | None
    region: str
    secret: str
    auth: Auth
    ca: str | None
    host_key: str | None
    storage_class: str | None
    sse_kms_key_id: str | None
    replica_path: str
    image: Image
    init_image: Image
    litestream_version: tuple[int, int, int]
    storage: Quantity
    containers: tuple[str, ...] | None
    run_as_user: int | None
    run_as_group: int | None
    sidecar: Sidecar
    init_first: bool
    restore: Restore
    restore_from: str | None
    restore_timestamp: str | None
    integrity_check: IntegrityCheck
    first_sync: FirstSync
    local_database: LocalDatabase | None
    sync_interval: Duration
    snapshot_interval: Duration
    retention: Duration
    cpu_request: Quantity
    cpu_limit: Quantity | None
    memory_request: Quantity
    memory_limit: Quantity
    metrics_port: int | None
    log_level: LogLevel
    single_writer: SingleWriter
    options: Options  # the operator's
    defaults: Defaults
    given: frozenset[str]  # keys that the author wrote
    broken: frozenset[str]  # keys whose value is wrong: their default stands in, so that the rest can be checked


_latest: Latest[tuple[Settings, Findings]] = Latest()


def ours(metadata: object, group: str) -> dict[str, Any]:
    """The annotations of our group in an object's metadata (of any shape), by their key below the group."""
    prefix = group + "/"
    return {key[len(prefix) :]: value for key, value in written(metadata).items() if str(key).startswith(prefix)}


def written(metadata: object) -> dict[str, Any]:
    """All annotations in an object's metadata (of any shape)."""
    found = metadata.get("annotations") if isinstance(metadata, dict) else None
    return found if isinstance(found, dict) else {}


def asks(own: Mapping[str, Any]) -> bool:
    """Whether our annotations ask for a judgement: there are some, and they do not decline."""
    return bool(own) and own.get("inject") != "false"


def read(own: Mapping[str, str], options: Options, findings: Findings, defaults: Defaults = NONE) -> Settings:
    """Settings from our annotations; what is wrong goes to the findings, with the built-in default in its place.

    Args:
        own: our annotations by their key below the group, all of them strings.
        options: the operator's options, for defaults.
        findings: takes the violations and warnings.
        defaults: what holds in the namespace for keys that are not there, and what may not be written.
    """
    group = findings.group
    settings, told = _latest.of(options, (group, own, defaults), lambda: _read(own, options, defaults, Findings(group)))
    findings.origins = told.origins
    findings.violations += told.violations
    findings.warnings += told.warnings
    return settings


def _read(
    own: Mapping[str, str], options: Options, defaults: Defaults, findings: Findings
) -> tuple[Settings, Findings]:
    """Settings, and what is to be said of them."""
    defaults = defaults.fitting(own)
    others = defaults.under(own)
    findings.origins = {key: defaults.used[key].origin for key in others}
    texts = {**others, **own}
    read_values, broken = _read_each(texts, options, findings)
    _check_keys(own, findings)
    for warning in defaults.warnings:
        findings.warn(warning)
    version = _version(texts, read_values, broken, findings)
    settings = Settings(
        **{**read_values, "litestream_version": version},
        options=options,
        defaults=defaults,
        given=frozenset(own),
        broken=frozenset(broken),
    )
    _check_together(settings, texts, findings)
    _check_store(settings, own, findings)
    _check_policy(settings, texts, findings)
    return settings, findings


def _read_each(own: Mapping[str, str], options: Options, findings: Findings) -> tuple[dict[str, Any], set[str]]:
    result, broken = dict(_defaults(options)), set()
    for key, value in own.items():
        annotation = BY_KEY.get(key)
        if annotation is None or (key == "inject" and value == "true"):
            continue
        try:
            result[key.replace("-", "_")] = annotation.read(value)
        except ValueError as right:
            findings.deny(key, value, str(right))
            broken.add(key)
    result.pop("inject", None)
    return result, broken


def built_in(options: Options) -> dict[str, str | None]:
    """The texts that hold where nobody writes one: the table's, and those of the operator's options."""
    texts = {annotation.key: annotation.default for annotation in ANNOTATIONS if annotation.key != "inject"}
    return texts | {"image": options.default_image, "init-image": options.init_image}


@functools.lru_cache(maxsize=8)
def _defaults(options: Options) -> Mapping[str, Any]:
    texts = built_in(options).items()
    return {key.replace("-", "_"): None if text is None else BY_KEY[key].read(text) for key, text in texts}


def _check_keys(own: Mapping[str, str], findings: Findings) -> None:
    unknown = [key for key in own if key not in BY_KEY and key != STATUS]
    for key in unknown[:MOST_UNKNOWN]:
        findings.warn(f"{findings.key(quoted(key)[1:-1])}: unknown annotation{meant(key, list(BY_KEY))}")
    if len(unknown) > MOST_UNKNOWN:
        findings.warn(f"{len(unknown) - MOST_UNKNOWN} more annotations of {findings.group} are unknown")
    if "inject" not in own:
        slip = next((key for key in unknown[:MOST_UNKNOWN] if similar(key, ["inject"])), None)
        hint = f" (there is {findings.key(quoted(slip)[1:-1])} instead)" if slip else ""
        findings.deny("inject", None, f'is missing{hint}: write "true" to ask for injection, or "false" to decline it')


def _version(
    own: Mapping[str, str], read_values: dict[str, Any], broken: set[str], findings: Findings
) -> tuple[int, int, int]:
    """The Litestream release, from the image's tag (`0.5.17`, `v0.3.13`, `0.5.17-scratch`) or annotation."""
    wanted: str | None = read_values["litestream_version"]
    tag = read_values["image"].tag or ""
    match = re.match(r"v?([0-9]{1,4})\.([0-9]{1,4})(?:\.([0-9]{1,4}))?(?![0-9])", tag)
    tagged = (int(match[1]), int(match[2])) if match else None
    if broken & {"image", "litestream-version"}:
        return NEWEST
    series = tagged if wanted is None else (0, int(wanted.removeprefix("0.")))
    if series is None:
        return NEWEST
    if series not in KNOWN_SERIES:
        findings.warn(
            f"{findings.key('image')}: the tag {tag} names neither Litestream 0.3 nor 0.5, so it counts as 0.5: "
            f"if it is 0.3, write that in {findings.key('litestream-version')}"
        )
        return NEWEST
    if tagged in KNOWN_SERIES and tagged != series:
        findings.deny(
            "litestream-version",
            wanted,
            f'contradicts the image\'s tag {quoted(tag)}: write "0.{tagged[1]}" or change {findings.key("image")}',
        )
    version = (*series, int(match[3])) if match and match[3] and tagged == series else KNOWN_SERIES[series]
    if version < OLDEST:
        findings.deny(
            "image",
            own.get("image", read_values["image"].reference),
            f"is too old, and lacks flags that restores need: use {DEFAULT_IMAGE} (or {NEWEST_03.rpartition(':')[2]})",
        )
    return version


def _check_together(settings: Settings, own: Mapping[str, str], findings: Findings) -> None:
    """What only two annotations together get wrong, and what is allowed but risky."""

    def sound(*keys: str) -> bool:
        return settings.broken.isdisjoint(keys)

    for resource in ("cpu", "memory"):
        request, limit = getattr(settings, f"{resource}_request"), getattr(settings, f"{resource}_limit")
        if sound(f"{resource}-request", f"{resource}-limit") and limit is not None and request.amount > limit.amount:
            findings.deny(
                f"{resource}-request",
                request.text,
                f"is more than {findings.key(f'{resource}-limit')} ({limit.text}): write at most that",
            )
    if settings.restore_timestamp and "restore-from" not in own:
        findings.deny(
            "restore-timestamp",
            settings.restore_timestamp,
            f"needs {findings.key('restore-from')}: write the path of the replica to start from there, and give this "
            f"Pod a new {findings.key('replica-path')}; a timestamp of the Pod's own replica would rewind the database "
            "at every restart",
        )
    if settings.restore == "off" and settings.restore_from:
        findings.deny(
            "restore-from", own["restore-from"], f'contradicts {findings.key("restore")} "off": remove one of them'
        )
    if settings.auth == "ambient" and "secret" in settings.given:
        findings.warn(f'{findings.key("secret")} has no effect with {findings.key("auth")} "ambient"')
    if sound("retention", "snapshot-interval") and settings.retention.seconds < settings.snapshot_interval.seconds:
        findings.warn(
            f"{findings.key('retention')} ({settings.retention.text}) is shorter than "
            f"{findings.key('snapshot-interval')} ({settings.snapshot_interval.text}): "
            "points in time between snapshots can't be restored"
        )
    kept = settings.defaults.litestream.get("retention.enabled") is False
    if kept and "retention" in settings.given and settings.litestream_version >= OPTIONS["retention.enabled"].since:
        findings.warn(
            f"{findings.key('retention')} has no effect: the operator lets Litestream delete nothing in the bucket"
        )
    if sound("sync-interval") and settings.sync_interval.seconds > 60:
        findings.warn(
            f"{findings.key('sync-interval')}: a Pod whose node dies loses up to {settings.sync_interval.text} of rows"
        )
    if sound("sync-interval") and settings.sync_interval.seconds < Decimal("0.1"):
        findings.warn(
            f"{findings.key('sync-interval')} {settings.sync_interval.text}: Litestream looks and uploads that often, "
            "which costs requests and CPU: 100ms or more will do"
        )
    _check_version(settings, findings)


def _check_store(settings: Settings, own: Mapping[str, str], findings: Findings) -> None:
    """What the store that the bucket is in does not have, or asks for."""
    if "bucket" in settings.broken:
        return
    bucket, store = settings.bucket, STORES[settings.bucket.kind]
    for key in sorted(stores.SPECIAL_KEYS - store.keys):
        if key in own:
            findings.deny(
                key, own[key], f"is nothing that {store.name} has ({bucket}): remove it, or write another bucket"
            )
    ways = [*store.variables, *(["ambient"] if store.identity is not None else [])]
    if settings.auth not in ways and "auth" not in settings.broken:
        right = " or ".join(f'"{way}"' for way in ways)
        findings.deny("auth", settings.auth, f"is no way into {store.name}: write {right}")
    if settings.litestream_version < store.since:
        findings.deny(
            "bucket",
            str(bucket),
            f"needs Litestream {dotted(store.since)} or newer, and this is {dotted(settings.litestream_version)}: use "
            f"{DEFAULT_IMAGE}",
        )
    if bucket.kind == "sftp" and settings.host_key is None and "host-key" not in settings.broken:
        findings.deny(
            "host-key",
            None,
            "is needed, as any server could pretend to be this one: write its public key, as `ssh-keyscan -t ecdsa "
            "HOST` prints it behind the host's name",
        )
    if (chosen := settings.storage_class) is not None and chosen not in STORAGE_CLASSES:
        hint = similar(chosen, [*STORAGE_CLASSES])
        if hint or settings.endpoint is None:
            findings.warn(
                f"{findings.key('storage-class')} {chosen}: a server that does not know this class refuses every file, "
                f"and nothing is replicated; it is none of Amazon's{hint}"
            )
    if settings.endpoint is not None and "endpoint" not in settings.broken:
        _check_server(settings, settings.endpoint, findings)


def _check_server(settings: Settings, endpoint: str, findings: Findings) -> None:
    """An endpoint that is of another store, or account, than the bucket."""
    bucket, url = settings.bucket, urlsplit(endpoint)
    host = (url.hostname or "").removesuffix(".")
    azure = stores.AZURE.fullmatch(host)
    if bucket.kind == "s3" and azure:
        findings.deny(
            "endpoint",
            endpoint,
            f'is Azure Blob Storage, which has no S3 API: remove it, and write bucket "abs://{azure["account"]}/{bucket}"',
        )
    google = stores.GOOGLES.fullmatch(host)
    if bucket.kind == "s3" and google and settings.auth == "ambient":
        findings.deny(
            "auth",
            "ambient",
            f'is no way into Google\'s S3 API, which wants an HMAC key: write bucket "gs://{bucket}" and remove '
            "endpoint, or put an HMAC key into the Secret",
        )
    account = azure["account"] if azure else url.path.strip("/") or bucket.account
    if bucket.kind == "abs" and (google or stores.AMAZON.fullmatch(host)):
        findings.deny("endpoint", endpoint, "is no Azure Blob Storage: remove it, or write another bucket")
    elif bucket.kind == "abs" and account != bucket.account:
        findings.deny("endpoint", endpoint, f"is another account than {bucket.account}, of the bucket: remove it")
    elif bucket.kind == "abs" and azure and url.path.strip("/"):
        findings.deny("endpoint", endpoint, "names more than a server, and the bucket has the container: remove it")
    if bucket.kind == "abs" and url.scheme == "http" and settings.auth == "ambient":
        findings.deny("endpoint", endpoint, "takes nobody's identity without TLS: write a URL with https")


def _check_policy(settings: Settings, texts: Mapping[str, str], findings: Findings) -> None:
    """What the operator does not let a Pod, or its Namespace, choose. Of replicas' paths, replica.py says it."""
    defaults, options = settings.defaults, settings.options
    if not defaults.enforce and not defaults.allow:
        return
    if defaults.enforce:
        strange = _check_enforced_store(settings, texts, findings)
        defaults.check_enforced(defaults.enforce - settings.broken - strange, texts, built_in(options), findings)
    used = {"bucket": str(settings.bucket), "image": settings.image.reference}
    used["endpoint"] = server(settings)
    if settings.auth != "ambient":
        used["secret"] = settings.secret
    if settings.ca is not None:
        used["ca"] = settings.ca
    if settings.init_image.reference not in (options.init_image, defaults.operator.get("init-image")):
        used["init-image"] = settings.init_image.reference
    for key, text in used.items():
        if key not in settings.broken:
            defaults.check_allowed(key, text, findings, given=texts.get(key))
    if settings.endpoint is not None and settings.bucket.kind == "s3":
        defaults.check_server(settings.endpoint, findings)


def _check_enforced_store(settings: Settings, texts: Mapping[str, str], findings: Findings) -> frozenset[str]:
    """Enforced keys that mean nothing in the Pod's store, which would lead around them, as the operator has another."""
    defaults = settings.defaults
    theirs = stores.kind(defaults.operator.get("bucket") or BY_KEY["bucket"].default or "")
    if settings.bucket.kind == theirs or "bucket" in settings.broken:
        return frozenset()
    strange = defaults.enforce & stores.SPECIAL_KEYS
    chosen = sorted(key for key in strange if key == "endpoint" or key in defaults.operator)
    if chosen:
        findings.deny(
            "bucket",
            texts.get("bucket"),
            f"is not in {STORES[theirs].name}, where the operator chooses {' and '.join(chosen)}: write a bucket there",
        )
    return strange


def server(settings: Settings) -> str:
    """The URL of the bucket's server."""
    return settings.bucket.server(settings.endpoint) or f"https://s3.{settings.region}.amazonaws.com"


def _check_version(settings: Settings, findings: Findings) -> None:
    version = dotted(settings.litestream_version)
    for key, since in SINCE.items():
        text = getattr(settings, key.replace("-", "_"))
        if text is not None and settings.litestream_version < since:
            findings.deny(
                key, text, f"is nothing that Litestream {version} knows: use {dotted(since)} or newer, or remove it"
            )
    if settings.litestream_version < (0, 5):
        findings.warn(
            "Litestream 0.3 restores nothing, without an error, from a replica that 0.5 has written: "
            f"never go back to it, and use {findings.key('image')} {DEFAULT_IMAGE} if you can"
        )
        if "integrity-check" in settings.given and settings.integrity_check != "none":
            findings.warn(f"{findings.key('integrity-check')} has no effect with Litestream 0.3")
    elif settings.litestream_version < OLDEST_SOUND:
        findings.warn(
            f"Litestream {version} has an SQLite with a known corruption bug: use {dotted(OLDEST_SOUND)} or newer"
        )
