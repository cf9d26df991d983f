"""The plan: all that the injected containers are made of, gathered before anything is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from injector.annotations.settings import Settings
from injector.pod.shapes import EnvVar, VolumeMount
from injector.pod.storage import Storage
from injector.values import Object

LONGEST_GRACE_SECONDS = 2**30  # 34 years; with the final syncs on top it still fits 32 bits


class User(NamedTuple):
    """Whom Litestream runs as: the application, by its user, group and SELinux label.

    `uid` is None in a template whose Pods are each given one when they are made.
    """

    uid: int | None
    gid: int | None
    selinux: Mapping[str, Any] | None = None


class Credentials(NamedTuple):
    """How Litestream gets into the bucket: environment, mounts (a web identity's token, a CA), and volumes for them."""

    environment: Sequence[EnvVar] = ()
    mounts: Sequence[VolumeMount] = ()
    volumes: Sequence[Object] = ()


class Earlier(NamedTuple):
    """What an earlier call set in our containers, by its status: their images, and their resources by kind and name."""

    images: frozenset[str] = frozenset()
    resources: Mapping[str, Mapping[str, str]] = {}


class Plan(NamedTuple):
    """What is asked for, and what was found in the Pod for it.

    What the injected containers don't depend on stands in front, behind the settings: `targets` names the containers
    that use the databases, `earlier` is what another call has set in our containers. `replicas` is each database's path
    in the bucket, `sources` the path that it starts from where that is another one, `grace` the application's own grace
    period in seconds, `token` whether the API server's admission would mount a token in the injected containers.
    """

    settings: Settings
    targets: Sequence[str]
    earlier: Earlier
    storage: Storage
    user: User
    replicas: Mapping[str, str]
    sources: Mapping[str, str]
    credentials: Credentials
    grace: int
    token: bool

    @property
    def native(self) -> bool:
        """Whether Litestream is a native sidecar, which stops after the application."""
        return self.settings.sidecar == "native"
