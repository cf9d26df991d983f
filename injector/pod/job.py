"""A Job beside a workload: it restores the replicas of an injected Pod, and touches neither them nor the Pod's volumes.

It is made of the Pod's own parts: image, environment, mounts of credentials, user and resources are those of the
sidecar, and the config is the one that init writes. So it follows whatever the core puts there, and whatever becomes of
it in the cluster. Nothing in it is named or annotated as what the webhook looks at: it is not called for the Job's Pod,
which holds no Lease.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from injector.annotations.findings import Findings
from injector.annotations.settings import Settings, ours
from injector.annotations.settings import read as read_settings
from injector.annotations.table import group
from injector.options import Options
from injector.pod import litestream, scripts, status
from injector.pod.claim import LEASES, LISTS, MARK
from injector.pod.containers import INIT, REPLICATE, SCRIPT
from injector.pod.sources import FLEETING_SOURCES
from injector.pod.volumes import CONFIG_VOLUME
from injector.values import Object

CONTAINER = "restore"
VOLUME, DIRECTORY = "restored", "/restored"
LABELS = {"app.kubernetes.io/managed-by": "litestream-hook"}
PATIENCE_SECONDS = 60  # that a bucket has to answer
END_SECONDS = 5  # grace period: nothing has to be saved
KEPT_SECONDS = 600  # that a Job which has ended stays, if nobody is left to delete it
SMALL = "64Mi"  # for lists of files
TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 (a path)
# What of a Pod's spec decides where, as whom and with which names of hosts its containers run.
SURROUNDINGS = (
    "dnsConfig", "dnsPolicy", "hostAliases", "hostNetwork", "imagePullSecrets", "nodeSelector", "os",
    "runtimeClassName", "schedulerName", "securityContext", "serviceAccountName", "tolerations",
)  # fmt: skip
TAKEN = ("env", "image", "resources", "securityContext", "volumeMounts")  # of the sidecar, which has them all
IDENTITY_LABELS = ("azure.workload.identity/use",)  # by which a webhook gives a Pod the identity of its ServiceAccount

Mode = Literal["verify", "hold", "fill"]


class NotInjected(Exception):
    """The Pod has no replicas, as it is not injected, or by another installation."""


class Source(NamedTuple):
    """An injected Pod, living or as it would be made: its replicas' paths in the bucket, by database."""

    pod: Object
    databases: Mapping[str, str]
    bucket: str
    settings: Settings


class Asked(NamedTuple):
    """What a Job is to do with which databases.

    `timestamp` is a moment of the past (RFC 3339), `claim` the PersistentVolumeClaim that is filled, `overwrite`
    whether a database there is moved aside, `seconds` how long all of it may take, `image` another one than the Pod's.
    """

    mode: Mode
    databases: Sequence[str]
    check: Literal["quick", "full"] = "quick"
    timestamp: str = ""
    claim: str = ""
    overwrite: bool = False
    seconds: int = 3600
    image: str = ""


def source(pod: Object, options: Options) -> Source:
    """What an injected Pod says of its replicas. Raises NotInjected.

    Args:
        pod: as the webhook (or the command line) has made it.
        options: the operator's, of whom only `variant` must be right: the Pod says the rest itself.
    """
    findings = Findings(group(options.variant))
    own = ours(pod.get("metadata"), findings.group)
    names = [item["name"] for key in LISTS for item in pod["spec"].get(key) or []]
    found = status.read(own, names, findings)
    if found is None:
        raise NotInjected
    if not {INIT, REPLICATE} <= set(names) or "LITESTREAM_CONFIG" not in _environment(pod, INIT):
        raise NotInjected  # a status that somebody made up
    if not all(_mounts(pod, database) for database in found.databases) or not {*TAKEN} <= {*_container(pod, REPLICATE)}:
        raise NotInjected
    texts = {"image": found.image, **found.defaults, **{key: text for key, text in own.items() if key != "status"}}
    settings = read_settings(texts, options, Findings(findings.group))
    asked = _environment(pod, INIT).get("LITESTREAM_BUCKET", {}).get("value")
    return Source(pod, found.databases, asked or litestream.bucket(settings), settings)


def lacks(settings: Settings, image: str) -> bool:
    """Whether an image can't do what a Job asks of it: it has no shell, or a Litestream whose restore tells nothing.

    Args:
        settings: of the Pod.
        image: that is used instead of the Pod's; empty: that one.
    """
    if image:
        return False
    return not litestream.can_list(settings) or settings.litestream_version < litestream.HAS_JSON


def job(found: Source, asked: Asked, name: str, namespace: str) -> Object:
    """The Job.

    Args:
        found: whose replicas are restored.
        asked: what is to be done.
        name: of the Job, 63 characters at most.
        namespace: of the Pod.
    """
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": namespace, "labels": dict(LABELS)},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": asked.seconds,
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "template": _template(found, asked),
        },
    }


def cron_job(found: Source, asked: Asked, name: str, namespace: str, schedule: str) -> Object:
    """The CronJob that does it again and again; it keeps the Jobs that failed, and tries twice more in each.

    Args:
        found: whose replicas are restored.
        asked: what is to be done.
        name: of the CronJob, 52 characters at most.
        namespace: of the Pod.
        schedule: as cron has it.
    """
    spec = job(found, asked, name, namespace)["spec"]
    del spec["ttlSecondsAfterFinished"]
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": name, "namespace": namespace, "labels": dict(LABELS)},
        "spec": {
            "schedule": schedule,
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": 3600,
            "successfulJobsHistoryLimit": 1,
            "failedJobsHistoryLimit": 3,
            "jobTemplate": {"metadata": {"labels": dict(LABELS)}, "spec": {**spec, "backoffLimit": 2}},
        },
    }


def volume_of(found: Source, database: str) -> Object:
    """The sidecar's mount of the volume that a database lies on."""
    mount: Object = max(_mounts(found.pod, database), key=lambda each: len(each["mountPath"]))
    return mount


def claim_of(found: Source, database: str) -> str | None:
    """The PersistentVolumeClaim that a database lies on, if it is on one."""
    name = volume_of(found, database)["name"]
    volumes = [volume for volume in found.pod["spec"].get("volumes") or [] if volume["name"] == name]
    claim: str | None = ((volumes[0].get("persistentVolumeClaim") or {}) if volumes else {}).get("claimName")
    return claim


def lasts(found: Source, database: str) -> bool:
    """Whether a database lies on a volume that outlives the Pod."""
    name = volume_of(found, database)["name"]
    volumes = [volume for volume in found.pod["spec"].get("volumes") or [] if volume["name"] == name]
    kinds = {kind for volume in volumes for kind, given in volume.items() if given is not None and kind != "name"}
    return bool(kinds) and not kinds & {*FLEETING_SOURCES}


def _template(found: Source, asked: Asked) -> Object:
    spec = found.pod["spec"]
    labels = {**LABELS, **{key: text for key, text in _labels(found.pod).items() if key in IDENTITY_LABELS}}
    places = [volume_of(found, database) for database in found.databases]
    storage = {mount["name"] for mount in places}
    volumes = {volume["name"]: volume for volume in spec.get("volumes") or []}
    sizes = [(volumes.get(name, {}).get("emptyDir") or {}).get("sizeLimit") for name in storage]
    limit = SMALL if asked.mode == "fill" else sizes[0] if len(set(sizes)) == 1 else None
    work: Object = {"name": VOLUME, "emptyDir": {"sizeLimit": limit} if limit else {}}
    sidecar = _container(found.pod, REPLICATE)
    kept = [
        mount
        for mount in sidecar["volumeMounts"]
        if mount["name"] not in {*storage, CONFIG_VOLUME} and mount["mountPath"] != TOKEN
    ]
    mounts = [{"name": VOLUME, "mountPath": DIRECTORY}, *kept]
    added = [work, *(volumes[name] for name in dict.fromkeys(mount["name"] for mount in kept) if name in volumes)]
    if asked.mode == "fill":
        mounts.append(volume_of(found, asked.databases[0]))
        added.append({"name": mounts[-1]["name"], "persistentVolumeClaim": {"claimName": asked.claim}})
    affinity = _affinity(spec)
    return {
        "metadata": {"labels": labels},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": END_SECONDS,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            **{key: spec[key] for key in SURROUNDINGS if spec.get(key)},
            **({"affinity": affinity} if affinity else {}),
            "containers": [_restoring(found, asked, sidecar, mounts)],
            "volumes": added,
        },
    }


def _restoring(found: Source, asked: Asked, sidecar: Object, mounts: Sequence[Object]) -> Object:
    config = _environment(found.pod, INIT)["LITESTREAM_CONFIG"]
    texts = {
        "LITESTREAM_DATABASES": "\n".join(asked.databases),
        "LITESTREAM_CHECK": asked.check,
        "LITESTREAM_PATIENCE": str(PATIENCE_SECONDS),
        "LITESTREAM_HOLD": str(asked.seconds),
        "LITESTREAM_TIMESTAMP": asked.timestamp,
        "LITESTREAM_OVERWRITE": "true" if asked.overwrite else "",
    }
    others = [entry for entry in sidecar["env"] if entry["name"] not in {*texts, LEASES, MARK}]
    policy = {"imagePullPolicy": sidecar["imagePullPolicy"]} if "imagePullPolicy" in sidecar and not asked.image else {}
    return {
        "name": CONTAINER,
        "image": asked.image or sidecar["image"],
        **policy,
        "command": [*SCRIPT, scripts.RESTORE, "restore.sh", asked.mode],
        "env": [config, *({"name": name, "value": text} for name, text in texts.items() if text), *others],
        "resources": sidecar["resources"],
        "securityContext": sidecar["securityContext"],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": list(mounts),
    }


def _affinity(spec: Mapping[str, Any]) -> Object:
    """What of an affinity chooses nodes by what they are. A DaemonSet's controller chooses one by its name."""
    node = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = (node.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get("nodeSelectorTerms") or []
    terms = [kept for term in required if (kept := {key: term[key] for key in term if key != "matchFields"})]
    chosen = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}} if terms else {}
    return {"nodeAffinity": chosen} if chosen else {}


def _labels(pod: Mapping[str, Any]) -> Mapping[str, str]:
    return (pod.get("metadata") or {}).get("labels") or {}


def _mounts(pod: Mapping[str, Any], database: str) -> list[Object]:
    """The sidecar's mounts that a database lies in."""
    mounts = _container(pod, REPLICATE).get("volumeMounts") or []
    return [mount for mount in mounts if database.startswith(mount["mountPath"].rstrip("/") + "/")]


def _container(pod: Mapping[str, Any], name: str) -> Object:
    """One of ours in an injected Pod."""
    found: Object = next(item for key in LISTS for item in pod["spec"].get(key) or [] if item["name"] == name)
    return found


def _environment(pod: Mapping[str, Any], name: str) -> dict[str, Object]:
    return {entry["name"]: entry for entry in _container(pod, name).get("env") or []}
