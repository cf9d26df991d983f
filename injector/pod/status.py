"""The webhook's marks on a Pod: what it injected and for whom, so that a second call knows of the first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from injector import __version__
from injector.annotations.findings import Findings
from injector.annotations.table import STATUS
from injector.pod import containers
from injector.pod.plan import LONGEST_GRACE_SECONDS, Earlier, Plan
from injector.pod.volumes import PREFIX


class Status(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True, omit_defaults=True):
    """The annotation `status`, as JSON.

    `databases` maps each database to the path of its replica in the bucket, `containers` names those that
    use them, `grace_period` is the application's own, in seconds, before the webhook raised it. `image`, `init_image`
    (where init has another one) and `resources` are what was set in our containers. `defaults` are the values, beside
    the Pod's own, that were used: another call keeps them, whatever has changed since.
    """

    version: str
    image: str
    bucket: str
    endpoint: str | None
    databases: dict[str, str]
    containers: list[str]
    grace_period: int
    init_image: str | None = None
    resources: dict[str, dict[str, str]] = {}
    defaults: dict[str, str] = {}


def write(plan: Plan) -> str:
    """The annotation's text."""
    settings = plan.settings
    status = Status(
        __version__,
        settings.image.reference,
        str(settings.bucket),
        settings.endpoint,
        dict(plan.replicas),
        list(plan.targets),
        plan.grace,
        image if (image := containers.init_image(plan.settings)) != plan.settings.image.reference else None,
        containers.resources(plan.settings),
        settings.defaults.under(dict.fromkeys(settings.given, "")),
    )
    return msgspec.json.encode(status).decode()


def read(own: Mapping[str, Any], present: Sequence[str], findings: Findings) -> Status | None:
    """The status of an earlier call, or None. One that does not parse, or names other containers, is a violation.

    Args:
        own: the Pod's annotations of our group.
        present: names of the Pod's containers.
        findings: takes the violation.
    """
    text = own.get(STATUS)
    if text is None:
        return None
    try:
        status = msgspec.json.decode(text, type=Status)
        if not 0 <= status.grace_period <= LONGEST_GRACE_SECONDS:
            raise ValueError("no grace period")
        names = status.containers
        if not names or len(set(names)) < len(names) or any(name.startswith(PREFIX) for name in names):
            raise ValueError("no containers of an application")
    except (ValueError, TypeError, RecursionError):
        _deny(text, "is not what the webhook writes there", findings)
        return None
    if missing := sorted(set(names).difference(present)):
        _deny(text, f"names {_absent(missing, 'container')}", findings)
        return None
    return status


def earlier(status: Status | None) -> Earlier:
    """What an earlier call set in our containers; nothing is known of a first one."""
    if status is None:
        return Earlier()
    return Earlier(frozenset(filter(None, (status.image, status.init_image))), status.resources)


def fits(status: Status, own: Mapping[str, Any], asked: Sequence[str] | None, findings: Findings) -> bool:
    """Whether a status is of the containers that are asked for now; if not, that is a violation.

    Args:
        status: of an earlier call.
        own: the Pod's annotations of our group.
        asked: containers that the annotation `containers` names; None without it.
        findings: takes the violation.
    """
    if asked is None or set(asked) == set(status.containers):
        return True
    _deny(own[STATUS], "was written for other containers", findings)
    return False


def check(status: Status, replicas: Mapping[str, str], missing: Sequence[str], findings: Findings) -> None:
    """A status is believed only if the Pod bears it out.

    Args:
        status: of an earlier call.
        replicas: of the Pod, by its other annotations.
        missing: containers and volumes that an injected Pod has, and this one has not.
        findings: takes a violation where they differ.
    """
    text = msgspec.json.encode(status)
    if missing:
        _deny(text.decode(), f"needs {_absent(missing)}", findings)
    elif status.databases != replicas:
        _deny(text.decode(), "was written for other databases or another workload", findings)


def _deny(text: object, why: str, findings: Findings) -> None:
    """The violation of a status that can't be believed."""
    findings.deny(
        STATUS,
        str(text),
        f"{why}; only the webhook writes it: remove it, and all containers and volumes named litestream-hook-…",
    )


def _absent(names: Sequence[str], what: str = "") -> str:
    """These names (of containers, say), and that the Pod lacks them."""
    several = len(names) > 1
    verb = "aren't" if several else "isn't"
    noun = f"{what}{'s' * several} " if what else ""
    return f"{noun}{', '.join(names)[:200]}, which {verb} in this Pod"
