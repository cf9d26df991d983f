"""The Pod that a workload's controller would make, as far as the webhook looks at it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from injector.admission import workload
from injector.admission.verdict import key_of
from injector.manifests import as_text

SAFE = "bcdfghjklmnpqrstvwxz2456789"  # what Kubernetes makes random names of
UID = "00000000-0000-0000-0000-000000000000"


def pod_of(found: Mapping[str, Any], number: int = 0) -> dict[str, Any]:
    """The first Pod of a workload: the same one each time, so that a webhook's answer to it fits.

    Args:
        found: an object of one of workload.TEMPLATES.
        number: of a StatefulSet's Pods, which one.
    """
    key = key_of(found)
    template = workload.template(key, found)
    outer, inner = _dict(found.get("metadata")), _dict(template.get("metadata"))
    name = str(outer.get("name") or f"{outer.get('generateName') or ''}{_random(found)}")
    metadata: dict[str, Any] = {**inner, **({"namespace": outer["namespace"]} if outer.get("namespace") else {})}
    spec = dict(_dict(template.get("spec")))
    kind = key[1]
    if kind == "Deployment":
        kind, name = "ReplicaSet", f"{name}-{_random(template)}"
        metadata["labels"] = {**_dict(inner.get("labels")), "pod-template-hash": _random(template)}
    elif kind == "CronJob":
        kind, name = "Job", f"{name}-28000000"  # the minutes from 1970 to the run
    if kind == "StatefulSet":
        metadata["name"] = _stateful(found, name, spec, number)
    else:
        metadata["generateName"] = f"{name}-"
    if kind == "DaemonSet":
        spec["affinity"] = {**_dict(spec.get("affinity")), "nodeAffinity": _on(workload.SOME_NODE)}
    version = "batch/v1" if kind == "Job" else "apps/v1"
    owner = {"apiVersion": version, "kind": kind, "name": name, "uid": UID, "controller": True}
    metadata["ownerReferences"] = [{**owner, "blockOwnerDeletion": True}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _stateful(found: Mapping[str, Any], name: str, spec: dict[str, Any], number: int) -> str:
    """The name of one of a StatefulSet's Pods, whose claims are put among the volumes."""
    outer = _dict(found.get("spec"))
    pod = f"{name}-{(_dict(outer.get('ordinals')).get('start') or 0) + number}"
    names = [_dict(_dict(claim).get("metadata")).get("name") for claim in outer.get("volumeClaimTemplates") or []]
    claims = [{"name": each, "persistentVolumeClaim": {"claimName": f"{each}-{pod}"}} for each in names]
    if claims:
        others = [volume for volume in spec.get("volumes") or [] if _dict(volume).get("name") not in names]
        spec["volumes"] = [*others, *claims]
    return pod


def _on(node: str) -> dict[str, Any]:
    fields = [{"key": "metadata.name", "operator": "In", "values": [node]}]
    return {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": fields}]}}


def _dict(value: Any) -> dict[str, Any]:  # noqa: ANN401 (a manifest's)
    return value if isinstance(value, dict) else {}


def _random(value: Any) -> str:  # noqa: ANN401 (any JSON value)
    """What looks like a name that Kubernetes made, and is the same for the same value."""
    return "".join(SAFE[byte % len(SAFE)] for byte in hashlib.sha256(as_text(value).encode()).digest()[:10])
