"""Which fields of a Pod the runner acts on, and which don't matter here. Any other field is an error.

A rule is DONE (the runner implements the field), a sentence (why it doesn't matter here), a tuple (only these
values are implemented), a dict (an object), or a list of one rule (a list whose items follow that rule).
"""

from __future__ import annotations

from typing import Any, TypeAlias

Rule: TypeAlias = "str | tuple[object, ...] | dict[str, Rule] | list[Rule] | None"
DONE = None

SCHEDULING = "there is one node"
NETWORK = "containers share the host's network"
SECCOMP: Rule = {"type": ("RuntimeDefault", "Unconfined")}  # either way no filter is loaded: nothing here depends on it
RESOURCES: Rule = {
    "limits": {"cpu": DONE, "memory": DONE},
    "requests": {"cpu": DONE, "memory": DONE, "ephemeral-storage": SCHEDULING},
}
HANDLER: dict[str, Rule] = {
    "exec": {"command": DONE},
    "httpGet": {"path": DONE, "port": DONE, "host": DONE, "scheme": DONE, "httpHeaders": DONE},
    "tcpSocket": {"port": DONE, "host": DONE},
}
PROBE: Rule = {
    **HANDLER,
    "initialDelaySeconds": DONE,
    "periodSeconds": DONE,
    "timeoutSeconds": DONE,
    "failureThreshold": DONE,
    "successThreshold": DONE,
    "terminationGracePeriodSeconds": DONE,
}
HOOK: Rule = {"exec": {"command": DONE}, "httpGet": HANDLER["httpGet"], "sleep": {"seconds": DONE}}
KEY_REFERENCE: Rule = {"name": DONE, "key": DONE, "optional": DONE}
FIELD_REFERENCE: Rule = {"apiVersion": ("v1",), "fieldPath": DONE}
ITEMS: Rule = [{"key": DONE, "path": DONE, "mode": DONE}]

CONTAINER: dict[str, Rule] = {
    "name": DONE,
    "image": DONE,
    "imagePullPolicy": "images are built here",
    "command": DONE,
    "args": DONE,
    "workingDir": DONE,
    "env": [
        {
            "name": DONE,
            "value": DONE,
            "valueFrom": {
                "secretKeyRef": KEY_REFERENCE,
                "configMapKeyRef": KEY_REFERENCE,
                "fieldRef": FIELD_REFERENCE,
                "resourceFieldRef": {"containerName": DONE, "resource": DONE, "divisor": DONE},
            },
        }
    ],
    "envFrom": [
        {
            "prefix": DONE,
            "secretRef": {"name": DONE, "optional": DONE},
            "configMapRef": {"name": DONE, "optional": DONE},
        }
    ],
    "ports": [{"containerPort": DONE, "name": DONE, "protocol": NETWORK, "hostPort": NETWORK, "hostIP": NETWORK}],
    "resources": RESOURCES,
    "volumeMounts": [
        {
            "name": DONE,
            "mountPath": DONE,
            "subPath": DONE,
            "subPathExpr": DONE,
            "readOnly": DONE,
            "mountPropagation": ("None",),
            "recursiveReadOnly": ("Disabled",),
        }
    ],
    "securityContext": {
        "runAsUser": DONE,
        "runAsGroup": DONE,
        "runAsNonRoot": DONE,
        "readOnlyRootFilesystem": DONE,
        "allowPrivilegeEscalation": DONE,
        "capabilities": {"add": DONE, "drop": DONE},
        "privileged": (False,),
        "procMount": ("Default",),
        "seccompProfile": SECCOMP,
        "appArmorProfile": SECCOMP,
    },
    "lifecycle": {"postStart": HOOK, "preStop": HOOK},
    "startupProbe": PROBE,
    "livenessProbe": PROBE,
    "readinessProbe": PROBE,
    "restartPolicy": ("Always",),
    "terminationMessagePath": DONE,
    "terminationMessagePolicy": ("File", "FallbackToLogsOnError"),
    "stdin": (False,),
    "stdinOnce": (False,),
    "tty": (False,),
    "resizePolicy": "nothing resizes a container here",
}

VOLUME: Rule = {
    "name": DONE,
    "emptyDir": {"medium": ("", "Memory"), "sizeLimit": DONE},
    "hostPath": {"path": DONE, "type": ("", "Directory", "DirectoryOrCreate")},
    "persistentVolumeClaim": {"claimName": DONE, "readOnly": DONE},
    "secret": {"secretName": DONE, "items": ITEMS, "defaultMode": DONE, "optional": DONE},
    "configMap": {"name": DONE, "items": ITEMS, "defaultMode": DONE, "optional": DONE},
    "downwardAPI": {
        "items": [{"path": DONE, "mode": DONE, "fieldRef": FIELD_REFERENCE}],
        "defaultMode": DONE,
    },
    "projected": {
        "defaultMode": DONE,
        "sources": [
            {
                "secret": {"name": DONE, "items": ITEMS, "optional": DONE},
                "configMap": {"name": DONE, "items": ITEMS, "optional": DONE},
                "downwardAPI": {"items": [{"path": DONE, "mode": DONE, "fieldRef": FIELD_REFERENCE}]},
                "serviceAccountToken": {
                    "path": DONE,
                    "audience": "the token is the one given to the node",
                    "expirationSeconds": "the token is the one given to the node",
                },
            }
        ],
    },
}

POD: Rule = {
    "apiVersion": ("v1",),
    "kind": ("Pod",),
    "metadata": {
        "name": DONE,
        "generateName": DONE,
        "namespace": DONE,
        "uid": DONE,
        "labels": DONE,
        "annotations": DONE,
        **dict.fromkeys(
            (
                "creationTimestamp",
                "resourceVersion",
                "generation",
                "managedFields",
                "ownerReferences",
                "finalizers",
            ),
            "there is no API server",
        ),
    },
    "spec": {
        "initContainers": [CONTAINER],
        "containers": [{name: rule for name, rule in CONTAINER.items() if name != "restartPolicy"}],
        "volumes": [VOLUME],
        "restartPolicy": ("Always", "OnFailure", "Never"),
        "terminationGracePeriodSeconds": DONE,
        "securityContext": {
            "runAsUser": DONE,
            "runAsGroup": DONE,
            "runAsNonRoot": DONE,
            "fsGroup": DONE,
            "fsGroupChangePolicy": ("Always", "OnRootMismatch"),
            "supplementalGroups": DONE,
            "supplementalGroupsPolicy": ("Merge", "Strict"),
            "seccompProfile": SECCOMP,
            "appArmorProfile": SECCOMP,
        },
        "hostname": DONE,
        "subdomain": NETWORK,
        "hostNetwork": NETWORK,
        "dnsPolicy": NETWORK,
        "dnsConfig": NETWORK,
        "enableServiceLinks": "there are no Services",
        "serviceAccountName": DONE,
        "serviceAccount": "serviceAccountName says the same",
        "automountServiceAccountToken": "admission adds the volume, not the kubelet",
        "imagePullSecrets": "images are built here",
        "hostPID": (False,),
        "hostIPC": (False,),
        "shareProcessNamespace": (False,),
        "hostUsers": (True,),
        "setHostnameAsFQDN": (False,),
        "os": {"name": ("linux",)},
        **dict.fromkeys(
            (
                "nodeName",
                "nodeSelector",
                "affinity",
                "tolerations",
                "topologySpreadConstraints",
                "schedulerName",
                "priority",
                "priorityClassName",
                "preemptionPolicy",
            ),
            SCHEDULING,
        ),
    },
    "status": "the kubelet writes it and never reads it",
}


class UnsupportedPod(Exception):
    """The Pod has fields that the runner does not implement; each is named by its path."""


def check(pod: dict[str, Any]) -> None:
    """Raise UnsupportedPod, listing every field of `pod` that would otherwise be ignored."""
    problems = _problems(pod, POD, "")
    if problems:
        raise UnsupportedPod("; ".join(problems))


def _problems(value: Any, rule: Rule, path: str) -> list[str]:
    if value is None or rule is DONE or isinstance(rule, str):
        return []
    if isinstance(rule, tuple):
        if value in rule:
            return []
        return [f"{path}: {value!r} is not implemented, only {' or '.join(map(repr, rule))}"]
    if isinstance(rule, list):
        if not isinstance(value, list):
            return [f"{path}: {value!r} is not a list"]
        return [p for i, item in enumerate(value) for p in _problems(item, rule[0], f"{path}[{i}]")]
    if not isinstance(value, dict):
        return [f"{path}: {value!r} is not an object"]
    found: list[str] = []
    for key, item in value.items():
        where = f"{path}.{key}" if path else key
        found += _problems(item, rule[key], where) if key in rule else [f"{where}: not implemented"]
    return found
