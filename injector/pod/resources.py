"""Resources of a Pod as a whole: they hold for all its containers, and the injected ones have to fit in."""

from __future__ import annotations

import math
from decimal import Decimal

from injector.annotations.findings import Findings
from injector.pod import volumes
from injector.pod.plan import Plan
from injector.pod.shapes import Container, PodSpec
from injector.values import quantity


def check(spec: PodSpec, plan: Plan, findings: Findings) -> None:
    """What of the Pod's resources as a whole (core/v1 PodSpec.resources) the injected containers do not fit into.

    The API server refuses a request of the whole that is less than what its containers ask for together. Where there
    is a limit only, it makes a request of it, or of what the containers asked for before ours were there.
    """
    whole, settings = spec.get("resources") or {}, plan.settings
    if not whole:
        return
    requests = {"cpu": settings.cpu_request, "memory": settings.memory_request}
    limits = {"cpu": settings.cpu_limit, "memory": settings.memory_limit}
    for resource in ("cpu", "memory"):
        request, limit = (_amount(whole.get(kind), resource) for kind in ("requests", "limits"))
        before = _together(spec, resource, Decimal(0))
        needed = _together(spec, resource, requests[resource].amount, behind=plan.native and settings.init_first)
        most = request if request or not limit else before or limit
        if most and needed > most:
            written = _written(whole.get("requests"), resource)
            why = "is less than the Pod's containers ask for together with Litestream"
            why = (
                "is needed, as what Kubernetes makes of the limit has no room for Litestream"
                if written is None
                else why
            )
            findings.deny_field(
                f"spec.resources.requests.{resource}",
                written,
                f"{why} ({requests[resource].text}): write {_rounded(needed, resource)} or more",
            )
        mine = limits[resource]
        own = mine.amount if mine else Decimal(0)
        if limit and (least := max(own, needed)) > limit:
            why = f"Litestream's limit ({findings.key(f'{resource}-limit')})"
            why = why if own >= needed else "what the Pod's containers ask for together with Litestream"
            findings.deny_field(
                f"spec.resources.limits.{resource}",
                _written(whole.get("limits"), resource),
                f"is less than {why}: write {_rounded(least, resource)} or more",
            )


def _together(spec: PodSpec, resource: str, own: Decimal, *, behind: bool = False) -> Decimal:
    """What a Pod's containers request together with Litestream, as Kubernetes counts it.

    All that run at once, or an init container with the native sidecars before it, whichever is more. `behind`: our
    sidecar stands before the Pod's own init containers.
    """
    before = own if behind else Decimal(0)
    largest = total = Decimal(0)
    for item in spec.get("initContainers") or []:
        if not item["name"].startswith(volumes.PREFIX):
            asked = _request(item, resource)
            largest = max(largest, before + asked)
            before += asked if item.get("restartPolicy") == "Always" else 0
            total += asked if item.get("restartPolicy") == "Always" else 0
    total += sum(_request(item, resource) for item in spec["containers"] if not item["name"].startswith(volumes.PREFIX))
    return max(largest, total + own)


def _request(item: Container, resource: str) -> Decimal:
    """A container's request; where it has only a limit, Kubernetes makes one of that."""
    asked = item.get("resources") or {}
    return _amount(asked.get("requests"), resource) or _amount(asked.get("limits"), resource)


def _written(amounts: object, resource: str) -> str | None:
    text = amounts.get(resource) if isinstance(amounts, dict) else None
    return None if text is None else str(text)


def _amount(amounts: object, resource: str) -> Decimal:
    """An amount in its base unit; 0 where there is none, or none that can be read."""
    try:
        return quantity(_written(amounts, resource) or "").amount
    except ValueError:
        return Decimal(0)


def _rounded(amount: Decimal, resource: str) -> str:
    """An amount that is enough, as people write it."""
    unit, suffix = (Decimal("0.001"), "m") if resource == "cpu" else (Decimal(2**20), "Mi")
    return f"{math.ceil(amount / unit)}{suffix}"
