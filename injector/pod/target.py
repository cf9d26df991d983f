"""The containers that use the databases, what of theirs Litestream shares, and how long they may take to end."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from injector.annotations.findings import Findings
from injector.annotations.settings import Settings
from injector.annotations.table import similar
from injector.options import Options
from injector.pod import volumes
from injector.pod.mounts import absolute, holding
from injector.pod.plan import Credentials
from injector.pod.shapes import Container, EnvVar, PodSpec, VolumeMount
from injector.pod.storage import MOST_USES
from injector.stores import STORES

MOST_MEANT = 3  # unknown names that a similar one is looked for: each look is slow
CONFIG = "/etc/litestream.yml"  # of Litestream's own images
DEFAULT_GRACE_SECONDS = 30  # Kubernetes' own, where a Pod names none
# The binary (`litestream`, `/opt/litestream-v0.3.13`, `${LITESTREAM_BIN}`) and what it is told to do, in small letters.
CALL = re.compile(r"""litestream[\w-]{0,40}+(?:\.\d{1,9}+){0,4}+\}?["'\s\\]{1,40}+([a-z]{1,20}+)""")
# What other webhooks put beside an application, or what only watches it: its databases are none of theirs.
SIDECARS = frozenset({
    "azwi-proxy", "daprd", "datadog-agent-injected", "exporter", "gke-gcsfuse-sidecar", "jaeger-agent",
    "otc-container", "queue-proxy", "vault-agent",
})  # fmt: skip
WATCHERS = ("-exporter", "_exporter")  # how the names of those that only watch end


def targets(spec: PodSpec, settings: Settings, earlier: Sequence[str] | None, findings: Findings) -> list[Container]:
    """The containers that use the databases.

    Args:
        spec: the Pod's.
        settings: with the names that the annotation `containers` gives.
        earlier: the names that an earlier call recorded; None at the first.
        findings: takes a violation where there are none.
    """
    init, main = spec.get("initContainers") or [], spec["containers"]
    if earlier is None and settings.containers is None:
        found = _by_default(spec, settings, findings)
    else:
        by_name = {item["name"]: item for item in [*init, *main]}
        if earlier is not None:
            return [by_name[name] for name in earlier if name in by_name]
        found = [by_name[name] for name in _named(settings.containers or (), by_name, findings)]
    if not settings.init_first and "init-first" not in settings.broken:
        names = {item["name"] for item in found}
        for item in init:
            if item["name"] in names:
                findings.deny(
                    "init-first",
                    "false",
                    f"init container {item['name']} uses the databases and would run before they are restored: write "
                    '"true"',
                )
    return found


def _named(names: Sequence[str], by_name: Mapping[str, Container], findings: Findings) -> list[str]:
    """The names of those of the annotation `containers` that the Pod has."""
    known = [name for name in by_name if not name.startswith(volumes.PREFIX)]
    choice = ", ".join(known)[:200]
    for number, name in enumerate(name for name in names if name not in by_name):
        meant = similar(name, known) if number < MOST_MEANT else ""
        findings.deny(
            "containers",
            ",".join(names),
            f"the Pod has no container {name}{meant}: write one or more of {choice}",
        )
    return [name for name in names if name in by_name]


def _by_default(spec: PodSpec, settings: Settings, findings: Findings) -> list[Container]:
    """The containers that mount the volumes on which the databases lie, else all that may be the application."""
    proxies = settings.options.skip_containers
    main = [item for item in others(spec["containers"]) if item["name"] not in proxies]
    if not main:
        findings.deny(
            "containers",
            None,
            "is needed, as all containers of the Pod are known proxies: write the name of the one that uses the "
            "databases",
        )
    found = [item for item in main if _may_use(item)] or main
    sidecars = [item for item in others(spec.get("initContainers") or []) if item.get("restartPolicy") == "Always"]
    beside = [item for item in sidecars if _may_use(item)]
    if len(found) == 1 and not beside:
        return found  # wherever the databases lie: nearly all Pods are like that
    if (len(found) + len(beside)) * len(settings.path) > MOST_USES:
        return found  # `storage.plan` denies it
    # A container without the volume that a database lies on has nothing to do with it.
    return holding(found, settings.path) or holding(beside, settings.path) or found


def others(items: Sequence[Container]) -> list[Container]:
    """The containers that are none of the webhook's own."""
    return [item for item in items if not item["name"].startswith(volumes.PREFIX)]


def _may_use(item: Container) -> bool:
    """Whether a container may be the application, by its name, and as no other Litestream that stands beside it."""
    name = item["name"]
    known = name in SIDECARS or name.endswith(WATCHERS)
    return not known and (not replicates(item) or starts_application(item))


def replicates(item: Container, *, stays: bool = True) -> bool:
    """Whether a container runs `litestream replicate`, of its own or around the application (`-exec`).

    Words that a shell would take apart count too: `sh -c "litestream restore … && exec litestream replicate"`.

    Args:
        item: the container.
        stays: whether it runs as long as the application: then an image of Litestream whose command says nothing
            replicates. An init container may as well restore.
    """
    image = item.get("image") or ""
    if not item.get("command") and not item.get("args") and "litestream" not in image:
        return False  # nearly all: this is quick
    said = _said(item)
    if calls := CALL.findall(said):
        return "replicate" in calls
    image = image.partition("@")[0].rpartition("/")[2].partition(":")[0]
    command, arguments = item.get("command") or [], item.get("args") or []
    return image == "litestream" and (arguments[:1] == ["replicate"] if arguments and not command else stays)


def signs_of_litestream(items: Sequence[Container]) -> dict[str, str]:
    """What makes it likely that containers' images run Litestream, though their commands do not say so: by their names.

    Nearly none has one, and looking through all of them together is quick.
    """
    variables = "\n".join([entry["name"] for item in items for entry in item.get("env") or ()])
    mounts = {mount["mountPath"] for item in items for mount in item.get("volumeMounts") or ()}
    if "LITESTREAM_" not in variables and CONFIG not in mounts:
        return {}
    return {item["name"]: sign for item in items if (sign := _sign_of_litestream(item)) is not None}


def _sign_of_litestream(item: Container) -> str | None:
    for entry in item.get("env") or ():
        if entry["name"].startswith("LITESTREAM_"):
            return f"{entry['name']} in its env"
    mounted = any(mount["mountPath"] == CONFIG for mount in item.get("volumeMounts") or ())
    return f"{CONFIG} mounted" if mounted else None


def starts_application(item: Container) -> bool:
    """Whether a Litestream has the application as its child (`replicate -exec`)."""
    return re.search(r"--?exec(?:[\s=]|$)", _said(item)) is not None


def _said(item: Container) -> str:
    words = [*(item.get("command") or []), *(item.get("args") or [])]
    return " ".join(words).lower() if words else ""


def credentials(settings: Settings, targets: Sequence[Container]) -> Credentials:
    """How Litestream gets into the bucket: by the Secret or as the application does (`auth: ambient`), a CA, proxies.

    Args:
        settings: with the way, the Secret's name, where the CA is, and the operator's proxies.
        targets: whose identity, as other webhooks have given it to them, Litestream shares.
    """
    found = _identity(settings, targets)
    if settings.bucket.kind != "sftp":  # by SSH, not by HTTP
        found = found._replace(environment=[*found.environment, *_proxies(settings.options)])
    if settings.ca is None:
        return found
    # With AWS_CA_BUNDLE each request of Litestream 0.5 fails, and SSL_CERT_FILE replaces the system's certificates.
    trusted: EnvVar = {"name": "SSL_CERT_DIR", "value": ":".join(volumes.CERTIFICATE_DIRECTORIES)}
    return Credentials(
        [*found.environment, trusted],
        [*found.mounts, volumes.ca_mount()],
        [*found.volumes, volumes.ca_volume(settings.ca)],
    )


def _proxies(options: Options) -> list[EnvVar]:
    """The operator's proxies, by the names that Go knows."""
    named = {
        "HTTPS_PROXY": options.litestream_https_proxy,
        "HTTP_PROXY": options.litestream_http_proxy,
        "NO_PROXY": options.litestream_no_proxy,
    }
    return [{"name": name, "value": text} for name, text in named.items() if text]


def _identity(settings: Settings, targets: Sequence[Container]) -> Credentials:
    store = STORES[settings.bucket.kind]
    if settings.auth != "ambient":
        environment: list[EnvVar] = [
            {"name": name, "valueFrom": {"secretKeyRef": {"name": settings.secret, "key": key}}}
            for name, key in store.variables.get(settings.auth, {}).items()
        ]
        if store.file is None:
            return Credentials(environment)
        if store.path is not None:
            environment.append({"name": store.path, "value": f"{volumes.CREDENTIALS_DIRECTORY}/{store.file}"})
        volume = volumes.credentials_volume(settings.secret, store.file)
        return Credentials(environment, [volumes.credentials_mount()], [volume])
    names = store.identity or ()
    for target in targets:
        # A name that stands twice has its last value, as in the container itself.
        found = {entry["name"]: entry for entry in target.get("env") or [] if entry["name"] in names}
        if found:
            files = [found[name].get("value") or "" for name in store.tokens if name in found]
            mounts = {mount["mountPath"]: mount for file in files if (mount := _mount_of(file, target))}
            read_only: list[VolumeMount] = [{**mount, "readOnly": True} for mount in mounts.values()]
            return Credentials([*found.values()], read_only)
    return Credentials()


def _mount_of(file: str, target: Container) -> VolumeMount | None:
    """The container's mount that a file lies in."""
    parents = [
        mount for mount in target.get("volumeMounts") or [] if file.startswith(absolute(mount["mountPath"]) + "/")
    ]
    return max(parents, key=lambda mount: len(mount["mountPath"]), default=None)


def grace(spec: PodSpec) -> int:
    """The Pod's grace period, in seconds."""
    seconds = spec.get("terminationGracePeriodSeconds")
    return DEFAULT_GRACE_SECONDS if seconds is None else int(seconds)
