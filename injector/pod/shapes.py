"""Shapes of the Kubernetes objects that we read: only the fields that we touch, without behaviour.

An API server never sends anything else, but files and hostile callers do, so objects are checked against
these shapes before they are read. Pods stay plain dicts: fields not named here pass through untouched.
"""

import functools
from types import UnionType
from typing import Annotated, Any, NotRequired, TypedDict, Union, get_args, get_origin, get_type_hints, is_typeddict

import msgspec

from injector.values import Object

# Kubernetes' own limits, and where it has none, what no Pod comes near: what a name's or a list's length multiplies
# in messages and searches would else have no bound.
Label = Annotated[str, msgspec.Meta(max_length=63)]
Subdomain = Annotated[str, msgspec.Meta(max_length=253)]
Path = Annotated[str, msgspec.Meta(max_length=4096)]
MOST_ITEMS = msgspec.Meta(max_length=2000)
Names = Annotated[dict[str, Annotated[str, msgspec.Meta(max_length=256 * 1024)]], MOST_ITEMS]
Integer = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class OwnerReference(TypedDict):
    """metav1.OwnerReference."""

    apiVersion: Subdomain
    kind: Subdomain
    name: Subdomain
    controller: NotRequired[bool | None]


class ObjectMeta(TypedDict, total=False):
    """metav1.ObjectMeta."""

    name: Subdomain | None
    generateName: Subdomain | None
    namespace: Label | None
    annotations: Names | None
    labels: Names | None
    ownerReferences: list[OwnerReference] | None
    deletionTimestamp: str | None


class SecurityContext(TypedDict, total=False):
    """core/v1 SecurityContext and PodSecurityContext."""

    runAsUser: Integer | None
    runAsGroup: Integer | None
    runAsNonRoot: bool | None
    seLinuxOptions: dict[str, Any] | None
    windowsOptions: dict[str, Any] | None


class VolumeMount(TypedDict):
    """core/v1 VolumeMount."""

    name: Label
    mountPath: Path
    subPath: NotRequired[Path | None]
    subPathExpr: NotRequired[Path | None]
    readOnly: NotRequired[bool | None]


class EnvVar(TypedDict):
    """core/v1 EnvVar."""

    name: str
    value: NotRequired[str | None]
    valueFrom: NotRequired[Object | None]


class ContainerPort(TypedDict, total=False):
    """core/v1 ContainerPort."""

    name: str | None
    containerPort: Integer


class Resources(TypedDict, total=False):
    """core/v1 ResourceRequirements."""

    requests: dict[str, Any] | None
    limits: dict[str, Any] | None


class Container(TypedDict):
    """core/v1 Container."""

    name: Label
    image: NotRequired[str | None]
    command: NotRequired[list[str] | None]
    args: NotRequired[list[str] | None]
    workingDir: NotRequired[str | None]
    restartPolicy: NotRequired[str | None]
    env: NotRequired[list[EnvVar] | None]
    resources: NotRequired[Resources | None]
    ports: NotRequired[list[ContainerPort] | None]
    lifecycle: NotRequired[Object | None]
    volumeMounts: NotRequired[list[VolumeMount] | None]
    securityContext: NotRequired[SecurityContext | None]


class InjectedContainer(TypedDict):
    """core/v1 Container, as we write it."""

    name: str
    image: str
    command: NotRequired[list[str]]
    args: NotRequired[list[str]]
    restartPolicy: NotRequired[str]
    env: list[EnvVar]
    ports: NotRequired[list[Object]]
    lifecycle: NotRequired[Object]
    livenessProbe: NotRequired[Object]
    readinessProbe: NotRequired[Object]
    resources: Object
    securityContext: Object
    terminationMessagePolicy: str
    volumeMounts: list[VolumeMount]


class Volume(TypedDict):
    """core/v1 Volume: its source stands beside its name."""

    name: Label


class NodeSelectorRequirement(TypedDict, total=False):
    """core/v1 NodeSelectorRequirement."""

    key: str
    operator: str
    values: list[str] | None


class NodeSelectorTerm(TypedDict, total=False):
    """core/v1 NodeSelectorTerm."""

    matchFields: list[NodeSelectorRequirement] | None
    matchExpressions: list[NodeSelectorRequirement] | None


class NodeSelector(TypedDict, total=False):
    """core/v1 NodeSelector."""

    nodeSelectorTerms: list[NodeSelectorTerm] | None


class NodeAffinity(TypedDict, total=False):
    """core/v1 NodeAffinity."""

    requiredDuringSchedulingIgnoredDuringExecution: NodeSelector | None


class Affinity(TypedDict, total=False):
    """core/v1 Affinity."""

    nodeAffinity: NodeAffinity | None


class PodOS(TypedDict, total=False):
    """core/v1 PodOS."""

    name: str


class SchedulingGate(TypedDict):
    """core/v1 PodSchedulingGate."""

    name: Path


class PodSpec(TypedDict):
    """core/v1 PodSpec."""

    containers: Annotated[list[Container], MOST_ITEMS]
    initContainers: NotRequired[Annotated[list[Container], MOST_ITEMS] | None]
    ephemeralContainers: NotRequired[Annotated[list[Container], MOST_ITEMS] | None]
    volumes: NotRequired[Annotated[list[Volume], MOST_ITEMS] | None]
    securityContext: NotRequired[SecurityContext | None]
    terminationGracePeriodSeconds: NotRequired[Integer | None]
    affinity: NotRequired[Affinity | None]
    os: NotRequired[PodOS | None]
    nodeSelector: NotRequired[dict[str, Any] | None]
    nodeName: NotRequired[Subdomain | None]
    schedulingGates: NotRequired[Annotated[list[SchedulingGate], MOST_ITEMS] | None]
    resources: NotRequired[Resources | None]


class Pod(TypedDict):
    """core/v1 Pod and PodTemplateSpec."""

    metadata: NotRequired[ObjectMeta | None]
    spec: PodSpec


class Strategy(TypedDict, total=False):
    """apps/v1 DeploymentStrategy."""

    type: str | None


class JobSpec(TypedDict):
    """batch/v1 JobSpec."""

    template: Pod
    parallelism: NotRequired[Integer | None]


class JobTemplate(TypedDict):
    """batch/v1 JobTemplateSpec."""

    metadata: NotRequired[ObjectMeta | None]
    spec: JobSpec


class Ordinals(TypedDict, total=False):
    """apps/v1 StatefulSetOrdinals."""

    start: Integer | None


class WorkloadSpec(TypedDict, total=False):
    """What the specs of Deployments, StatefulSets, ReplicaSets, DaemonSets, Jobs and CronJobs have in common."""

    replicas: Integer | None
    strategy: Strategy | None
    ordinals: Ordinals | None
    parallelism: Integer | None
    concurrencyPolicy: str | None
    template: Pod
    jobTemplate: JobTemplate


class Workload(TypedDict):
    """A workload: an object with a Pod template somewhere in its spec."""

    metadata: NotRequired[ObjectMeta | None]
    spec: WorkloadSpec


def wrong(value: object, shape: Any) -> tuple[str, str] | None:  # noqa: ANN401 (a TypedDict)
    """Where and how a value is not of a shape: (`spec.containers[…].name`, `Expected str, got int`), or None."""
    try:
        msgspec.convert(value, _with_structs(shape))
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$")
        return where.rstrip("`").lstrip(".").replace("[...]", "[…]"), what.replace("`", "")
    except RecursionError:
        return "", "nested too deeply"
    return None


@functools.cache
def _with_structs(kind: Any) -> Any:  # noqa: ANN401 (a TypedDict, or the type of a field)
    """A type with a struct in the place of each TypedDict: msgspec checks a value against it in half the time."""
    if is_typeddict(kind):
        fields = get_type_hints(kind, include_extras=True)
        required = [(name, _with_structs(fields[name])) for name in fields if name in kind.__required_keys__]
        optional = [(name, _with_structs(fields[name]), None) for name in fields if name in kind.__optional_keys__]
        return msgspec.defstruct(kind.__name__, [*required, *optional], gc=False)
    origin, parts = get_origin(kind), get_args(kind)
    if origin is None:
        return kind
    if origin is NotRequired:
        return _with_structs(parts[0])
    if origin is Annotated:
        return Annotated[_with_structs(parts[0]), *parts[1:]]
    parts = tuple(map(_with_structs, parts))
    return Union[parts] if origin is UnionType else origin[parts]  # noqa: UP007 (of any number of parts)
