"""The scheduling gate that holds a Pod back where no webhook is there to inject it: it would start on empty databases.

Kubernetes' rule: a gate can be taken out of a Pod at any time, and put into one only when it is created; a Pod with
gates is not scheduled, and one with gates and a `nodeName` is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from injector.annotations.findings import Findings
from injector.annotations.table import STATUS
from injector.errors import Violation
from injector.pod.shapes import PodSpec

GATE = "injected"
FIELD = "spec.schedulingGates"


def name(group: str) -> str:
    """The gate's name, by our annotation group."""
    return f"{group}/{GATE}"


def names(spec: Mapping[str, Any]) -> list[str]:
    """The names of all gates in a Pod's spec, of any shape."""
    gates = spec.get("schedulingGates")
    found = [gate.get("name") for gate in gates if isinstance(gate, dict)] if isinstance(gates, list) else []
    return [each for each in found if isinstance(each, str)]


def without(spec: dict[str, Any], group: str) -> dict[str, Any]:
    """The spec without the gate; the very same one if it has none. Gates of others stay."""
    if name(group) not in names(spec):
        return spec
    others = [gate for gate in spec["schedulingGates"] if gate["name"] != name(group)]
    rest = {key: value for key, value in spec.items() if key != "schedulingGates"}
    return {**spec, "schedulingGates": others} if others else rest


def check(spec: PodSpec, findings: Findings) -> None:
    """Tells gates of our group that nobody takes out, and where the gate works another way."""
    ours = name(findings.group)
    for each in names(spec):
        if each.startswith(f"{findings.group}/") and each != ours:
            findings.deny_field(FIELD, each, f"is a gate that nobody takes out: write {ours}")
    if ours in names(spec) and spec.get("nodeName"):
        findings.warn(
            f"{FIELD}: with spec.nodeName the Pod does not wait where the webhook is not installed: the API server "
            "refuses it"
        )


def useless(pod: Mapping[str, Any], group: str) -> list[Violation]:
    """What keeps a Pod (or template) that does not ask for injection from ever starting."""
    spec = pod.get("spec")
    if not isinstance(spec, dict) or name(group) not in names(spec):
        return []
    why = f'keeps the Pod from ever starting, as only {group}/inject "true" has it taken out: write that, or remove it'
    return [Violation(FIELD, name(group), why)]


def missing(pod: Mapping[str, Any], own: Mapping[str, Any], group: str) -> Violation | None:
    """The violation of a Pod (or template) that asks for injection, is not injected yet, and has no gate.

    Args:
        pod: or template, that asks.
        own: its annotations of our group.
        group: ours.
    """
    if STATUS in own or name(group) in names(pod.get("spec") or {}):
        return None
    why = f"is needed: without the webhook the Pod would start without its rows: add - name: {name(group)}"
    return Violation(FIELD, None, why)
