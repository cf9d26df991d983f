"""The order of containers: restored before anyone writes, stopped after everyone but the proxy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from injector.annotations.findings import Findings
from injector.pod.overlay import laid
from injector.pod.plan import Plan
from injector.pod.shapes import Container, InjectedContainer


def placed(
    there: Sequence[Container], ours: Sequence[InjectedContainer], plan: Plan, findings: Findings
) -> list[Container]:
    """The init containers with ours among them: restored before anyone writes, stopped after everyone but the proxy."""
    order = [item["name"] for item in ours]
    own = set(order)
    others = [item for item in there if item["name"] not in own]
    front = _front(others, plan, findings) if plan.settings.init_first else len(others)
    ours_there = [item["name"] for item in there if item["name"] in own]
    if not ours_there:
        return [*others[:front], *cast("Sequence[Container]", ours), *others[front:]]
    places = {item["name"]: index for index, item in enumerate(there)}
    first, last = places[ours_there[0]], places[ours_there[-1]]
    proxies_lead = all(
        places[item["name"]] < first for item in others[:front] if item["name"] in plan.settings.options.skip_containers
    )
    targets_follow = all(places[name] > last for name in plan.targets if name in places)
    if ours_there == order and proxies_lead and targets_follow:
        return laid(there, ours, plan.earlier)
    present = {item["name"]: item for item in there}
    block = [laid([present[item["name"]]] if item["name"] in present else [], [item], plan.earlier)[0] for item in ours]
    return others[:front] + block + others[front:]


def _front(others: Sequence[Container], plan: Plan, findings: Findings) -> int:
    """How many of the Pod's own init containers stay in front of ours.

    Native sidecars that lead the list, and all up to the last native sidecar that is a network proxy: sidecars
    stop in reverse order, and the final sync needs the proxy. None that uses a database may run before its restore.
    """
    if not others:
        return 0
    names, proxies = set(plan.targets), plan.settings.options.skip_containers
    users = [
        item["name"] in names or any(mount["name"] in plan.storage.names for mount in item.get("volumeMounts") or [])
        for item in others
    ]
    lead = 0
    while lead < len(others) and others[lead].get("restartPolicy") == "Always" and not users[lead]:
        lead += 1
    proxy = max(
        (
            index + 1
            for index, item in enumerate(others)
            if item.get("restartPolicy") == "Always" and item["name"] in proxies
        ),
        default=0,
    )
    early = [
        item["name"] for item, uses in zip(others[:proxy], users, strict=False) if uses and item["name"] not in proxies
    ]
    if not early:
        return max(lead, proxy)
    findings.warn(
        f"init container {early[0]} uses a database and stands before the proxy {others[proxy - 1]['name']}: "
        "Litestream goes before both, so that the restore comes first, and its final sync has no proxy; "
        "put the proxy first"
    )
    return min(lead, next(index for index, item in enumerate(others) if item["name"] == early[0]))
