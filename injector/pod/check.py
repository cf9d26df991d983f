"""What of a Pod stands in the way of what is asked for, or makes it risky, once it is known what is to be done."""

from __future__ import annotations

from collections.abc import Sequence

from injector.annotations.findings import Findings
from injector.annotations.settings import Settings
from injector.pod import containers, litestream, resources
from injector.pod.plan import LONGEST_GRACE_SECONDS, Plan
from injector.pod.replica import Identity
from injector.pod.shapes import PodSpec
from injector.pod.target import others, replicates, signs_of_litestream, starts_application
from injector.values import LITESTREAM_IMAGE

OS_LABELS = ("kubernetes.io/os", "beta.kubernetes.io/os")  # of nodes


def pod(spec: PodSpec, plan: Plan, identity: Identity, findings: Findings) -> None:
    """What of the Pod itself stands in the way."""
    settings, storage, main = plan.settings, plan.storage, spec["containers"]
    _check_other_litestream(spec, settings, findings)
    if _is_windows(spec):
        findings.deny(
            "inject",
            "true",
            'does not work in a Windows Pod, as Litestream\'s image is for Linux: write "false"',
        )
    if settings.sidecar == "container":
        if identity.finishes:
            findings.deny("sidecar", "container", 'would keep the Job from ever finishing: write "native"')
        else:
            findings.warn(
                f'{findings.key("sidecar")} "container": Litestream stops {max(plan.grace, 1)} s (the application\'s '
                "grace period) after the Pod is told to end, and rows written later are lost; "
                '"native" stops after the application'
            )
    if not 0 <= plan.grace <= LONGEST_GRACE_SECONDS:
        findings.deny_field(
            "spec.terminationGracePeriodSeconds",
            str(plan.grace),
            f"is no time that a Pod can have to end: write seconds from 0 to {LONGEST_GRACE_SECONDS}, such as 30",
        )
    _check_image(plan, findings)
    if storage.lasting and settings.restore != "off" and not litestream.can_list(settings):
        findings.warn(
            f"this image can't determine whether {', '.join(sorted(storage.lasting))[:200]} on its volume is older "
            f"than its replica, and an older one would overwrite it: use {LITESTREAM_IMAGE}"
        )
    if settings.restore_from is not None and storage.lasting and settings.local_database is None:
        findings.warn(
            f"{findings.key('restore-from')}: where {', '.join(sorted(storage.lasting))[:200]} is on its volume "
            f'already, the Pod waits: write {findings.key("local-database")} "replace" to move it aside and restore, '
            'once, or "keep" to go on with it'
        )
    resources.check(spec, plan, findings)
    proxies = [item["name"] for item in main if item["name"] in settings.options.skip_containers]
    names = set(plan.targets)
    for name in proxies:
        if name not in names:
            findings.warn(
                f"proxy {name} is an ordinary container and ends with the application, before Litestream's final sync: "
                "the last rows can be lost; run it as a native sidecar"
            )
    if settings.metrics_port is not None:
        for item in [*main, *(spec.get("initContainers") or [])]:
            ports = [entry.get("containerPort") for entry in item.get("ports") or []]
            if settings.metrics_port in ports and item["name"] != containers.REPLICATE:
                findings.deny(
                    "metrics-port",
                    str(settings.metrics_port),
                    f"is taken by container {item['name']}: write another, such as "
                    f"{_free_port(settings.metrics_port, ports)}",
                )


def _is_windows(spec: PodSpec) -> bool:
    """Whether a Pod runs on Windows: by its own word, the nodes that it selects, or options that only Windows has."""
    if (spec.get("os") or {}).get("name") == "windows":
        return True
    selector = spec.get("nodeSelector")
    if selector and any(selector.get(label) == "windows" for label in OS_LABELS):
        return True
    contexts = [spec.get("securityContext"), *(item.get("securityContext") for item in spec["containers"])]
    if any(context and context.get("windowsOptions") for context in contexts):
        return True
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    terms = (affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get("nodeSelectorTerms") or []
    return bool(terms) and all(
        any(
            match.get("key") in OS_LABELS and match.get("operator") == "In" and match.get("values") == ["windows"]
            for match in term.get("matchExpressions") or []
        )
        for term in terms
    )


def _check_other_litestream(spec: PodSpec, settings: Settings, findings: Findings) -> None:
    """Two Litestreams on one file destroy their replicas: at least one of two could not be restored in 4 of 4 runs."""
    if settings.single_writer == "off":
        return
    init, main = others(spec.get("initContainers") or []), others(spec["containers"])
    signs = signs_of_litestream([*init, *main])
    for number, item in enumerate([*init, *main]):
        stays = number >= len(init) or item.get("restartPolicy") == "Always"
        if not replicates(item, stays=stays):
            if stays and item["name"] in signs:
                findings.warn(
                    f"container {item['name']} has {signs[item['name']]}: if it runs a Litestream of its own, two on "
                    "one database destroy its replicas: take that out"
                )
            continue
        remedy = "start its application without" if starts_application(item) else "take that container out"
        right = (
            f"container {item['name']} runs a Litestream of its own, and two on one database destroy its replicas: "
            f"{remedy}; to go on with its replica, write its path in the bucket in {findings.key('replica-path')}"
        )
        if settings.single_writer == "warn":
            findings.warn(right)
        else:
            findings.deny("single-writer", "enforce", right)


def _check_image(plan: Plan, findings: Findings) -> None:
    """What the image can't do, or does not say that it can."""
    settings = plan.settings
    if "first-sync" in settings.given and settings.first_sync != "background" and not containers.first_syncs(plan):
        findings.warn(
            f"{findings.key('first-sync')} has no effect here: it needs a volume that ends with the Pod, a native "
            "sidecar, and Litestream 0.5.8 or newer in an image with a shell"
        )
    if not litestream.can_list(settings):
        findings.warn(
            f"{findings.key('image')} has no shell, or a Litestream before 0.5.8: nothing starts Litestream again at "
            "once when it dies, and nobody says when a database can't be replicated; rows can be lost in both cases: "
            f"use {LITESTREAM_IMAGE}"
        )
    elif not litestream.tells_shell(settings):
        findings.warn(
            f"{findings.key('image')}: the tag does not say whether the image has a shell and sqlite3, which all "
            f"injected containers need to lose no row: use {LITESTREAM_IMAGE} if they can't start"
        )


def _free_port(taken: int, ports: Sequence[object]) -> int:
    """Another port; any will do as a suggestion where a container lists thousands."""
    return next((port for port in range(taken + 1, taken + 100) if port not in ports and port < 65536), 9090)
