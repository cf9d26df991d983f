"""Objects that are made to cost a webhook as much as can be: `make bench` times them, tests/test_costly.py counts.

Each shape makes an object that grows with a number; `sized` makes one of about so many bytes of it. What is known to
have cost much once stays here, and what is new in an object's way through the webhook belongs here too.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from injector import GROUP
from injector.admission import review
from injector.pod import shapes
from tests import reviews

Object = dict[str, Any]
STATUS = f"{GROUP}/status"
LONG = "x" * 60
ANNOTATIONS_BYTES = 256 * 1024  # Kubernetes' limit for all annotations of an object together


class Shape(NamedTuple):
    """A way to make an object grow.

    `most` is as large as its number can get, where something else than the size of a request bounds it; `operation`
    and `old` are the request's.
    """

    make: Callable[[int], Object]
    most: int | None = None
    update: bool = False


def _pod(spec: Object | None = None, metadata: Object | None = None, /, **annotations: str) -> Object:
    return reviews.pod(spec, metadata, **annotations)


def _app(**fields: Any) -> Object:
    return {"name": "app", "securityContext": {"runAsUser": 1}, **fields}


def _containers(number: int, **fields: Any) -> list[Object]:
    return [{"name": f"c{index}", **fields} for index in range(number)]


def _paths(number: int, depth: int = 1) -> str:
    below = "/".join("d" * depth)
    return ",".join(f"/data/{below}/{index}.db" for index in range(number))


def _mounts(number: int, start: str = "/m", **fields: Any) -> list[Object]:
    return [{"name": "v", "mountPath": f"{start}/{index}", **fields} for index in range(number)]


def _workload(kind: str, pod: Object, **spec: Any) -> Object:
    template = {"metadata": pod["metadata"], "spec": pod["spec"]}
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": "web"},
        "spec": {"template": template, **spec},
    }


def _second(number: int, **more: Any) -> Object:
    """An injected Pod with thousands of containers that look like ours."""
    once = reviews.injected(_pod())
    like = [{"name": f"litestream-hook-restore-{index + 1}"} for index in range(number)]
    once["spec"]["initContainers"] += like
    return {**once, **more}


def _second_of(pod: Object) -> Object:
    return reviews.injected(pod)


def _status(containers: list[str], databases: dict[str, str]) -> str:
    return json.dumps(
        {
            "version": "1",
            "image": "litestream/litestream:0.5.17",
            "bucket": "litestream",
            "endpoint": None,
            "databases": databases,
            "containers": containers,
            "gracePeriod": 30,
        },
        separators=(",", ":"),
    )


def _daemon(spec: Object) -> Object:
    owner = {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "controller": True}
    return _pod(spec, {"ownerReferences": [owner]}, replica_path="{node}")


def _keys(number: int, key: Callable[[int], str], value: str = "") -> Object:
    return _pod(None, {"annotations": {f"{GROUP}/{key(index)}": value for index in range(number)}})


def _nested(number: int) -> Object:
    text: Any = 1
    for _ in range(450):
        text = [text]
    return _pod({"x": [text] * number})


def _more(pod: Object, number: int) -> Object:
    pod["spec"]["containers"] = [*pod["spec"]["containers"], *_containers(number)]
    pod["spec"]["initContainers"] = [*_containers(number), *pod["spec"]["initContainers"]]
    return pod


def _reimaged(pod: Object) -> Object:
    pod["metadata"]["annotations"][f"{GROUP}/image"] = "litestream/litestream:0.5.16"
    return pod


def _repeated(pod: Object, number: int) -> Object:
    pod["spec"]["initContainers"] += [{"name": "litestream-hook-replicate"}] * number
    return pod


def _more_environment(pod: Object, number: int) -> Object:
    for item in pod["spec"]["initContainers"]:
        item["env"] = [*item["env"], *({"name": f"E{i}"} for i in range(number))]
    return pod


def _copy(number: int) -> Object:
    pod = _second(number)
    del pod["metadata"]["annotations"]
    return pod


SHAPES: dict[str, Shape] = {
    # Containers
    "containers with a metrics port": Shape(
        lambda n: _pod({"containers": _containers(n)}, metrics_port="9090", run_as_user="1")
    ),
    "containers of a user": Shape(lambda n: _pod({"containers": _containers(n, securityContext={"runAsUser": 1})})),
    "containers of many users": Shape(
        lambda n: _pod({"containers": [{"name": f"c{i}", "securityContext": {"runAsUser": i + 1}} for i in range(n)]})
    ),
    "containers of root that drop": Shape(
        lambda n: _pod(
            {"containers": _containers(n, env=[{"name": "PUID", "value": "5"}, {"name": "PGID", "value": "5"}])}
        )
    ),
    "containers without a user": Shape(lambda n: _pod({"securityContext": {}, "containers": _containers(n)})),
    "containers of one name": Shape(lambda n: _pod({"containers": [{"name": "app"}] * n}, metrics_port="9090")),
    "containers of nothing but a name": Shape(lambda n: _pod({"containers": _containers(n)})),
    "containers with mounts": Shape(
        lambda n: _pod(
            {"containers": _containers(n, volumeMounts=[{"name": "v", "mountPath": "/data"}])}, path="/data/a.db"
        )
    ),
    "containers with read-only mounts": Shape(
        lambda n: _pod(
            {"containers": _containers(n, volumeMounts=[{"name": "v", "mountPath": "/data", "readOnly": True}])},
            path="/data/a.db",
        )
    ),
    "containers with different mounts": Shape(
        lambda n: _pod(
            {
                "containers": [
                    {"name": f"c{i}", "volumeMounts": [{"name": f"v{i}", "mountPath": "/data"}]} for i in range(n)
                ]
            },
            path="/data/a.db",
        )
    ),
    "containers and 40 databases": Shape(lambda n: _pod({"containers": _containers(n)}, path=_paths(40))),
    "containers with mounts and 40 databases": Shape(
        lambda n: _pod(
            {"containers": _containers(n, volumeMounts=[{"name": "v", "mountPath": "/data"}])}, path=_paths(40)
        )
    ),
    "containers with a Litestream of their own": Shape(
        lambda n: _pod(
            {"containers": [_app(), *_containers(n, image="litestream", args=["replicate"])]}, containers="app"
        )
    ),
    "containers with a Litestream, warned of": Shape(
        lambda n: _pod(
            {"containers": [_app(), *_containers(n, image="litestream", args=["replicate"])]},
            containers="app",
            single_writer="warn",
        )
    ),
    "containers of Windows": Shape(
        lambda n: _pod({"containers": _containers(n, securityContext={"windowsOptions": {"hostProcess": True}})})
    ),
    "containers with names of ours": Shape(
        lambda n: _pod({"containers": [_app(), *({"name": f"litestream-hook-{i}"} for i in range(n))]})
    ),
    "volumes with names of ours": Shape(
        lambda n: _pod({"volumes": [{"name": f"litestream-hook-{i}"} for i in range(n)]})
    ),
    "containers with resources": Shape(
        lambda n: _pod(
            {
                "resources": {"requests": {"cpu": "1", "memory": "1Gi"}},
                "containers": _containers(n, resources={"requests": {"cpu": "1e3", "memory": "0.0000000001Ei"}}),
            }
        )
    ),
    "proxies": Shape(
        lambda n: _pod({"containers": [_app(), *([{"name": "istio-proxy"}] * n)]}, containers="app,istio-proxy")
    ),
    "proxies that are no sidecars": Shape(lambda n: _pod({"containers": [_app(), *([{"name": "istio-proxy"}] * n)]})),
    "a container with a long name": Shape(
        lambda n: _pod(
            {
                "containers": [
                    {"name": "x" * n, "volumeMounts": [{"name": "v", "mountPath": f"/data/{i}.db"} for i in range(500)]}
                ]
            },
            path=",".join(f"/data/{i}.db" for i in range(500)),
        )
    ),
    "a volume with a long name": Shape(
        lambda n: _pod(
            {
                "containers": [
                    {"name": "app", "volumeMounts": [{"name": "v" * n, "mountPath": "/data", "readOnly": True}]}
                ]
            },
            path=_paths(500),
        )
    ),
    "a long mount path": Shape(
        lambda n: _pod(
            {"containers": [_app(volumeMounts=[{"name": "v", "mountPath": "/data" + "/." * n}])]}, path=_paths(500)
        )
    ),
    "long mount paths": Shape(
        lambda n: _pod(
            {"containers": [_app(volumeMounts=[{"name": "v", "mountPath": f"/{i}" + "/.." * 1000} for i in range(n)])]},
            path="/data/a.db",
        )
    ),
    "sidecars": Shape(lambda n: _pod({"initContainers": _containers(n, restartPolicy="Always")})),
    "sidecars with mounts": Shape(
        lambda n: _pod(
            {"initContainers": _containers(n, restartPolicy="Always", volumeMounts=[{"name": "w", "mountPath": "/x"}])},
            path="/data/a.db",
        )
    ),
    "proxies as sidecars": Shape(
        lambda n: _pod({"initContainers": [{"name": "istio-proxy", "restartPolicy": "Always"}] * n})
    ),
    "init containers": Shape(lambda n: _pod({"initContainers": _containers(n)})),
    "init containers that use a database": Shape(
        lambda n: _pod(
            {
                "initContainers": _containers(n, volumeMounts=[{"name": "v", "mountPath": "/data"}]),
                "containers": [_app(volumeMounts=[{"name": "v", "mountPath": "/data"}])],
            },
            path="/data/a.db",
        )
    ),
    "init containers, last": Shape(lambda n: _pod({"initContainers": _containers(n)}, init_first="false")),
    "ephemeral containers": Shape(lambda n: _pod({"ephemeralContainers": _containers(n)})),
    # Environments
    "environment": Shape(lambda n: _pod({"containers": [_app(env=[{"name": f"E{i}"} for i in range(n)])]})),
    "environment of one name": Shape(lambda n: _pod({"containers": [_app(env=[{"name": "PUID"}] * n)]})),
    "environment of an AWS identity": Shape(
        lambda n: _pod({"containers": [_app(env=[{"name": "AWS_ROLE_ARN"}] * n)]}, auth="ambient")
    ),
    "a token's mounts": Shape(
        lambda n: _pod(
            {
                "containers": [
                    _app(env=[{"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": "/a/b"}], volumeMounts=_mounts(n))
                ]
            },
            auth="ambient",
        )
    ),
    "mounts with a token's long path": Shape(
        lambda n: _pod(
            {
                "containers": [
                    _app(
                        env=[{"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": "/a" * (n * 20)}], volumeMounts=_mounts(n)
                    )
                ]
            },
            auth="ambient",
        )
    ),
    "variables in a subPathExpr": Shape(
        lambda n: _pod(
            {
                "containers": [
                    _app(
                        env=[{"name": f"E{i}"} for i in range(n)],
                        volumeMounts=[
                            {"name": "v", "mountPath": "/data", "subPathExpr": "".join(f"$(E{i})" for i in range(n))}
                        ],
                    )
                ]
            },
            path="/data/a.db",
        )
    ),
    "variables in a chain": Shape(
        lambda n: _pod(
            {
                "containers": [
                    _app(
                        env=[{"name": f"E{i}", "value": f"$(E{i - 1})" if i else "x"} for i in range(n)],
                        volumeMounts=[{"name": "v", "mountPath": "/data", "subPathExpr": f"$(E{n - 1})"}],
                    )
                ]
            },
            path="/data/a.db",
        )
    ),
    "variables in a chain, 500 databases": Shape(
        lambda n: _pod(
            {
                "containers": [
                    _app(
                        env=[{"name": f"E{i}", "value": f"$(E{i - 1})" if i else "x"} for i in range(n)],
                        volumeMounts=[
                            {"name": "v", "mountPath": f"/data/{i}", "subPathExpr": f"$(E{n - 1})"} for i in range(500)
                        ],
                    )
                ]
            },
            path=",".join(f"/data/{i}/a.db" for i in range(500)),
        )
    ),
    "variables that are missing": Shape(
        lambda n: _pod(
            {
                "containers": [
                    _app(
                        volumeMounts=[
                            {"name": "v", "mountPath": "/data", "subPathExpr": "".join(f"$(E{i})" for i in range(n))}
                        ]
                    )
                ]
            },
            path=_paths(500),
        )
    ),
    "a missing variable with a long name": Shape(
        lambda n: _pod(
            {
                "containers": [
                    _app(volumeMounts=[{"name": "v", "mountPath": "/data", "subPathExpr": "$(" + "E" * n + ")"}])
                ]
            },
            path=_paths(500),
        )
    ),
    "variables that all refer to one": Shape(
        lambda n: _pod(
            {
                "containers": [
                    _app(
                        env=[{"name": "A", "value": "$(B)" * n}, {"name": "B"}],
                        volumeMounts=[{"name": "v", "mountPath": "/data", "subPathExpr": "$(A)"}],
                    )
                ]
            },
            path=_paths(500),
        )
    ),
    "containers with a subPathExpr each": Shape(
        lambda n: _pod(
            {
                "containers": _containers(
                    n,
                    env=[{"name": "A", "value": "$(B)"}, {"name": "B"}],
                    volumeMounts=[{"name": "v", "mountPath": "/data", "subPathExpr": "$(A)"}],
                )
            },
            path="/data/a.db",
        )
    ),
    "containers with a subPathExpr each, 40 databases": Shape(
        lambda n: _pod(
            {
                "containers": _containers(
                    n,
                    env=[{"name": "A", "value": "$(B)"}, {"name": "B"}],
                    volumeMounts=[{"name": "v", "mountPath": "/data", "subPathExpr": "$(A)"}],
                )
            },
            path=_paths(40),
        )
    ),
    "parentheses in a subPathExpr": Shape(
        lambda n: _pod(
            {"containers": [_app(volumeMounts=[{"name": "v", "mountPath": "/data", "subPathExpr": "$(" * n}])]},
            path=_paths(100),
        )
    ),
    "a long subPath": Shape(
        lambda n: _pod(
            {"containers": [_app(volumeMounts=[{"name": "v", "mountPath": "/data", "subPath": "a/" * n}])]},
            path=_paths(500),
        )
    ),
    # Mounts
    "mounts": Shape(lambda n: _pod({"containers": [_app(volumeMounts=_mounts(n))]}, path="/data/a.db")),
    "mounts at one place": Shape(
        lambda n: _pod(
            {"containers": [_app(volumeMounts=[{"name": "v", "mountPath": "/data"}] * n)]}, path="/data/a.db"
        )
    ),
    "mounts beside 500 databases": Shape(
        lambda n: _pod({"containers": [_app(volumeMounts=_mounts(n))]}, path=_paths(500))
    ),
    "mounts at 500 databases": Shape(
        lambda n: _pod(
            {"containers": [_app(volumeMounts=_mounts(n, "/data"))]},
            path=",".join(f"/data/{i}/a.db" for i in range(500)),
        )
    ),
    "mounts of many volumes": Shape(
        lambda n: _pod(
            {
                "volumes": [{"name": f"v{i}", "emptyDir": {}} for i in range(n)],
                "containers": [_app(volumeMounts=[{"name": f"v{i}", "mountPath": f"/m/{i}"} for i in range(n)])],
            },
            path="/data/a.db",
        )
    ),
    "mounts to be normalised": Shape(
        lambda n: _pod({"containers": [_app(volumeMounts=_mounts(n, "/m/../m//."))]}, path="/data/a.db")
    ),
    "60 containers and deep databases": Shape(
        lambda n: _pod(
            {"containers": _containers(60, volumeMounts=_mounts(30, "/data/d"), args=["x" * n])}, path=_paths(300, 300)
        )
    ),
    "60 containers, deep databases, mounts": Shape(
        lambda n: _pod({"containers": _containers(60, volumeMounts=_mounts(n, "/data/d"))}, path=_paths(300, 300))
    ),
    "deep databases and a mount": Shape(
        lambda n: _pod({"containers": [_app(volumeMounts=_mounts(1, "/data"), args=["x" * n])]}, path=_paths(400, 300))
    ),
    "containers, deep databases, a mount each": Shape(
        lambda n: _pod(
            {"containers": _containers(n, volumeMounts=[{"name": "v", "mountPath": "/data"}])}, path=_paths(400, 300)
        )
    ),
    # The rest of a Pod
    "tolerations of nothing": Shape(lambda n: _pod({"tolerations": [{}] * n})),
    "lists of nothing": Shape(lambda n: _pod({"x": [[]] * n})),
    "nested lists": Shape(_nested),
    "volumes": Shape(lambda n: _pod({"volumes": [{"name": f"v{i}"} for i in range(n)]})),
    "volumes of one name": Shape(lambda n: _pod({"volumes": [{"name": "v"}] * n})),
    "sources of a volume": Shape(
        lambda n: _pod(
            {
                "volumes": [{"name": "v", **{f"s{i}": {} for i in range(n)}}],
                "containers": [_app(volumeMounts=_mounts(1, "/data"))],
            },
            path=",".join(f"/data/0/{i}.db" for i in range(500)),
        )
    ),
    "mounts of a volume with sources": Shape(
        lambda n: _pod(
            {
                "volumes": [{"name": "v", **{f"s{i}": {} for i in range(n)}}],
                "containers": [_app(volumeMounts=_mounts(n))],
            },
            path="/data/a.db",
        )
    ),
    "ports": Shape(
        lambda n: _pod(
            {"containers": [_app(ports=[{"containerPort": 9090 + i} for i in range(n)])]}, metrics_port="9090"
        )
    ),
    "containers with a port that is taken": Shape(
        lambda n: _pod({"containers": _containers(n, ports=[{"containerPort": 9090}])}, metrics_port="9090")
    ),
    "words of a command": Shape(lambda n: _pod({"containers": [_app(command=["litestream"] * n)]})),
    "a command of spaces": Shape(lambda n: _pod({"containers": [_app(command=["litestream " * n])]})),
    "labels": Shape(lambda n: _pod(None, {"labels": {f"l{i}": "" for i in range(n)}})),
    "owners": Shape(lambda n: _pod(None, {"ownerReferences": [{"apiVersion": "", "kind": "", "name": ""}] * n})),
    "node terms": Shape(
        lambda n: _daemon(
            {
                "affinity": {
                    "nodeAffinity": {
                        "requiredDuringSchedulingIgnoredDuringExecution": {
                            "nodeSelectorTerms": [
                                {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a"]}]}
                            ]
                            * n
                        }
                    }
                }
            }
        )
    ),
    "nodes in a term": Shape(
        lambda n: _daemon(
            {
                "affinity": {
                    "nodeAffinity": {
                        "requiredDuringSchedulingIgnoredDuringExecution": {
                            "nodeSelectorTerms": [
                                {
                                    "matchFields": [
                                        {
                                            "key": "metadata.name",
                                            "operator": "In",
                                            "values": [f"n{i}" for i in range(n)],
                                        }
                                    ]
                                }
                            ]
                        }
                    }
                }
            }
        )
    ),
    "empty node terms": Shape(
        lambda n: _daemon(
            {
                "affinity": {
                    "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{}] * n}}
                }
            }
        )
    ),
    "letters beyond ASCII": Shape(lambda n: _pod({"containers": [_app(args=["é" * n, "\u0000" * (n // 8)])]})),
    "a long name": Shape(lambda n: _pod(None, {"name": "x" * n}, path=_paths(500))),
    "a name of escapes": Shape(lambda n: _pod(None, {"name": "\x01" * n}, path=_paths(500))),
    "a long generateName": Shape(
        lambda n: _pod(
            None,
            {
                "generateName": "x" * n,
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "x", "controller": True}],
            },
            path=_paths(500),
        )
    ),
    "a long namespace": Shape(lambda n: _pod(None, {"namespace": "x" * n}, path=_paths(500))),
    "whole numbers": Shape(lambda n: _pod({"x": [int("1" * 4000)] * n})),
    "numbers": Shape(lambda n: _pod({"x": [1.5e300] * n})),
    "a long quantity": Shape(
        lambda n: _pod(
            {"resources": {"requests": {"cpu": "1"}}, "containers": [_app(resources={"requests": {"cpu": "1" * n}})]}
        )
    ),
    # Annotations
    "unknown keys": Shape(lambda n: _keys(n, lambda i: f"k{i}")),
    "unknown keys alike": Shape(lambda n: _keys(n, lambda i: f"inject{LONG}{i}")),
    "unknown long keys": Shape(lambda n: _pod(None, {"annotations": {f"{GROUP}/{'x' * n}": ""}})),
    "a long value of each": Shape(
        lambda n: _pod(
            None,
            None,
            **dict.fromkeys(
                (
                    "path",
                    "bucket",
                    "endpoint",
                    "region",
                    "secret",
                    "replica_path",
                    "image",
                    "init_image",
                    "storage",
                    "containers",
                    "run_as_user",
                    "restore_from",
                    "restore_timestamp",
                    "sync_interval",
                    "cpu_request",
                    "metrics_port",
                ),
                "1" * n,
            ),
        )
    ),
    "a path of commas": Shape(lambda n: _pod(None, None, path="," * n)),
    "a path of spaces": Shape(lambda n: _pod(None, None, path="/data/a.db" + " " * n)),
    "a path of slashes": Shape(lambda n: _pod(None, None, path="/" * n)),
    "a deep path": Shape(lambda n: _pod(None, None, path="/a" * n + "/a.db")),
    "500 wrong paths": Shape(lambda n: _pod(None, None, path=",".join(["x" * (n // 500 + 1)] * 500))),
    "500 paths inside each other": Shape(
        lambda n: _pod(None, None, path=",".join("/a" * (i + 2) for i in range(min(n, 499)))), most=499
    ),
    "databases": Shape(lambda n: _pod(None, None, path=_paths(n), metrics_port="9090"), most=500),
    "databases restored from elsewhere": Shape(
        lambda n: _pod(None, None, path=_paths(n), restore_from="other/{database}"), most=500
    ),
    "databases of deep directories": Shape(lambda n: _pod(None, None, path=_paths(n, 80)), most=500),
    "databases in a directory each": Shape(
        lambda n: _pod(None, None, path=",".join(f"/data/{i}/a.db" for i in range(n))), most=500
    ),
    "databases on one replica": Shape(lambda n: _pod(None, None, path=_paths(n), replica_path="one"), most=500),
    "databases in replicas inside each other": Shape(
        lambda n: _pod(
            None, None, path=",".join("/data" + "/a" * i + "/b" for i in range(n)), replica_path="{database}"
        ),
        most=430,
    ),
    "a replica path of placeholders": Shape(
        lambda n: _pod(None, None, path=_paths(500), replica_path="/".join(["{namespace}"] * n))
    ),
    "a replica path of databases": Shape(
        lambda n: _pod(None, None, path=_paths(500), replica_path="/".join(["{database}"] * n))
    ),
    "a replica path of braces": Shape(lambda n: _pod(None, None, replica_path="{" * n)),
    "a replica path of unknown placeholders": Shape(lambda n: _pod(None, None, replica_path="{x}" * n)),
    "container names": Shape(lambda n: _pod(None, None, containers=",".join(f"c{i}" for i in range(n))), most=500),
    "container names, 500 databases": Shape(
        lambda n: _pod(
            {"containers": _containers(500)}, None, containers=",".join(f"c{i}" for i in range(n)), path=_paths(40)
        ),
        most=500,
    ),
    "a container name that repeats": Shape(lambda n: _pod(None, None, containers="a," * n)),
    "an endpoint of dots": Shape(lambda n: _pod(None, None, endpoint="http://" + "a." * n)),
    "an image of separators": Shape(lambda n: _pod(None, None, image="a" + "-a" * n)),
    "annotations that are no texts": Shape(
        lambda n: _pod(None, {"annotations": {f"{GROUP}/k{i}": 1 for i in range(n)}})
    ),
    "an annotation that is no text": Shape(lambda n: _pod(None, {"annotations": {f"{GROUP}/k": [1] * n}})),
    "a long status": Shape(lambda n: _pod(None, {"annotations": {STATUS: "[" * n}})),
    "a status with containers": Shape(
        lambda n: _pod(None, {"annotations": {STATUS: _status([f"c{i}" for i in range(n)], {})}})
    ),
    "a status with the Pod's containers": Shape(
        lambda n: _pod(
            {"containers": _containers(n)}, {"annotations": {STATUS: _status([f"c{i}" for i in range(n)], {})}}
        )
    ),
    "a status with databases": Shape(
        lambda n: _pod(None, {"annotations": {STATUS: _status(["app"], {f"/d/{i}": "x" for i in range(n)})}})
    ),
    "a status with one container twice": Shape(
        lambda n: _pod(None, {"annotations": {STATUS: _status(["app"] * n, {})}})
    ),
    # A second call
    "a second call, containers like ours": Shape(_second),
    "a second call, databases": Shape(lambda n: _second_of(_pod(None, None, path=_paths(n))), most=300),
    "a second call, containers": Shape(
        lambda n: _second_of(_pod({"containers": _containers(n)}, None, run_as_user="1")), most=900
    ),
    "a second call, containers of others": Shape(lambda n: _more(_second_of(_pod()), n)),
    "a second call, another image": Shape(lambda n: _reimaged(_more(_second_of(_pod()), n))),
    "a second call, one of ours many times": Shape(lambda n: _repeated(_second_of(_pod()), n)),
    "a second call, environment": Shape(lambda n: _more_environment(_second_of(_pod()), n)),
    "a copy that does not ask": Shape(_copy),
    # Workloads
    "a Deployment of containers": Shape(
        lambda n: _workload(
            "Deployment", _pod({"containers": _containers(n)}, metrics_port="9090"), strategy={"type": "Recreate"}
        ),
        update=True,
    ),
    "a rolling Deployment with 500 databases": Shape(
        lambda n: _workload("Deployment", _pod({"containers": [_app(args=["x" * n])]}, path=_paths(500))), update=True
    ),
    "a Deployment of databases on one replica": Shape(
        lambda n: _workload(
            "Deployment", _pod({"containers": [_app(args=["x" * n])]}, path=_paths(500), replica_path="x")
        ),
        update=True,
    ),
    "a Deployment of names of ours": Shape(
        lambda n: _workload(
            "Deployment", _pod({"containers": [_app(), *({"name": f"litestream-hook-{i}"} for i in range(n))]})
        ),
        update=True,
    ),
    "a Deployment with tolerations": Shape(
        lambda n: _workload("Deployment", _pod({"tolerations": [{}] * n})), update=True
    ),
    "a Deployment with misplaced annotations": Shape(
        lambda n: {
            **_workload("Deployment", _pod()),
            "metadata": {"name": "web", "annotations": {f"{GROUP}/k{i}": "" for i in range(n)}},
        },
        update=True,
    ),
    "a StatefulSet of mounts": Shape(
        lambda n: _workload("StatefulSet", _pod({"containers": [_app(volumeMounts=_mounts(n))]})), update=True
    ),
    "a Deployment with nothing of ours": Shape(
        lambda n: _workload("Deployment", {"metadata": {}, "spec": {"tolerations": [{}] * n, "containers": []}}),
        update=True,
    ),
    "a Deployment with many fields": Shape(
        lambda n: {**_workload("Deployment", _pod()), **{f"f{i}": {} for i in range(n)}}, update=True
    ),
}


def body(shape: Shape, number: int) -> bytes:
    """The review of a shape's object of this number; of an update, with the same object as the old one."""
    made = shape.make(number)
    asked = reviews.review(made, "UPDATE", oldObject=shape.make(number)) if shape.update else reviews.review(made)
    return json.dumps(asked, separators=(",", ":"), ensure_ascii=False).encode()


def sized(shape: Shape, size: int) -> bytes:
    """About the largest review of a shape that is of at most `size` bytes (an update: twice that) and is not refused.

    What is refused for the number of its parts or the length of a name costs next to nothing, so the limits of these
    bound a shape as well.
    """
    low, high = 1, 2
    while high < (shape.most or size) and _fits(shape, high, size):
        low, high = high, min(high * 2, shape.most or size)
    while high - low > low // 64 + 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _fits(shape, middle, size) else (low, middle)
    return body(shape, high if _fits(shape, high, size) else low)


def _fits(shape: Shape, number: int, size: int) -> bool:
    made, found = shape.make(number), body(shape, number)
    return (
        len(found) <= size * (1 + shape.update)
        and review.nodes(found) <= review.MOST_NODES
        and shapes.wrong(made, shapes.Workload if shape.update else shapes.Pod) is None
    )
