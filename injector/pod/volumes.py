"""The volumes that are the webhook's own, and their mounts in the containers that are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from injector.pod.shapes import PodSpec, VolumeMount
from injector.values import Object

PREFIX = "litestream-hook-"
CONFIG_VOLUME = "litestream-hook-config"
CONFIG_DIRECTORY = "/etc/litestream"
TOKEN_DIRECTORY = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 (a path)
CA_VOLUME = "litestream-hook-ca"
CA_DIRECTORY = "/etc/litestream-ca"
CREDENTIALS_VOLUME = "litestream-hook-credentials"
CREDENTIALS_DIRECTORY = "/etc/litestream-credentials"
# Go reads the first of the system's bundles that is there, and then every certificate in these directories: the first
# two stand here as they would be read without the variable, which replaces them.
CERTIFICATE_DIRECTORIES = ("/etc/ssl/certs", "/etc/pki/tls/certs", CA_DIRECTORY)
STORAGE_VOLUME = "litestream-hook-storage"
# Annotations that name, comma-separated, volumes whose content nobody has to keep. The autoscaler removes no node under
# a Pod with another emptyDir (its FAQ); a file system backup would bring back an older database than the replica's.
DISPENSABLE = (
    "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes",
    "backup.velero.io/backup-volumes-excludes",
)


def config_volume() -> Object:
    """The volume of config and control socket: in memory, for a few kilobytes."""
    return {"name": CONFIG_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}


def config_mount() -> VolumeMount:
    """Its mount, in all injected containers and in no other."""
    return {"name": CONFIG_VOLUME, "mountPath": CONFIG_DIRECTORY}


def will_have_token(spec: PodSpec) -> bool:
    """Whether the API server's admission has mounted a token in the application's containers, and would in ours."""
    has_token = {
        container["name"].startswith(PREFIX)
        for container in [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]
        for mount in container.get("volumeMounts") or []
        if mount["mountPath"] == TOKEN_DIRECTORY
    }
    return has_token == {False}


def no_token_mount() -> VolumeMount:
    """An empty directory in the token's place: Litestream never asks the API server.

    The ServiceAccount admission leaves a container alone that has a mount there (its mountServiceAccountToken). Where
    it adds one, the API server calls the webhook a second time.
    """
    return {"name": CONFIG_VOLUME, "mountPath": TOKEN_DIRECTORY, "subPath": "no-token", "readOnly": True}


def ca_volume(source: str) -> Object:
    """The volume of the certificates in `secret/NAME` or `configmap/NAME`: a Pod waits until that has a `ca.crt`."""
    kind, _, name = source.partition("/")
    items = {"items": [{"key": "ca.crt", "path": "ca.crt"}]}
    volume = {"secret": {"secretName": name, **items}} if kind == "secret" else {"configMap": {"name": name, **items}}
    return {"name": CA_VOLUME, **volume}


def ca_mount() -> VolumeMount:
    """Its mount, in the injected containers that ask the bucket."""
    return {"name": CA_VOLUME, "mountPath": CA_DIRECTORY, "readOnly": True}


def credentials_volume(secret: str, key: str) -> Object:
    """The volume of a Secret's key that Litestream reads as a file."""
    return {"name": CREDENTIALS_VOLUME, "secret": {"secretName": secret, "items": [{"key": key, "path": key}]}}


def credentials_mount() -> VolumeMount:
    """Its mount, in the injected containers that ask the bucket."""
    return {"name": CREDENTIALS_VOLUME, "mountPath": CREDENTIALS_DIRECTORY, "readOnly": True}


def dispensable(annotations: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """The annotations DISPENSABLE with these names of volumes behind those that they have already."""
    return {key: _listed(annotations.get(key), names) for key in DISPENSABLE}


def _listed(text: str | None, names: Sequence[str]) -> str:
    """A comma-separated list with these names behind those that it has."""
    if not text:
        return ",".join(names)
    there = text.split(",")
    return ",".join([text, *(name for name in names if name not in there)])
